//! Guests that begin at a template: they differ where they must, and otherwise behave like those
//! that boot.

use crate::outcomes::{assert_nothing_left, assert_sound};
use hullbox_tests::{Done, command, finish, hullbox, on_the_machine};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A shape that no other room uses.
const SHAPE: [&str; 4] = ["--cpus", "1", "-m", "160m"];

/// Waits until the template of this program, made in the background, is there.
fn wait_for_current_template() {
    let made = (0..60).any(|_| {
        std::thread::sleep(Duration::from_millis(500));
        hullbox(["template", "ls"])
            .exits(0)
            .text()
            .contains("current")
    });
    assert!(made);
}

fn build() {
    let _ = hullbox(["template", "prune"]).exits(0);
    let mut args = vec!["template", "build"];
    args.extend(SHAPE);
    hullbox(args).exits(0).fails_to_warn();
}

fn run_image(flags: &[&str], image: &str, args: &[&str]) -> Done {
    let mut all = vec!["run", "--rm"];
    all.extend(SHAPE);
    all.extend(flags);
    all.push(image);
    all.extend(args);
    hullbox(all)
}

fn run_with(flags: &[&str], args: &[&str]) -> Done {
    run_image(flags, "busybox", args)
}

const IMAGES_MACHINE_ID: &str = "00112233445566778899aabbccddeeff";

/// Makes an image that has a machine id, as those of distributions do.
pub fn image_with_a_machine_id() -> String {
    let (container, image) = ("with-machine-id", "with-machine-id:test");
    let _ = hullbox(["rm", "-f", container]);
    let script = format!("echo {IMAGES_MACHINE_ID} >/etc/machine-id");
    let mut args = vec!["run", "--name", container];
    args.extend(SHAPE);
    args.extend(["busybox", "sh", "-c", &script]);
    let _ = hullbox(args).exits(0);
    let _ = hullbox(["commit", "-c", "CMD sh", container, image]).exits(0);
    let _ = hullbox(["rm", container]).exits(0);
    image.to_owned()
}

fn run(args: &[&str]) -> Done {
    run_with(&[], args)
}

trait Quiet {
    fn fails_to_warn(&self);
}

impl Quiet for Done {
    /// Fails the test if there was a warning.
    #[track_caller]
    fn fails_to_warn(&self) {
        assert!(!self.stderr.contains("warning"), "{}", self.stderr);
    }
}

/// Whether a guest of the shape begins at a template.
fn begins_at_a_template() -> bool {
    let name = "which-beginning";
    let mut args = vec!["run", "--name", name];
    args.extend(SHAPE);
    args.extend(["busybox", "true"]);
    let _ = hullbox(args).exits(0);
    let from = hullbox(["inspect", "--format", "{{.Start.From}}", name]);
    let from = from.exits(0).text();
    let _ = hullbox(["rm", name]).exits(0);
    from.trim() == "template"
}

/// What sandboxes of ordinary users do (bubblewrap, Chromium). The kernel refuses a new /proc in a user
/// namespace where something is mounted over a file of the one that is there.
pub const SANDBOX: [&str; 5] = ["unshare", "-Urpf", "--mount-proc", "cat", "/proc/self/stat"];

