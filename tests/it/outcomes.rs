//! Guests that go wrong, and commands that are killed: the right report, and nothing left behind.

use hullbox_tests::{Done, Mode, both_modes, command, finish, hullbox, on_the_machine, run};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Everything of Hullbox where the containers run: processes, mounts, loop devices, cgroups, files.
fn leftovers() -> String {
    let script = r#"
        for p in /proc/[0-9]*; do tr '\0' ' ' <$p/cmdline 2>/dev/null | grep -qE '[_]_(monitor|net)' && echo process $p; done
        grep -E 'erofs|hullbox.*overlay' /proc/mounts
        for l in /sys/block/loop*/loop/backing_file; do [ -e $l ] && grep -H erofs $l; done
        find /sys/fs/cgroup -type d -path '*hullbox/*' 2>/dev/null
        ls "$HULLBOX_ROOT/containers" 2>/dev/null
        find "$HULLBOX_RUNTIME" -mindepth 1 -maxdepth 1 -type d ! -name 'machine-*' ! \( -name networks -empty \) 2>/dev/null
        true
    "#;
    on_the_machine(script).exits(0).text()
}

/// Asserts that nothing is left, giving the kernel's own asynchronous teardown a bounded time.
#[track_caller]
pub(crate) fn assert_nothing_left() {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let left = leftovers();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left behind:\n{left}");
        let _ = hullbox(["ps", "-a"]);
    }
}

/// Asserts that the records, the images and the containers' files agree.
#[track_caller]
pub(crate) fn assert_sound() {
    let done = hullbox(["system", "check"]);
    assert!(
        done.code == 0 && done.text().contains("sound: "),
        "{done:?}"
    );
}

fn reports(done: &Done, code: i32, part: &str) {
    assert_eq!(done.code, code, "{done:?}");
    assert!(
        done.stderr.to_lowercase().contains(part),
        "{part:?} not in {}",
        done.stderr
    );
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_guest_kernel_panic_is_told_as_one() {
    let done = run(
        Mode::Vm,
        [
            "--cap-add",
            "ALL",
            "--security-opt",
            "systempaths=unconfined",
            "busybox",
            "sh",
            "-c",
            "echo c >/proc/sysrq-trigger; sleep 60",
        ],
    );
    reports(&done, 125, "panic");
}

#[test]
#[ignore = "needs the built program: make test"]
fn out_of_memory_is_137_and_the_host_is_well() {
    for mode in [Mode::Vm, Mode::Container] {
        let script = "exec tail /dev/zero";
        let done = run(mode, ["-m", "96m", "busybox", "sh", "-c", script]);
        assert_eq!(done.code, 137, "{mode:?}: {done:?}");
    }
}

both_modes! {
    fn a_fork_bomb_is_contained(mode) {
        // It waits without a fork, for which there may be no room.
        let script = "f() { f | f & }; (f) 2>/dev/null
            i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done; echo the shell lives";
        let done = run(mode, ["--pids-limit", "64", "-m", "128m", "busybox", "sh", "-c", script]);
        assert_eq!(done.code, 0, "{done:?}");
        assert!(done.text().ends_with("the shell lives"), "{done:?}");
        assert_eq!(run(mode, ["busybox", "true"]).code, 0);
    }
}

/// A container that has said it is up.
fn sleeper(mode: Mode, extra: &[&str]) -> Child {
    let mut run = command(["run", mode.flag()]);
    run.args(extra);
    run.args([
        "busybox",
        "sh",
        "-c",
        "trap 'echo got term; exit 9' TERM; echo up; while :; do sleep 1; done",
    ]);
    let mut child = run
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut up = [0u8; 3];
    let stdout = child.stdout.as_mut().expect("piped");
    stdout.read_exact(&mut up).expect("the workload speaks");
    assert_eq!(&up, b"up\n");
    child
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).expect("kill");
}

both_modes! {
    fn signals_reach_the_workload(mode) {
        let child = sleeper(mode, &["--rm"]);
        signal(&child, rustix::process::Signal::TERM);
        let output = child.wait_with_output().expect("wait");
        assert_eq!(output.status.code(), Some(9), "{output:?}");
        assert_eq!(output.stdout, b"got term\n");
    }
}

both_modes! {
    fn a_killed_command_leaves_nothing(mode) {
        let mut child = sleeper(mode, &["--rm"]);
        signal(&child, rustix::process::Signal::KILL);
        assert_eq!(child.wait().expect("wait").signal(), Some(9));
        // The next command finds a valid store and tidies up.
        assert_eq!(run(mode, ["busybox", "echo", "well"]).exits(0).text(), "well");
        assert_nothing_left();
    }
}

both_modes! {
    fn a_killed_monitor_is_reported_and_leaves_nothing(mode) {
        let child = sleeper(mode, &["--rm"]);
        let script = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q [_]_monitor && kill -9 ${p#/proc/}; done; true";
        let _ = on_the_machine(script).exits(0);
        let done = child.wait_with_output().expect("wait");
        assert_eq!(done.status.code(), Some(125), "{done:?}");
        assert_eq!(run(mode, ["busybox", "echo", "well"]).exits(0).text(), "well");
        assert_nothing_left();
    }
}

both_modes! {
    fn a_full_disk_is_the_containers_own_trouble(mode) {
        let done = run(mode, ["--tmpfs", "/small:size=1m", "busybox", "sh", "-c", "cat /dev/zero >/small/x; echo code $?"]);
        assert!(done.exits(0).text().contains("code 1"));
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn writes_to_the_base_disk_do_not_reach_the_host() {
    let digest = || {
        on_the_machine("cat $(find \"$HULLBOX_ROOT\" -name '*.erofs' | sort) | sha256sum")
            .exits(0)
            .text()
    };
    let before = digest();
    let script = "mknod /d b 254 0; for i in 0 1 2 3; do dd if=/dev/zero of=/d bs=4k count=1 seek=$i conv=notrunc; done; sync; true";
    let _ = run(
        Mode::Vm,
        ["--cap-add", "ALL", "busybox", "sh", "-c", script],
    );
    assert_eq!(before, digest());
    assert_eq!(
        run(Mode::Vm, ["busybox", "echo", "well"]).exits(0).text(),
        "well"
    );
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_name_is_taken_until_its_container_is_removed() {
    let _ = hullbox(["rm", "-f", "taken"]);
    let mut first = command(["run", "--name", "taken"]);
    first.args(["busybox", "true"]);
    assert_eq!(finish(first, b"").code, 0);
    hullbox(["run", "--name", "taken", "busybox", "true"]).fails_saying("already in use");
    let text = hullbox(["ps", "-a", "--format", "{{.Names}} {{.Status}}"])
        .exits(0)
        .text();
    assert!(text.contains("taken Exited (0)"), "{text}");
    assert_eq!(hullbox(["rm", "taken"]).exits(0).text(), "taken");
}
