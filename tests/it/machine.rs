//! The helper machine: forwarding as if there were none, files that stay as they are, and a
//! machine that comes back whatever happens to it.

use crate::own_machine::{Own, kill, parent_of, signal};
use hullbox_tests::{Done, Mode, Terminal, command, finish, fixture};
use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

fn exec(program: &[&str]) -> Command {
    let mut command = command(["machine", "exec", "--"]);
    command.args(program);
    command
}

fn sh(script: &str) -> Done {
    finish(exec(&["sh", "-c", script]), b"")
}

/// A directory on the host's disk (the machine does not see the host's /run or /dev/shm).
fn host_dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
#[ignore = "needs the built program: make test"]
fn streams_and_exit_codes_pass() {
    let done = finish(exec(&["cat"]), b"x\n").exits(0);
    assert_eq!(done.stdout, b"x\n");
    let done = sh("echo out; echo err >&2; exit 7").exits(7);
    assert_eq!(
        (done.text().as_str(), done.stderr.as_str()),
        ("out", "err\n")
    );
    let _ = sh("kill -TERM $$").exits(143);
    let _ = finish(exec(&["no-such-program"]), b"").exits(127);
    let _ = finish(exec(&["/etc/passwd"]), b"").exits(126);
    // Nothing on standard input is an end, not a wait.
    assert_eq!(sh("cat; echo end").exits(0).text(), "end");
}

#[test]
#[ignore = "needs the built program: make test"]
fn large_binary_data_passes_both_ways() {
    let mut state = 0x1234_5678_9abc_def0u64;
    let data: Vec<u8> = (0..4 << 20)
        .flat_map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_le_bytes()
        })
        .collect();
    let done = finish(exec(&["cat"]), &data).exits(0);
    assert!(
        done.stdout == data,
        "{} of {} bytes",
        done.stdout.len(),
        data.len()
    );
    // A reader that leaves early ends the writer, as a pipe does.
    let mut child = exec(&["sh", "-c", "yes 2>/dev/null; echo status $? >&2"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "y\n");
    let _ = child.wait().unwrap();
}

#[test]
#[ignore = "needs the built program: make test"]
fn directory_environment_and_mask_pass() {
    let dir = host_dir();
    fs::write(dir.path().join("file"), "here").unwrap();
    let mut command = exec(&[
        "sh",
        "-c",
        "cat ./file; echo; echo \"$COLOUR\"; pwd; umask; echo $HULLBOX_MACHINE; id -u",
    ]);
    command
        .current_dir(dir.path())
        .env("COLOUR", "blue = \u{e9}");
    let done = finish(command, b"").exits(0);
    let text = done.text();
    let lines: Vec<_> = text.lines().collect();
    let cwd = dir.path().canonicalize().unwrap();
    assert_eq!(lines[..3], ["here", "blue = \u{e9}", cwd.to_str().unwrap()]);
    assert_eq!(lines[4], "never");
    assert_eq!(lines[5], rustix::process::geteuid().as_raw().to_string());
}