#[test]
#[ignore = "needs the built program: make test"]
fn an_ordinary_user_may_mount_proc_however_the_guest_began() {
    build();
    assert!(begins_at_a_template());
    for templates in ["auto", "never"] {
        let mut run = command(["run", "--rm", "-u", "1000:1000"]);
        run.env("HULLBOX_TEMPLATES", templates);
        run.args(SHAPE).arg("busybox").args(SANDBOX);
        let done = finish(run, b"").exits(0);
        assert!(done.text().starts_with("1 "), "{templates}: {done:?}");
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_guest_has_the_devices_of_fuse_and_tun() {
    let script = "stat -c '%t:%T %a' /dev/fuse /dev/net/tun && : <>/dev/fuse && : <>/dev/net/tun";
    let done = run_with(&["-u", "1000:1000"], &["sh", "-c", script]).exits(0);
    assert_eq!(done.text(), "a:e5 666\na:c8 666");
}

#[test]
#[ignore = "needs the built program: make test"]
fn templates_are_made_listed_used_and_removed() {
    build();
    // It is there: nothing to do.
    build();
    let listed = hullbox([
        "template",
        "ls",
        "--format",
        "{{.Memory}} {{.CPUs}} {{.State}}",
    ]);
    let listed = listed.exits(0).text();
    assert!(listed.contains("167MB 1 current"), "{listed}");
    assert!(begins_at_a_template());
    let usage = hullbox(["system", "df", "--format", "{{.Type}} {{.Active}}"]);
    assert!(usage.exits(0).text().contains("Templates "));
    let ids = hullbox(["template", "ls", "-q"]).exits(0).text();
    for id in ids.lines() {
        let _ = hullbox(["template", "rm", id]).exits(0);
    }
    assert_eq!(hullbox(["template", "ls", "-q"]).exits(0).text(), "");
    hullbox(["template", "rm", "0123"]).fails_saying("no template");
}

#[test]
#[ignore = "needs the built program: make test"]
fn fifty_guests_of_one_template_have_fifty_random_states() {
    build();
    let mut seen = HashSet::new();
    for round in 0..50 {
        // The workload's own first act.
        let device = if round % 2 == 0 {
            "/dev/urandom"
        } else {
            "/dev/random"
        };
        let done = run(&["head", "-c", "32", device]).exits(0);
        done.fails_to_warn();
        assert_eq!(done.stdout.len(), 32);
        assert!(
            seen.insert(done.stdout),
            "round {round}: the same bytes again"
        );
    }
    assert!(begins_at_a_template());
    assert_nothing_left();
}

#[test]
#[ignore = "needs the built program: make test"]
fn guests_of_one_template_have_names_and_ids_of_their_own() {
    build();
    let image = image_with_a_machine_id();
    let mut seen: [HashSet<String>; 4] = Default::default();
    for _ in 0..8 {
        let script = "cat /proc/sys/kernel/random/boot_id /etc/machine-id; hostname; \
                      cat /proc/sys/kernel/random/uuid";
        let text = run_image(&[], &image, &["sh", "-c", script]);
        let text = text.exits(0).text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0].len(), 36, "{text}");
        assert_eq!(lines[1].len(), 32, "{text}");
        assert_eq!(lines.len(), seen.len(), "{text}");
        for (seen, line) in seen.iter_mut().zip(lines) {
            assert!(seen.insert(line.to_owned()), "{text}");
        }
    }
    // The image's own id is what a namespace container shows, and where there is none, none is made.
    let flag = ["--isolation=container"];
    let shown = run_image(&flag, &image, &["cat", "/etc/machine-id"]);
    assert_eq!(shown.exits(0).text(), IMAGES_MACHINE_ID);
    let _ = run(&["test", "!", "-e", "/etc/machine-id"]).exits(0);
    let _ = hullbox(["rmi", &image]).exits(0);
    assert!(begins_at_a_template());
    assert_nothing_left();
}

/// How far a container's clock is from this process's: the best of some questions.
fn clock_offset(flags: &[&str]) -> f64 {
    let mut all = vec!["run", "--rm", "-i"];
    all.extend(flags);
    all.extend([
        "busybox",
        "sh",
        "-c",
        "while read x; do adjtimex | grep -E 'time.tv_sec|time.tv_usec' | tr '\n' ' '; echo; done",
    ]);
    let mut child = command(all)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (mut best, mut offset) = (Duration::MAX, 0.0);
    for _ in 0..20 {
        let asked = now();
        input.write_all(b"?\n").unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let took = now() - asked;
        let numbers: Vec<f64> = line
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        assert_eq!(numbers.len(), 2, "{line}");
        if took < best {
            best = took;
            offset = numbers[0] + numbers[1] / 1e6 - (asked + took / 2).as_secs_f64();
        }
    }
    drop(input);
    assert!(child.wait().unwrap().success());
    offset
}

