//! `make bench-start`: how fast a container starts, side by side in one run.
//!
//! Runs on the machine that has KVM (inside the helper machine where the host cannot serve).
//! Competitors take turns in random order, so that a drift of the machine's speed touches all of them; quote the
//! ratios, never the absolute times.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a benchmark's report is its output")]

use anyhow::{Context, Result, bail, ensure};
use hullbox_tests::bench::{median, on_path, quiet, turns};
use rustix::io::Errno;
use rustix::process::WaitOptions;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

struct Options {
    hullbox: PathBuf,
    fixtures: PathBuf,
    work: PathBuf,
    rounds: usize,
}

/// One competitor and its samples.
struct Contender {
    name: &'static str,
    command: Vec<String>,
    samples: Vec<Duration>,
    /// From the command's end to that of the last process it left behind.
    cleanups: Vec<Duration>,
}

impl Contender {
    fn new(name: &'static str, command: &str) -> Self {
        Self {
            name,
            command: command.split(' ').map(str::to_owned).collect(),
            samples: Vec::new(),
            cleanups: Vec::new(),
        }
    }
}

fn main() -> Result<()> {
    let options = parse()?;
    fs::create_dir_all(&options.work)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    start_times(&options)?;
    memory(&options)?;
    streams(&options)?;
    loading(&options)?;
    Ok(())
}

fn parse() -> Result<Options> {
    let mut args = std::env::args().skip(1);
    let mut next = |what: &str| args.next().with_context(|| format!("missing {what}"));
    Ok(Options {
        hullbox: next("HULLBOX")?.into(),
        fixtures: next("FIXTURES")?.into(),
        work: next("WORK_DIR")?.into(),
        rounds: next("ROUNDS")?.parse()?,
    })
}

/// A bundle for the reference runtimes: the same image, unpacked by umoci, no terminal.
fn reference_bundle(options: &Options) -> Result<PathBuf> {
    let bundle = options.work.join("bundle");
    if bundle.exists() {
        return Ok(bundle);
    }
    let layout = options.work.join("layout");
    let archive = options.fixtures.join("busybox.tar");
    quiet(
        Command::new("skopeo")
            .args(["--insecure-policy", "copy", "-q"])
            .arg(format!("docker-archive:{}", archive.display()))
            .arg(format!("oci:{}:busybox", layout.display())),
    )?;
    quiet(
        Command::new("umoci")
            .args(["unpack", "--image"])
            .arg(format!("{}:busybox", layout.display()))
            .arg(&bundle),
    )?;
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    config["process"]["args"] = serde_json::json!(["/bin/true"]);
    config["process"]["terminal"] = serde_json::json!(false);
    fs::write(&path, serde_json::to_vec(&config)?)?;
    Ok(bundle)
}

fn start_times(options: &Options) -> Result<()> {
    let bundle = reference_bundle(options)?;
    let bundle = bundle.display();
    let hullbox = options.hullbox.display();
    let mut contenders = vec![
        Contender::new(
            "crun run",
            &format!("crun run --bundle {bundle} bench-crun"),
        ),
        Contender::new(
            "hullbox run --rm (VM)",
            &format!("{hullbox} run --rm --isolation=vm --cpus 1 -m 128m busybox true"),
        ),
        Contender::new(
            "hullbox run --rm --cold (VM)",
            &format!("{hullbox} run --rm --cold --isolation=vm --cpus 1 -m 128m busybox true"),
        ),
        Contender::new(
            "hullbox run --rm (container)",
            &format!("{hullbox} run --rm --isolation=container -m 128m busybox true"),
        ),
    ];
    if on_path("runc") {
        contenders.push(Contender::new(
            "runc run",
            &format!("runc run --bundle {bundle} bench-runc"),
        ));
    }
    // What the first run without --cold would have made in the background.
    let build = ["template", "build", "--cpus", "1", "-m", "128m"];
    quiet(Command::new(&options.hullbox).args(build))?;
    for round in 0..=options.rounds {
        for contender in turns(&mut contenders) {
            let took = time(&contender.command)?;
            let cleanup = settle()?;
            if round > 0 {
                contender.samples.push(took); // round 0 warms up
                contender.cleanups.push(cleanup);
            }
        }
    }
    report(&mut contenders);
    phases(options)
}

fn time(command: &[String]) -> Result<Duration> {
    let (program, args) = command.split_first().context("an empty command")?;
    let start = Instant::now();
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| program.clone())?;
    let took = start.elapsed();
    ensure!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(took)
}

/// Waits for all that a command has left behind, so that it is not at the next one's expense.
/// This process is the reaper of all its descendants.
fn settle() -> Result<Duration> {
    let start = Instant::now();
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Err(Errno::CHILD) => return Ok(start.elapsed()),
            Err(Errno::INTR) | Ok(_) => {}
            Err(error) => return Err(error).context("waiting for what a command left"),
        }
    }
}

