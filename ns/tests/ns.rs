//! Container mode on this host's kernel, by way of the example `ns-run`.
//!
//! Needs root, a busybox that is linked statically, `mkfs.erofs`, and a kernel with erofs and
//! overlayfs. Where something is missing, the tests say so and pass.
#![expect(clippy::unwrap_used, reason = "it is how a test fails")]

#[path = "ns/asked.rs"]
mod asked;
#[path = "ns/network.rs"]
mod network;
#[path = "../../session/tests/common/talk.rs"]
mod talk;

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

const APPLETS: &[&str] = &[
    "sh", "cat", "chroot", "dd", "echo", "env", "grep", "head", "id", "kill", "ls", "mknod",
    "mount", "ps", "pwd", "sleep", "touch", "tr", "true", "tty", "umask", "unshare", "wc",
];

/// A layer image with busybox in it, or `None` where these tests cannot run.
fn base() -> Option<&'static Path> {
    static BASE: OnceLock<Option<PathBuf>> = OnceLock::new();
    BASE.get_or_init(|| {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: not root");
            return None;
        }
        let tree = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = |name: &str| tree.path().join(name);
        for dir in ["bin", "etc", "srv", "tmp"] {
            std::fs::create_dir(path(dir)).unwrap();
        }
        if std::fs::copy("/bin/busybox", path("bin/busybox")).is_err() {
            eprintln!("skipped: no /bin/busybox");
            return None;
        }
        for applet in APPLETS {
            symlink("busybox", path("bin").join(applet)).unwrap();
        }
        let passwd = "root:x:0:0::/root:/bin/sh\nwww:x:33:34::/srv:/bin/sh\n";
        std::fs::write(path("etc/passwd"), passwd).unwrap();
        std::fs::write(path("etc/group"), "root:x:0:\nwww:x:34:\nextra:x:77:www\n").unwrap();
        std::fs::write(path("bin/unexecutable"), "x").unwrap();
        for (name, text) in [("bin/badformat", "?"), ("bin/badscript", "#!/none\n")] {
            std::fs::write(path(name), text).unwrap();
            std::fs::set_permissions(path(name), PermissionsExt::from_mode(0o755)).unwrap();
        }
        let image = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ns-base.erofs");
        make_image(tree.path(), &image).then_some(image)
    })
    .as_deref()
}

fn make_image(tree: &Path, image: &Path) -> bool {
    let _ = std::fs::remove_file(image);
    let made = Command::new("mkfs.erofs").arg(image).arg(tree).output();
    let made = made.is_ok_and(|output| output.status.success());
    if !made {
        eprintln!("skipped: no working mkfs.erofs");
    }
    made
}

fn ns_run(dir: &Path, layers: &[&Path]) -> Command {
    let mut command = Command::new(program());
    for layer in layers {
        command.arg("-l").arg(layer);
    }
    command.arg("-d").arg(dir).stdin(Stdio::null());
    command
}

/// The example, which `cargo test` does not build when it is told to run this test alone.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let exe = std::env::current_exe().unwrap();
        let path = exe
            .parent()
            .unwrap()
            .parent()
            .unwrap()
            .join("examples/ns-run");
        if std::env::var_os("CARGO").is_some() {
            let args = ["build", "-q", "-p", "hullbox-ns", "--example", "ns-run"];
            let built = Command::new(env!("CARGO")).args(args).status().unwrap();
            assert!(built.success());
        }
        path
    })
}

/// Runs `args` (options, then `--` and a command) in a fresh container; checks that nothing is
/// left of it.
fn run<S: AsRef<OsStr>>(args: &[S]) -> Option<(i32, String)> {
    run_with(&[], args)
}

fn run_with<S: AsRef<OsStr>>(layers: &[&Path], args: &[S]) -> Option<(i32, String)> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut all = vec![base()?];
    all.extend(layers);
    let output = ns_run(dir.path(), &all).args(args).output().unwrap();
    assert_nothing_left(dir.path());
    Some(outcome(&output))
}

fn outcome(output: &Output) -> (i32, String) {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap_or(-1), text)
}