#[test]
#[ignore = "needs the built program: make test"]
fn the_clock_is_the_hosts() {
    build();
    // A template that is a while old.
    std::thread::sleep(Duration::from_secs(3));
    let host = clock_offset(&["--isolation=container"]);
    for flags in [&SHAPE[..], &[&["--cold"], &SHAPE[..]].concat()] {
        let apart = (clock_offset(flags) - host).abs();
        // What is measured has a start of a guest in it, on a busy machine.
        assert!(apart < 0.5, "{flags:?}: {apart} s apart");
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn exit_codes_streams_and_disks_are_as_in_a_guest_that_boots() {
    build();
    for flags in [&[][..], &["--cold"]] {
        assert_eq!(run_with(flags, &["sh", "-c", "exit 7"]).code, 7);
        assert_eq!(
            run_with(flags, &["sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).code,
            137
        );
        assert_eq!(run_with(flags, &["nothing-here"]).code, 127);
        let script = "cat /etc/hostname >/dev/null; echo out; echo err >&2; \
                      dd if=/dev/zero of=/file bs=1M count=24 2>/dev/null; sync; wc -c </file; \
                      df -P / | tail -1 | wc -l; nproc; grep -c processor /proc/cpuinfo";
        let done = run_with(flags, &["sh", "-c", script]).exits(0);
        assert_eq!(done.text(), "out\n25165824\n1\n1\n1");
        assert_eq!(done.stderr, "err\n");
    }
    // Several layers, and a container whose disk outlives its runs.
    let name = "kept-by-template";
    let mut args = vec!["create", "--name", name];
    args.extend(SHAPE);
    args.extend(["demo:latest", "sh", "-c", "echo run >>/runs; cat /runs"]);
    let created = hullbox(args);
    if created.code == 0 {
        let first = hullbox(["start", "-a", name]).exits(0);
        first.fails_to_warn();
        assert_eq!(first.text(), "run");
        assert_eq!(hullbox(["start", "-a", name]).exits(0).text(), "run\nrun");
        let _ = hullbox(["rm", name]).exits(0);
    }
    let mut terminal = vec!["run", "--rm", "--read-only", "--tmpfs", "/t"];
    terminal.extend(SHAPE);
    terminal.extend([
        "busybox",
        "sh",
        "-c",
        "echo x >/t/x && ! echo x >/x 2>/dev/null",
    ]);
    let _ = hullbox(terminal).exits(0);
    assert_nothing_left();
    assert_sound();
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_damaged_template_is_told_once_and_costs_a_boot() {
    let damages = [
        "printf x | dd of=$T/state bs=1 seek=100 conv=notrunc 2>/dev/null",
        "truncate -s 1000 $T/state",
        "rm $T/memory",
        "printf x | dd of=$T/memory bs=1 seek=100000 conv=notrunc 2>/dev/null",
        "truncate -s 1M $T/memory",
        "chmod 644 $T/state",
        "head -c 32 /dev/urandom > $HULLBOX_ROOT/templates/key",
    ];
    for damage in damages {
        build();
        let id = template_id();
        let script = format!("T=$HULLBOX_ROOT/templates/{id}; {damage}");
        let _ = on_the_machine(&script).exits(0);
        let done = run(&["echo", "well"]).exits(0);
        assert_eq!(done.text(), "well", "{damage}");
        let warnings = done.stderr.matches("warning").count();
        assert_eq!(warnings, 1, "{damage}: {}", done.stderr);
        // What is made next replaces it.
        build();
        let done = run(&["echo", "well"]).exits(0);
        done.fails_to_warn();
    }
    assert_nothing_left();
}

/// Where the template of the shape is.
fn template_id() -> String {
    let script =
        "cd $HULLBOX_ROOT/templates && grep -l '\"vcpus\":1,\"memory_mib\":160,' */about.json";
    let text = on_the_machine(script).exits(0).text();
    let id = text.lines().next().and_then(|path| path.split('/').next());
    id.unwrap().to_owned()
}

#[test]
#[ignore = "needs the built program: make test"]
fn the_first_run_has_a_template_made_for_the_next() {
    let _ = hullbox(["template", "prune", "--all"]).exits(0);
    let mut never = command([
        "run", "--rm", "-m", "160m", "--cpus", "1", "busybox", "true",
    ]);
    never.env("HULLBOX_TEMPLATES", "never");
    let _ = finish(never, b"").exits(0);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(hullbox(["template", "ls", "-q"]).exits(0).text(), "");
    let _ = run_with(&["--cold"], &["true"]).exits(0);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(hullbox(["template", "ls", "-q"]).exits(0).text(), "");

    let _ = run(&["true"]).exits(0);
    wait_for_current_template();
    assert!(begins_at_a_template());
    let mut odd = command(["run", "--rm", "busybox", "true"]);
    odd.env("HULLBOX_TEMPLATES", "perhaps");
    finish(odd, b"").fails_saying("HULLBOX_TEMPLATES");
}

fn start_of(name: &str) -> serde_json::Value {
    let done = hullbox(["inspect", "--format", "{{json .Start}}", name]).exits(0);
    serde_json::from_str(&done.text()).unwrap()
}

#[test]
#[ignore = "needs the built program: make test"]
fn inspect_says_how_a_guest_began_and_what_it_did_to_differ() {
    build();
    let name = "begun";
    let _ = hullbox(["rm", "-f", name]);
    let mut create = vec!["create", "--name", name];
    create.extend(SHAPE);
    create.extend(["busybox", "true"]);
    let _ = hullbox(create.clone()).exits(0);
    assert!(start_of(name).is_null(), "it never ran");
    let _ = hullbox(["start", "-a", name]).exits(0);
    let start = start_of(name);
    assert_eq!(start["From"], "template");
    assert_eq!(start["Template"], template_id().as_str());
    for done in [
        "EntropyAdded",
        "RngReseeded",
        "WallClockSet",
        "BootIdReplaced",
        "HostnameSet",
        "MachineIdReplaced",
    ] {
        assert_eq!(start["Hygiene"][done], true, "{done}: {start}");
    }

    // A guest that boots has a boot id of its own, and the rest all the same.
    let mut again = command(["start", "-a", name]);
    again.env("HULLBOX_TEMPLATES", "never");
    let _ = finish(again, b"").exits(0);
    let start = start_of(name);
    assert_eq!(start["From"], "boot");
    assert!(start["Template"].is_null(), "{start}");
    assert_eq!(start["Hygiene"]["BootIdReplaced"], false, "{start}");
    assert_eq!(start["Hygiene"]["RngReseeded"], true, "{start}");
    let _ = hullbox(["rm", name]).exits(0);

    // There is no guest where there is no VM.
    create.insert(1, "--isolation=container");
    let _ = hullbox(create).exits(0);
    let _ = hullbox(["start", "-a", name]).exits(0);
    assert!(start_of(name).is_null());
    let _ = hullbox(["rm", name]).exits(0);
}

/// A file system of its own for the templates: what rots beneath it does so unnoticed, because
/// nobody who looks at a file's times can see it.
struct Rotting;

impl Rotting {
    fn new() -> Self {
        // Whoever still makes a template for an earlier test does so beneath the mount otherwise.
        let script = "set -e; \
                      for i in $(seq 300); do \
                          pgrep -f '[_]_(template|monitor)' >/dev/null || break; sleep 0.1; \
                      done; \
                      mkdir -p $HULLBOX_ROOT/templates; chmod 700 $HULLBOX_ROOT/templates; \
                      truncate -s 300M $HULLBOX_ROOT/rot.img; \
                      mkfs.ext4 -q -b 4096 $HULLBOX_ROOT/rot.img; \
                      mount -o loop $HULLBOX_ROOT/rot.img $HULLBOX_ROOT/templates; \
                      chmod 700 $HULLBOX_ROOT/templates";
        let _ = on_the_machine(script).exits(0);
        Self
    }

    /// Zeroes every block of a template's memory on the disk, and has it read anew.
    fn rot(&self, id: &str) {
        let script = format!(
            "set -e; cd $HULLBOX_ROOT; sync; \
             filefrag -e -b4096 templates/{id}/memory | tr -d ':.' | \
                 awk '$1 ~ /^[0-9]+$/ {{ print $4, $6 }}' >rot.list; \
             test -s rot.list; umount templates; \
             while read at count; do dd if=/dev/zero of=rot.img bs=4096 seek=$at count=$count \
                 conv=notrunc 2>/dev/null; done <rot.list; rm rot.list; \
             mount -o loop rot.img templates"
        );
        let _ = on_the_machine(&script).exits(0);
    }
}

impl Drop for Rotting {
    fn drop(&mut self) {
        let script = "umount $HULLBOX_ROOT/templates; rm -f $HULLBOX_ROOT/rot.img";
        let _ = on_the_machine(script);
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_template_whose_guest_dies_costs_a_boot_and_nothing_else() {
    let rotting = Rotting::new();
    build();
    let id = template_id();
    assert!(begins_at_a_template());
    rotting.rot(&id);
    // Its times and its seal are as they were.
    assert_eq!(template_id(), id);
    let mut args = vec!["run", "--rm", "-i", "--name", "rotten"];
    args.extend(SHAPE);
    args.extend(["busybox", "sh", "-c", "cat; echo there >/file; cat /file"]);
    let done = finish(command(args), b"typed\n").exits(0);
    assert_eq!(done.text(), "typed\nthere");
    assert_eq!(done.stderr.matches("warning").count(), 1, "{}", done.stderr);
    assert!(
        done.stderr.contains("so the guest boots"),
        "{}",
        done.stderr
    );
    // Another is made behind it, and serves.
    wait_for_current_template();
    let done = run(&["echo", "well"]).exits(0);
    done.fails_to_warn();
    assert!(begins_at_a_template());
    let _ = hullbox(["template", "prune", "--all"]).exits(0);
    assert_nothing_left();
}