fn report(contenders: &mut [Contender]) {
    let mut reference = None;
    println!("start to exit of busybox `true`, 1 vCPU, 128 MiB, competitors in turn:");
    println!(
        "{:<32} {:>9} {:>9} {:>9} {:>7} {:>10}",
        "", "median", "min", "max", "ratio", "clean-up"
    );
    for contender in contenders {
        let middle = median(&mut contender.samples);
        let base = *reference.get_or_insert(middle);
        println!(
            "{:<32} {:>7} ms {:>6} ms {:>6} ms {:>7.2} {:>7} ms",
            contender.name,
            middle.as_millis(),
            contender.samples.first().map_or(0, Duration::as_millis),
            contender.samples.last().map_or(0, Duration::as_millis),
            middle.as_secs_f64() / base.as_secs_f64(),
            median(&mut contender.cleanups).as_millis()
        );
    }
}

/// How a run divides, from the program's own account.
fn phases(options: &Options) -> Result<()> {
    for flags in [&[][..], &["--cold"]] {
        let output = Command::new(&options.hullbox)
            .args(["run", "--rm", "--isolation=vm", "--cpus", "1", "-m", "128m"])
            .args(flags)
            .args(["--timing", "busybox", "true"])
            .stdin(Stdio::null())
            .output()?;
        println!(
            "\nhow one run{} divides:",
            flags
                .iter()
                .map(|flag| format!(" {flag}"))
                .collect::<String>()
        );
        println!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
        settle()?;
    }
    Ok(())
}

/// Resident memory of an idle VM's monitor: guest RAM and everything else, from smaps.
fn memory(options: &Options) -> Result<()> {
    for (flags, origin) in [(&[][..], "from a template"), (&["--cold"], "booted")] {
        let memory = idle_vm(options, flags)?;
        let mib = |kib: u64| kib as f64 / 1024.0;
        println!("\nmemory of an idle VM, {origin} (128 MiB, workload waiting):");
        println!(
            "  guest memory touched    {:>7.1} MiB, of which {:.1} MiB its own",
            mib(memory.guest_kib),
            mib(memory.guest_own_kib)
        );
        println!(
            "  VMM without guest RAM   {:>7.1} MiB, of which {:.1} MiB its own and the rest pages \
             of the program",
            mib(memory.own_kib + memory.file_kib),
            mib(memory.own_kib)
        );
        println!(
            "  private, all in all     {:>7.1} MiB",
            mib(memory.own_kib + memory.guest_own_kib)
        );
    }
    Ok(())
}

fn idle_vm(options: &Options, flags: &[&str]) -> Result<Resident> {
    let mut child = Command::new(&options.hullbox)
        .args(["run", "--rm", "-i", "--isolation=vm", "--cpus", "1"])
        .args(["-m", "128m"])
        .args(flags)
        .args(["busybox", "sh", "-c", "echo up; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut up = [0u8; 3];
    let stdout = child.stdout.as_mut().context("stdout is piped")?;
    stdout.read_exact(&mut up)?;
    // Idle is who has had time to come to rest.
    std::thread::sleep(Duration::from_secs(2));
    let memory = monitor_memory()?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    stdin.write_all(b"\n")?;
    drop(stdin);
    child.wait()?;
    settle()?;
    Ok(memory)
}

/// Resident KiB of a monitor.
#[derive(Debug, Default, PartialEq, Eq)]
struct Resident {
    guest_kib: u64,
    /// Of that, what it shares with no other guest.
    guest_own_kib: u64,
    /// Its own memory besides the guest's.
    own_kib: u64,
    /// Mapped files: in the host's page cache once, however many monitors there are.
    file_kib: u64,
}

/// Of the one monitor that runs.
fn monitor_memory() -> Result<Resident> {
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let Ok(cmdline) = fs::read(path.join("cmdline")) else {
            continue;
        };
        if cmdline.windows(9).any(|part| part == b"__monitor") {
            return Ok(split_smaps(&fs::read_to_string(path.join("smaps"))?));
        }
    }
    bail!("no monitor is running")
}

/// Guest memory is the one anonymous mapping that is large, or what is left of it around a kernel
/// that is mapped into it.
fn split_smaps(smaps: &str) -> Resident {
    const LARGE: u64 = 16 << 20;
    let mut resident = Resident::default();
    let mut guest = false;
    for line in smaps.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            [range, _, _, _, _, ref name @ ..] if range.contains('-') => {
                let address = |text| u64::from_str_radix(text, 16).unwrap_or(0);
                let bytes = range
                    .split_once('-')
                    .map_or(0, |(start, end)| address(end) - address(start));
                let name = name.first().copied().unwrap_or("");
                guest = (name.is_empty() && bytes >= LARGE)
                    || name.contains("/vmlinux")
                    || name.contains("/initramfs")
                    || name.contains("/templates/");
            }
            ["Rss:", kib, "kB"] => {
                let kib: u64 = kib.parse().unwrap_or(0);
                match guest {
                    true => resident.guest_kib += kib,
                    false => resident.file_kib += kib,
                }
            }
            // Part of the above: what is no file's, or is a copy of a file's page.
            ["Anonymous:", kib, "kB"] => {
                let kib: u64 = kib.parse().unwrap_or(0);
                if guest {
                    resident.guest_own_kib += kib;
                } else {
                    resident.own_kib += kib;
                    resident.file_kib = resident.file_kib.saturating_sub(kib);
                }
            }
            _ => {}
        }
    }
    resident
}