fn assert_nothing_left(dir: &Path) {
    let left: Vec<_> = std::fs::read_dir(dir.join("run")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(dir.to_str().unwrap()), "{mounts}");
}

fn shell(script: &str) -> Option<(i32, String)> {
    run(&["--", "sh", "-c", script])
}

#[test]
fn exit_codes() {
    let cases: &[(&[&str], i32)] = &[
        (&["--", "true"], 0),
        (&["--", "sh", "-c", "exit 7"], 7),
        (&["--", "/bin/unexecutable"], 126),
        (&["--", "/etc"], 126),
        (&["--", "badformat"], 126),
        (&["--", "unexecutable"], 127),
        (&["--", "no-such-program"], 127),
        (&["--", "/no/such"], 127),
        (&["--", "badscript"], 127),
        (&["--init", "--", "sh", "-c", "kill -TERM $$"], 143),
        (&["--init", "--", "sh", "-c", "kill -KILL $$"], 137),
        (&["--init", "--", "no-such-program"], 127),
        (&["--"], 125),
        (&["-u", "nobody", "--", "true"], 125),
        (&["-u", "99999999999", "--", "true"], 125),
        (&["-w", "/etc/passwd", "--", "true"], 125),
        (&["--tmpfs", "/x:nonsense", "--", "true"], 125),
    ];
    for (args, code) in cases {
        let Some((found, text)) = run(args) else {
            return;
        };
        assert_eq!(found, *code, "{args:?}: {text}");
    }
}

#[test]
fn the_process_is_as_docker_makes_it() {
    let Some((_, root)) = shell("grep -E 'Cap|Seccomp:|NoNew' /proc/self/status; id; umask") else {
        return;
    };
    assert!(root.contains("CapEff:\t00000000a80425fb"), "{root}");
    assert!(root.contains("CapBnd:\t00000000a80425fb"), "{root}");
    assert!(root.contains("CapInh:\t0000000000000000"), "{root}");
    assert!(root.contains("Seccomp:\t2"), "{root}");
    assert!(root.contains("NoNewPrivs:\t0"), "{root}");
    assert!(root.contains("0022"), "{root}");
    let script = "grep CapEff /proc/self/status; id; env; pwd; echo there > /dev/stdout";
    let (_, user) = run(&["-u", "www", "-w", "/made/here", "--", "sh", "-c", script]).unwrap();
    for line in [
        "CapEff:\t0000000000000000",
        "uid=33(www) gid=34(www) groups=34(www),77(extra)",
        "HOME=/srv",
        "/made/here",
        "there",
    ] {
        assert!(user.contains(line), "{line}: {user}");
    }
    let (_, quiet) = run(&["--no-new-privs", "--", "grep", "NoNew", "/proc/self/status"]).unwrap();
    assert_eq!(quiet, "NoNewPrivs:\t1\n");
}

#[test]
fn what_a_container_must_not_do() {
    for script in [
        "mount -t tmpfs x /tmp",
        "unshare -n true",
        "echo 1 > /proc/sys/kernel/panic",
        "echo 1 > /proc/sysrq-trigger",
        "echo 0 > /sys/fs/cgroup/cgroup.procs",
        "mknod /tmp/disk b 254 0 && cat /tmp/disk",
        "mknod /tmp/memory c 1 1 && head -c 1 /tmp/memory",
        "cat /proc/kcore | grep -q .",
    ] {
        let Some((code, text)) = shell(script) else {
            return;
        };
        assert_ne!(code, 0, "{script}: {text}");
    }
    let allowed = "mknod /tmp/disk b 254 0 && chroot / true && head -c 4 /dev/urandom | wc -c";
    assert_eq!(shell(allowed).unwrap(), (0, "4\n".into()));
    // Read from inside, a descriptor of the host's must not be there.
    let (_, fds) = shell("ls /proc/self/fd | wc -l").unwrap();
    assert_eq!(fds, "4\n");
}