#[test]
#[ignore = "needs the built program: make test"]
fn signals_pass() {
    let script = "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let mut child = exec(&["sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "got");
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_killed_client_takes_its_program_along() {
    let mut child = exec(&["sh", "-c", "echo $$; exec sleep 4242"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let pid = lines.next().unwrap().unwrap();
    child.kill().unwrap();
    let _ = child.wait().unwrap();
    let gone = sh(&format!(
        "for i in $(seq 100); do [ -d /proc/{pid} ] || exit 0; sleep 0.1; done; exit 1"
    ));
    let _ = gone.exits(0);
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_terminal_passes_each_stream_as_it_is() {
    let mut terminal = Terminal::start(&command(["machine", "exec", "--", "sh"]), 31, 87);
    terminal.type_text("stty size; test -t 0 && test -t 1 && test -t 2 && echo all-$((1+1))\n");
    terminal.expect("31 87");
    terminal.expect("all-2");
    terminal.type_text("exit 3\n");
    assert_eq!(terminal.wait(), 3);
}

#[test]
#[ignore = "needs the built program: make test"]
fn the_host_stays_as_it_is() {
    let dir = host_dir();
    let canary = dir.path().join("canary");
    fs::write(&canary, "alive").unwrap();
    let path = canary.display();
    // Through the overlay, writes work and stay in the machine.
    let done = sh(&format!(
        "echo dead > {path}; cat {path}; rm -f {path}; ls {path} 2>&1; true"
    ))
    .exits(0);
    assert!(done.text().starts_with("dead"), "{}", done.text());
    assert_eq!(fs::read_to_string(&canary).unwrap(), "alive");
    // Below the overlay, on a mount of the share of one's own, however it is mounted.
    let script = format!(
        "mkdir -p /run/raw && mount -t virtiofs host /run/raw && mount -o remount,rw /run/raw; \
         for try in 'echo dead > /run/raw{path}' 'rm -f /run/raw{path}' 'mv /run/raw{path} /run/raw{path}2' \
                    'chmod 777 /run/raw{path}' 'touch /run/raw{dir}/new' 'truncate -s 0 /run/raw{path}' \
                    'mknod /run/raw{dir}/n c 1 3' 'ln /run/raw{path} /run/raw{dir}/l' \
                    'dd if=/dev/zero of=/run/raw{path} conv=notrunc bs=1 count=1'; do \
             sh -c \"$try\" 2>/dev/null && echo \"worked: $try\"; done; \
         cat /run/raw{path}; ls /run/raw/proc; umount /run/raw",
        dir = dir.path().display()
    );
    let done = sh(&script).exits(0);
    assert_eq!(done.text(), "alive", "{}", done.stderr);
    assert_eq!(fs::read_to_string(&canary).unwrap(), "alive");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
#[ignore = "needs the built program: make test"]
fn the_next_command_sees_what_the_host_changed() {
    let dir = host_dir();
    let file = dir.path().join("file");
    let read = || {
        let done = finish(exec(&["cat", file.to_str().unwrap()]), b"");
        (done.code, done.text())
    };
    assert_eq!(read().0, 1, "not there yet");
    for _ in 0..5 {
        fs::write(&file, "one").unwrap();
        assert_eq!(read(), (0, "one".into()));
        // In place, same length.
        fs::write(&file, "two").unwrap();
        assert_eq!(read(), (0, "two".into()));
        // Replaced.
        fs::write(dir.path().join("new"), "three").unwrap();
        fs::rename(dir.path().join("new"), &file).unwrap();
        assert_eq!(read(), (0, "three".into()));
        fs::remove_file(&file).unwrap();
        assert_eq!(read().0, 1, "gone again");
    }
}

/// As when this program is replaced by a newer one while containers run.
#[test]
#[ignore = "needs the built program: make test"]
fn a_program_that_runs_can_be_replaced() {
    let dir = host_dir();
    let program = dir.path().join("program");
    fs::copy("/usr/bin/tail", &program).unwrap();
    let program = program.to_str().unwrap();
    let mut runs = exec(&[program, "-f", "/etc/hostname", "/dev/null"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(runs.stdout.take().unwrap());
    assert!(lines.read_line(&mut String::new()).unwrap() > 0);
    fs::copy("/usr/bin/echo", dir.path().join("new")).unwrap();
    fs::rename(dir.path().join("new"), program).unwrap();
    let done = finish(exec(&[program, "the", "new"]), b"").exits(0);
    assert_eq!(done.text(), "the new");
    runs.kill().unwrap();
    runs.wait().unwrap();
}

/// Fails unless it becomes true within some seconds.
#[track_caller]
fn eventually(seconds: u64, what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !is_true() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn it_survives_kills_and_concurrent_starts() {
    let own = Own::new("idle_s = 600");
    // All at once: one machine, four answers.
    thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|i| {
                scope.spawn({
                    let own = &own;
                    move || {
                        own.sh(&format!("echo {i}; cat /proc/sys/kernel/random/boot_id"))
                            .exits(0)
                            .text()
                    }
                })
            })
            .collect();
        let texts: Vec<_> = runs.into_iter().map(|run| run.join().unwrap()).collect();
        let boots: std::collections::BTreeSet<_> = texts
            .iter()
            .filter_map(|text| text.lines().nth(1))
            .collect();
        assert_eq!(boots.len(), 1, "{texts:?}");
    });
    let status = own.status();
    assert_eq!(status["state"], "running");
    assert_eq!(status["memory_mib"], 768);

    // Data lasts; the volume is written through; the rest is gone with the machine.
    let data = own.dir.path().join("data");
    let script = format!(
        "echo kept > {}/kept; echo through > {}/file; echo gone > {}/gone",
        data.display(),
        own.volume().display(),
        own.dir.path().display()
    );
    let _ = own.sh(&format!("{script}; sync")).exits(0);
    assert_eq!(
        fs::read_to_string(own.volume().join("file")).unwrap(),
        "through\n"
    );
    assert!(!own.dir.path().join("gone").exists());

    // While it runs, the data directory is its own.
    let mut direct = own.set(command(["images"]));
    direct.env("HULLBOX_MACHINE", "never");
    finish(direct, b"").fails_saying("helper machine");

    // Nobody starts the next machine before the files of this one are gone: they have the same names.
    let (supervisor, qemu) = (own.pid(), own.helper("qemu"));
    signal(supervisor, Signal::STOP);
    kill(qemu);
    let zombie =
        || fs::read_to_string(format!("/proc/{qemu}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    eventually(20, "QEMU does not end", zombie);
    let lock = fs::File::open(data.join("machine/lock")).unwrap();
    let free = flock(&lock, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(free, Err(rustix::io::Errno::WOULDBLOCK));
    drop(lock);
    signal(supervisor, Signal::CONT);
    let _ = own.sh("true").exits(0);

    for word in ["qemu", "\0share\0", "\0vsock\0"] {
        let supervisor = own.pid();
        kill(own.helper(word));
        if word.contains("share") {
            // Until it is noticed, a machine without its share takes commands, and has no programs.
            let gone = || !Path::new(&format!("/proc/{supervisor}")).exists();
            eventually(20, "the machine lives on without its share", gone);
        }
        let done = own.sh(&format!("cat {}/kept", data.display())).exits(0);
        assert_eq!(done.text(), "kept", "after the end of {word}");
    }
    let supervisor = own.pid();
    let qemu = own.helper("qemu");
    kill(supervisor);
    assert_eq!(
        own.sh(&format!("cat {}/kept", data.display()))
            .exits(0)
            .text(),
        "kept"
    );
    assert!(!Path::new(&format!("/proc/{qemu}")).exists() || parent_of(qemu) != Some(supervisor));

    own.stop();
    assert_eq!(own.status()["state"], "stopped");
    let mut direct = own.set(command(["images"]));
    direct.env("HULLBOX_MACHINE", "never");
    let _ = finish(direct, b"").exits(0);
}

#[test]
#[ignore = "needs the built program: make test"]
fn it_stops_by_itself_but_not_under_work() {
    let own = Own::new("idle_s = 2");
    // A process that left its session is work, too.
    let _ = own
        .sh("setsid sleep 6 >/dev/null 2>&1 </dev/null & exit 0")
        .exits(0);
    thread::sleep(Duration::from_secs(4));
    assert_eq!(own.status()["state"], "running");
    eventually(30, "it did not stop by itself", || {
        own.status()["state"] == "stopped"
    });
    // And is there again when needed.
    assert_eq!(own.sh("echo back").exits(0).text(), "back");
}

/// An ordinary user with a home, and this program where that user can reach it.
struct Ordinary {
    home: tempfile::TempDir,
    id: u32,
}

impl Ordinary {
    fn new() -> Self {
        let own = Self {
            home: tempfile::tempdir_in("/tmp").unwrap(),
            id: 54_321,
        };
        let home = own.home.path();
        fs::create_dir_all(home.join("config/hullbox")).unwrap();
        fs::create_dir(home.join("volume")).unwrap();
        fs::write(home.join("mine"), "mine").unwrap();
        fs::set_permissions(home.join("mine"), fs::Permissions::from_mode(0o600)).unwrap();
        // The kernel that root's machine has fetched, if it has; it need not come twice.
        let kernel = fs::read_dir("/var/cache/hullbox/kernel").ok();
        let kernel = kernel.and_then(|mut entries| Some(entries.next()?.ok()?.path()));
        let mut settings = format!(
            "[machine]\npolicy = \"always\"\nmemory_mib = 1024\ncpus = 2\nvolumes = [{:?}]\n",
            home.join("volume")
        );
        if let Some(kernel) = kernel {
            settings.push_str(&format!("kernel_dir = {kernel:?}\n"));
        }
        fs::write(home.join("config/hullbox/config.toml"), settings).unwrap();
        fs::copy(command([""; 0]).get_program(), home.join("hullbox")).unwrap();
        fs::copy(fixture("busybox.tar"), home.join("busybox.tar")).unwrap();
        for path in [".", "config", "config/hullbox", "volume", "mine"] {
            chown(home.join(path), Some(own.id), Some(own.id)).unwrap();
        }
        own
    }

    fn hullbox(&self, args: &[&str]) -> Done {
        let home = self.home.path();
        let mut command = Command::new(home.join("hullbox"));
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", home)
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("HULLBOX_RUNTIME", home.join("run"))
            .current_dir(home)
            .gid(self.id)
            .uid(self.id);
        finish(command, b"")
    }
}

impl Drop for Ordinary {
    fn drop(&mut self) {
        let _ = self.hullbox(&["machine", "stop"]);
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn an_ordinary_user_has_a_machine_of_their_own() {
    if !rustix::process::geteuid().is_root() {
        // Then all other tests have shown it.
        return;
    }
    let user = Ordinary::new();
    let sh = |script: &str| user.hullbox(&["machine", "exec", "--", "sh", "-c", script]);
    let _ = user.hullbox(&["load", "-q", "-i", "busybox.tar"]).exits(0);
    let images = ["images", "--format", "{{.Repository}}"];
    assert_eq!(user.hullbox(&images).exits(0).text(), "busybox");
    for mode in [Mode::Vm, Mode::Container] {
        let done = user.hullbox(&["run", "--rm", mode.flag(), "busybox", "echo", "well"]);
        assert_eq!(done.exits(0).text(), "well", "{mode:?}");
    }
    // Mounted, the user's files are root's in a container, which can give nothing away.
    let bind = format!("{}/bound:/x", user.home.path().display());
    for (mode, name) in [(Mode::Vm, "vm"), (Mode::Container, "ns")] {
        let script = format!(
            "cd /x; echo $(stat -c %u:%g .) > {name}; chmod 750 {name}; chown 7 {name} && echo given; cat {name}"
        );
        let run = [
            "run",
            "--rm",
            mode.flag(),
            "-v",
            &bind,
            "busybox",
            "sh",
            "-c",
            &script,
        ];
        assert_eq!(user.hullbox(&run).text(), "0:0", "{mode:?}");
        let made = fs::metadata(user.home.path().join("bound").join(name)).unwrap();
        assert_eq!((made.uid(), made.mode() & 0o777), (user.id, 0o750));
    }
    // The user's files are there as they may see them, and nobody else's secrets.
    assert_eq!(sh("cat mine").exits(0).text(), "mine");
    let _ = sh("cat /etc/shadow").exits(1);
    // What is written through is the user's, whoever wrote it in the machine.
    let _ = sh("echo a > volume/a; chmod 640 volume/a; mv volume/a volume/b").exits(0);
    let made = fs::metadata(user.home.path().join("volume/b")).unwrap();
    assert_eq!(
        (made.uid(), made.gid(), made.mode() & 0o777),
        (user.id, user.id, 0o640)
    );
    // All else is not.
    let _ = sh("echo changed > mine; rm -rf /etc/passwd").exits(0);
    assert_eq!(
        fs::read_to_string(user.home.path().join("mine")).unwrap(),
        "mine"
    );
    assert!(Path::new("/etc/passwd").exists());
}

/// The share's server has what files take, and nothing else.
#[test]
#[ignore = "needs the built program: make test"]
fn the_shares_server_is_confined() {
    let own = Own::new("");
    let _ = own.sh("true").exits(0);
    let pid = own.helper("\0share\0");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(
        (field("Seccomp:"), field("NoNewPrivs:")),
        ("2".into(), "1".into())
    );
    let held = u64::from_str_radix(&field("CapPrm:"), 16).unwrap();
    let (sys_admin, mknod) = (1 << 21, 1 << 27);
    assert_eq!(held & (sys_admin | mknod), 0, "{held:x}");
    // From its root on there is nothing to write to but the volume, and no device.
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let without = |wanted: &str| -> Vec<_> {
        mounts
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|fields| !fields[5].split(',').any(|option| option == wanted))
            .map(|fields| PathBuf::from(fields[4]))
            .collect()
    };
    assert_eq!(without("ro"), [own.volume()], "{mounts}");
    assert!(without("nodev").is_empty(), "{mounts}");
    // What it keeps open of /proc has no parent there: only its own root is above it.
    let fds = PathBuf::from(format!("/proc/{pid}/fd"));
    let kept: Vec<_> = fs::read_dir(&fds)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|fd| fs::metadata(fd.join("0")).is_ok() || fs::metadata(fd.join("1")).is_ok())
        .collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(!kept[0].join("../status").exists());
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_machine_without_a_sign_of_life_is_started_again() {
    let dir = host_dir();
    let qemu = dir.path().join("qemu");
    let script = format!(
        "#!/bin/sh\n\
         [ \"$1\" = --version ] || ! mkdir {} 2>/dev/null || exec sleep 1000\n\
         exec qemu-system-x86_64 \"$@\"\n",
        dir.path().join("begun").display()
    );
    fs::write(&qemu, script).unwrap();
    fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
    let own = Own::new(&format!("start_s = 3\nqemu = {qemu:?}"));
    let _ = own.sh("true").exits(0);
    assert!(dir.path().join("begun").exists());
    own.stop();
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_machine_that_cannot_start_says_why() {
    let own = Own::new("kernel_dir = \"/nonexistent\"");
    own.sh("true").fails_saying("holds no kernel");
    let own = Own::new("colour = \"blue\"");
    own.sh("true").fails_saying("not a valid configuration");
    let own = Own::new("qemu = \"/bin/false\"");
    own.sh("true")
        .fails_saying("/bin/false does not say which version of QEMU it is");
}