/// 100 MiB through `cat`, in both modes.
fn streams(options: &Options) -> Result<()> {
    let input = options.work.join("100M");
    if !input.exists() {
        quiet(Command::new("sh").arg("-c").arg(format!(
            "head -c 104857600 /dev/urandom > {}",
            input.display()
        )))?;
    }
    let expected = digest(&input)?;
    let mut times = Vec::new();
    for mode in ["vm", "container"] {
        let output = options.work.join("100M.out");
        let start = Instant::now();
        let status = Command::new(&options.hullbox)
            .args([
                "run",
                "--rm",
                "-i",
                &format!("--isolation={mode}"),
                "busybox",
                "cat",
            ])
            .stdin(fs::File::open(&input)?)
            .stdout(fs::File::create(&output)?)
            .status()?;
        times.push(start.elapsed());
        ensure!(status.success(), "cat in {mode} mode: {status}");
        ensure!(
            digest(&output)? == expected,
            "{mode} mode changed the bytes"
        );
    }
    let [vm, container] = times[..] else {
        bail!("two modes")
    };
    println!("\n100 MiB through `cat`, whole command, intact in both modes:");
    println!(
        "  VM {:.1} s, container {:.1} s: the VM's throughput is {:.2} of the container's",
        vm.as_secs_f64(),
        container.as_secs_f64(),
        container.as_secs_f64() / vm.as_secs_f64()
    );
    Ok(())
}

fn digest(path: &Path) -> Result<Vec<u8>> {
    Ok(Command::new("sha256sum")
        .stdin(fs::File::open(path)?)
        .output()?
        .stdout)
}

/// A 300 MiB image into the store, against `umoci unpack` of the same layers.
fn loading(options: &Options) -> Result<()> {
    let layout = options.work.join("big");
    if !layout.exists() {
        make_big_image(options, &layout)?;
    }
    let (mut ours, mut theirs, mut peak_kib) = (Vec::new(), Vec::new(), 0);
    for round in 0..3 {
        let bundle = options.work.join(format!("big-bundle-{round}"));
        let image = format!("{}:big", layout.display());
        theirs.push(time(
            &[
                "umoci",
                "unpack",
                "--image",
                &image,
                &bundle.display().to_string(),
            ]
            .map(str::to_owned),
        )?);
        fs::remove_dir_all(&bundle)?;
        let loaded = timed_load(options, &layout)?;
        ours.push(loaded.took);
        peak_kib = peak_kib.max(loaded.peak_kib);
        quiet(Command::new(&options.hullbox).args(["rmi", &loaded.image]))?;
    }
    println!("\nloading a 300 MiB image (medians of 3):");
    println!(
        "  hullbox load {:.1} s, umoci unpack {:.1} s, ratio {:.2}; peak resident memory {} MiB",
        median(&mut ours).as_secs_f64(),
        median(&mut theirs).as_secs_f64(),
        median(&mut ours).as_secs_f64() / median(&mut theirs).as_secs_f64(),
        peak_kib / 1024
    );
    Ok(())
}

/// One layer of 300 files of 1 MiB, half of each incompressible.
fn make_big_image(options: &Options, layout: &Path) -> Result<()> {
    let tree = options.work.join("big-tree");
    let mut random = fs::File::open("/dev/urandom")?;
    let mut contents = vec![b'x'; 1 << 20];
    for number in 0..300 {
        let dir = tree.join(format!("d{number}"));
        fs::create_dir_all(&dir)?;
        random.read_exact(&mut contents[..1 << 19])?;
        fs::write(dir.join("file"), &contents)?;
    }
    let image = format!("{}:big", layout.display());
    quiet(Command::new("umoci").args(["init", "--layout"]).arg(layout))?;
    quiet(Command::new("umoci").args(["new", "--image", &image]))?;
    let insert = ["insert", "--image", &image];
    quiet(Command::new("umoci").args(insert).arg(&tree).arg("/"))?;
    fs::remove_dir_all(tree)?;
    Ok(())
}

/// One `hullbox load`.
struct Loaded {
    took: Duration,
    peak_kib: u64,
    /// Its name or, without one, its id.
    image: String,
}

/// Runs `hullbox load` and reads its peak resident set as it ends.
fn timed_load(options: &Options, layout: &Path) -> Result<Loaded> {
    let start = Instant::now();
    let mut child = Command::new(&options.hullbox)
        .args(["load", "-q", "-i"])
        .arg(layout)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    loop {
        let status = fs::read_to_string(&status_file).unwrap_or_default();
        let high_water = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = high_water.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        peak_kib = peak_kib.max(kib.unwrap_or(0));
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "hullbox load: {status}");
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = start.elapsed();
    let mut said = String::new();
    let stdout = child.stdout.as_mut().context("stdout is piped")?;
    stdout.read_to_string(&mut said)?;
    // "Loaded image: NAME" or "Loaded image ID: ID".
    let image = said.split_whitespace().last();
    Ok(Loaded {
        took,
        peak_kib,
        image: image.context("load names what it loaded")?.to_owned(),
    })
}