#[test]
fn streams_and_terminals() {
    let Some(base) = base() else { return };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut child = ns_run(dir.path(), &[base])
        .args(["-i", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let sent: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
    let mut stdin = child.stdin.take().unwrap();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&copy));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.stdout == sent, "{} bytes", output.stdout.len());
    let (code, text) = run(&[
        "-t",
        "-u",
        "www",
        "--",
        "sh",
        "-c",
        "tty; ls -l /dev/console",
    ])
    .unwrap();
    assert_eq!(code, 0);
    assert!(
        text.contains("/dev/pts/0") && text.contains("www"),
        "{text}"
    );
}

#[test]
fn names_mounts_and_a_read_only_root() {
    let script = "cat /etc/hosts /proc/sys/kernel/hostname; touch /x; touch /tmp/y && echo made; \
                  cat /etc/resolv.conf";
    let args = [
        "--hosts",
        "1.2.3.4 here",
        "--resolv",
        "nameserver 9.9.9.9",
        "-h",
        "box",
        "--read-only",
        "--tmpfs",
        "/tmp:size=1m",
        "--",
        "sh",
        "-c",
        script,
    ];
    let Some((_, text)) = run(&args) else { return };
    for part in [
        "1.2.3.4 here",
        "box",
        "Read-only file system",
        "made",
        "nameserver 9.9.9.9",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn hostile_images_do_no_harm() {
    let Some(_) = base() else { return };
    let canary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let canary_path = canary.path().to_str().unwrap();
    let layer = |build: &dyn Fn(&Path)| {
        let tree = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        std::fs::create_dir(tree.path().join("etc")).unwrap();
        build(tree.path());
        let image = tree.path().with_extension("erofs");
        assert!(make_image(tree.path(), &image));
        image
    };
    let up = format!("/../../../..{canary_path}");
    for (name, code) in [("dev", 125), ("proc", 125), ("sys", 125), ("etc/hosts", 0)] {
        let image = layer(&|tree| symlink(&up, tree.join(name)).unwrap());
        let args = ["--hosts", "x", "--", "true"];
        let (found, text) = run_with(&[&image], &args).unwrap();
        assert_eq!(found, code, "{name}: {text}");
        std::fs::remove_file(image).unwrap();
    }
    let fifo = layer(&|tree| {
        let path = tree.join("etc/passwd");
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            path,
            rustix::fs::Mode::from_raw_mode(0o644),
        )
        .unwrap();
    });
    let (code, _) = run_with(&[&fifo], &["-u", "www", "--", "true"]).unwrap();
    assert_eq!(code, 125);
    let link = layer(&|tree| symlink("/proc/self/fd/9", tree.join("work")).unwrap());
    let (code, _) = run_with(&[&link], &["-w", "/work", "--", "true"]).unwrap();
    assert_eq!(code, 125);
    let _ = std::fs::remove_file(fifo);
    let _ = std::fs::remove_file(link);
    assert_eq!(std::fs::read_dir(canary.path()).unwrap().count(), 0);
}

#[test]
fn a_killed_supervisor_leaves_nothing_after_cleanup() {
    let Some(base) = base() else { return };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut child = ns_run(dir.path(), &[base])
        .args(["--", "sh", "-c", "echo up; sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut up = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let supervisor = std::fs::read_to_string(children).unwrap();
    let supervisor = supervisor
        .trim()
        .parse()
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let kill = rustix::process::Signal::KILL;
    rustix::process::kill_process(supervisor.unwrap(), kill).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let cleaned = ns_run(dir.path(), &[]).arg("--cleanup").status().unwrap();
    assert!(cleaned.success());
    assert_nothing_left(dir.path());
    let again = ns_run(dir.path(), &[base])
        .args(["--", "true"])
        .status()
        .unwrap();
    assert!(again.success());
}

#[test]
fn limits_hold() {
    let eat = "x=; while :; do x=$x$(head -c 1000000 /dev/zero | tr '\\0' x); done";
    let Some((code, text)) = run(&["-m", "33554432", "--", "sh", "-c", eat]) else {
        return;
    };
    if text.contains("controller is not available") {
        eprintln!("skipped: {text}");
        return;
    }
    assert_eq!(code, 137, "{text}");
    assert!(text.contains("out of memory"), "{text}");
    let fork = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done";
    let (_, text) = run(&["--pids", "5", "--", "sh", "-c", fork]).unwrap();
    assert!(text.contains("can't fork"), "{text}");
}
