//! `make bench-exec`: how fast a program starts in a container that runs, and how fast its streams
//! are, side by side in one run.
//!
//! Runs on the machine that has KVM (inside the helper machine where the host cannot serve).
//! Competitors take turns in random order, so that a drift of the machine's speed touches all of them; quote the
//! ratios, never the absolute times.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a benchmark's report is its output")]

use anyhow::{Context, Result, ensure};
use hullbox_tests::bench::{median, on_path, quiet, turns};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What goes through `cat`.
const STREAM_MIB: usize = 64;

/// Every competitor's container.
const NAME: &str = "bench-exec";

/// One competitor, its container running.
struct Contender {
    name: &'static str,
    /// `PROGRAM exec`, without flags.
    exec: Vec<String>,
    /// The container's name among the program's own.
    container: String,
    /// What ends the container.
    remove: Vec<String>,
    latencies: Vec<Duration>,
    streams: Vec<Duration>,
}

impl Contender {
    fn new(name: &'static str, program: &[&str], container: String) -> Self {
        let program: Vec<String> = program.iter().map(|&word| word.to_owned()).collect();
        let with = |words: &[&str]| {
            let mut all = program.clone();
            all.extend(words.iter().map(|&word| word.to_owned()));
            all
        };
        Self {
            name,
            exec: with(&["exec"]),
            remove: with(&["rm", "-f", &container]),
            container,
            latencies: Vec::new(),
            streams: Vec::new(),
        }
    }

    fn command(&self, flags: &[&str], args: &[&str]) -> Result<Command> {
        let (program, first) = self.exec.split_first().context("an empty command")?;
        let mut command = Command::new(program);
        command.args(first).args(flags).arg(&self.container);
        command.args(args);
        Ok(command)
    }

    fn latency(&self) -> Result<Duration> {
        let start = Instant::now();
        quiet(&mut self.command(&[], &["true"])?)?;
        Ok(start.elapsed())
    }

    fn stream(&self, input: &Path, output: &Path) -> Result<Duration> {
        // crun's exec has its standard input without being asked for it.
        let flags: &[&str] = if self.name == "crun" { &[] } else { &["-i"] };
        let mut command = self.command(flags, &["cat"])?;
        command
            .stdin(fs::File::open(input)?)
            .stdout(fs::File::create(output)?);
        let start = Instant::now();
        let status = command.status()?;
        let took = start.elapsed();
        ensure!(status.success(), "{}: cat: {status}", self.name);
        let same = fs::read(input)? == fs::read(output)?;
        ensure!(same, "{} changed the bytes", self.name);
        Ok(took)
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        if let Some((program, args)) = self.remove.split_first() {
            let _ = quiet(Command::new(program).args(args));
        }
    }
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut next = |what: &str| args.next().with_context(|| format!("missing {what}"));
    let hullbox = next("HULLBOX")?;
    let fixtures = PathBuf::from(next("FIXTURES")?);
    let work = PathBuf::from(next("WORK_DIR")?);
    let rounds: usize = next("ROUNDS")?.parse()?;
    fs::create_dir_all(&work)?;
    let mut contenders = vec![ours(&hullbox, "container")?, ours(&hullbox, "vm")?];
    let bundle = bundle(&fixtures, &work)?;
    if on_path("crun") {
        contenders.push(crun(&bundle)?);
    }
    if on_path("podman") {
        contenders.push(podman(&bundle, &work)?);
    }
    measure(&mut contenders, &work, rounds)?;
    report(&mut contenders);
    Ok(())
}

fn measure(contenders: &mut [Contender], work: &Path, rounds: usize) -> Result<()> {
    let (input, output) = (work.join("stream"), work.join("stream.out"));
    let mut bytes = vec![0u8; STREAM_MIB << 20];
    for (index, chunk) in bytes.chunks_exact_mut(8).enumerate() {
        chunk.copy_from_slice(
            &(index as u64)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .to_le_bytes(),
        );
    }
    fs::write(&input, bytes)?;
    // Round 0 warms up. A stream takes as long as many starts: fewer of them.
    for round in 0..=rounds {
        for contender in turns(contenders) {
            let took = contender.latency()?;
            if round > 0 {
                contender.latencies.push(took);
            }
        }
    }
    for round in 0..=rounds.div_ceil(4) {
        for contender in turns(contenders) {
            let took = contender.stream(&input, &output)?;
            if round > 0 {
                contender.streams.push(took);
            }
        }
    }
    fs::remove_file(input)?;
    fs::remove_file(output)?;
    Ok(())
}

fn ours(hullbox: &str, mode: &'static str) -> Result<Contender> {
    let name = match mode {
        "vm" => "hullbox (VM)",
        _ => "hullbox (container)",
    };
    let contender = Contender::new(name, &[hullbox], format!("{NAME}-{mode}"));
    quiet(
        Command::new(hullbox)
            .args(["run", "-d", "--name", &contender.container])
            .arg(format!("--isolation={mode}"))
            .args(["--cpus", "1", "-m", "128m", "busybox", "sleep", "1000000"]),
    )?;
    Ok(contender)
}

/// The same image's files, and a configuration for the reference runtimes.
fn bundle(fixtures: &Path, work: &Path) -> Result<PathBuf> {
    let bundle = work.join("exec-bundle");
    let archive = work.join("exec-archive");
    let root = bundle.join("rootfs");
    fs::create_dir_all(&archive)?;
    fs::create_dir_all(&root)?;
    let untar = |file: &Path, into: &Path| {
        let mut tar = Command::new("tar");
        quiet(tar.arg("-xf").arg(file).arg("-C").arg(into))
    };
    untar(&fixtures.join("busybox.tar"), &archive)?;
    for entry in fs::read_dir(&archive)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tar") {
            untar(&path, &root)?;
        }
    }
    Ok(bundle)
}

fn crun(bundle: &Path) -> Result<Contender> {
    let path = bundle.join("config.json");
    if !path.exists() {
        quiet(Command::new("crun").arg("spec").current_dir(bundle))?;
    }
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    config["process"]["args"] = serde_json::json!(["sleep", "1000000"]);
    config["process"]["terminal"] = serde_json::json!(false);
    fs::write(&path, serde_json::to_vec(&config)?)?;
    let mut contender = Contender::new("crun", &["crun"], NAME.to_owned());
    contender.remove = ["crun", "delete", "-f", NAME].map(str::to_owned).to_vec();
    detached(
        Command::new("crun")
            .args(["run", "--detach", "--bundle"])
            .arg(bundle)
            .arg(NAME),
    )?;
    Ok(contender)
}

fn podman(bundle: &Path, work: &Path) -> Result<Contender> {
    // podman takes no run root whose path is longer than 50 characters.
    let runtime = std::env::var_os("HULLBOX_RUNTIME").map_or_else(|| "/run".into(), PathBuf::from);
    let dir = |base: &Path, name: &str| base.join(name).display().to_string();
    let store = dir(work, "podman");
    let (run, tmp) = (dir(&runtime, "podman-run"), dir(&runtime, "podman-tmp"));
    let program = [
        "podman",
        "--root",
        &store,
        "--runroot",
        &run,
        "--tmpdir",
        &tmp,
        "--storage-driver=vfs",
        "--cgroup-manager=cgroupfs",
        "--events-backend=none",
    ];
    let contender = Contender::new("podman", &program, NAME.to_owned());
    let (first, rest) = program.split_first().context("an empty command")?;
    detached(
        Command::new(first)
            .args(rest)
            .args(["run", "-d", "--network=none", "--log-driver=none"])
            .args(["--name", NAME, "--rootfs"])
            .arg(bundle.join("rootfs"))
            .args(["sleep", "1000000"]),
    )?;
    Ok(contender)
}

/// What stays in the background keeps its streams: they must not be pipes that are waited for.
fn detached(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

fn report(contenders: &mut [Contender]) {
    println!("`exec true` in a running container, 1 vCPU, 128 MiB, competitors in turn:");
    println!(
        "{:<20} {:>10} {:>10} {:>10} {:>7}",
        "", "median", "min", "max", "ratio"
    );
    let mut reference = None;
    for contender in contenders.iter_mut() {
        let middle = median(&mut contender.latencies);
        let base = *reference.get_or_insert(middle);
        println!(
            "{:<20} {:>7} ms {:>7} ms {:>7} ms {:>7.2}",
            contender.name,
            middle.as_millis(),
            contender.latencies.first().map_or(0, Duration::as_millis),
            contender.latencies.last().map_or(0, Duration::as_millis),
            middle.as_secs_f64() / base.as_secs_f64()
        );
    }
    println!("\n{STREAM_MIB} MiB through `exec -i cat`, whole command, intact in all of them:");
    println!("{:<20} {:>10} {:>12} {:>7}", "", "median", "", "ratio");
    let mut reference = None;
    for contender in contenders {
        let middle = median(&mut contender.streams).as_secs_f64();
        let base = *reference.get_or_insert(middle);
        println!(
            "{:<20} {:>8.2} s {:>6.1} MiB/s {:>7.2}",
            contender.name,
            middle,
            STREAM_MIB as f64 / middle,
            base / middle
        );
    }
}
