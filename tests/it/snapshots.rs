//! Snapshots of running containers: what goes on from one, and apart from all others.

use crate::orphans::kill_monitor;
use crate::outcomes::assert_sound;
use crate::templates::{SANDBOX, image_with_a_machine_id};
use hullbox_tests::{Done, Mode, command, finish, hullbox, on_the_machine};
use std::collections::HashSet;

/// Containers and snapshots that are gone with their test.
struct Kept(Vec<String>, Vec<String>);

impl Kept {
    fn new(containers: &[&str], snapshots: &[&str]) -> Self {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let kept = Self(owned(containers), owned(snapshots));
        kept.gone();
        kept
    }

    fn gone(&self) {
        for name in &self.0 {
            let _ = hullbox(["rm", "-f", name]);
        }
        for name in &self.1 {
            let _ = hullbox(["snapshot", "rm", name]);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.gone();
    }
}

fn exec(container: &str, script: &str) -> String {
    hullbox(["exec", container, "sh", "-c", script])
        .exits(0)
        .text()
}

fn inspected(container: &str, format: &str) -> String {
    let done = hullbox(["inspect", "--format", format, container]);
    done.exits(0).text()
}

fn start(name: &str, image: &str, program: &[&str]) {
    let mut args = vec![
        "run", "-d", "-i", "--name", name, "--cpus", "1", "-m", "160m", image,
    ];
    args.extend(program);
    let _ = hullbox(args).exits(0);
}

fn go_on(snapshot: &str, name: &str) {
    let _ = hullbox(["run", "-d", "--name", name, "--from-snapshot", snapshot]).exits(0);
}

/// Waits until the program has counted on.
fn counts_on(container: &str) {
    let read = || exec(container, "cat /count").parse::<u64>().unwrap_or(0);
    let first = read();
    for _ in 0..200 {
        if read() > first {
            return;
        }
    }
    panic!("{container} stays at {first}");
}

/// The copy of a container that is removed with its run has a disk that nobody syncs.
#[test]
#[ignore = "needs the built program: make test"]
fn a_copy_of_a_container_that_leaves_nothing_can_be_started_again() {
    let names = ["rm-origin", "rm-kept", "rm-torn", "rm-gone"];
    let _kept = Kept::new(&names, &["rm"]);
    let _ = hullbox([
        "run",
        "-d",
        "--rm",
        "--name",
        "rm-origin",
        "--cpus",
        "1",
        "-m",
        "160m",
        "busybox",
        "sleep",
        "1000",
    ])
    .exits(0);
    let _ = exec("rm-origin", "echo base > /who");
    let _ = hullbox(["snapshot", "create", "rm-origin", "rm"]).exits(0);
    go_on("rm", "rm-kept");
    let _ = exec(
        "rm-kept",
        "head -c 3000000 /dev/urandom > /big; md5sum /big > /sum; echo kept > /who",
    );
    let own = hullbox([
        "run",
        "-d",
        "--rm",
        "--name",
        "rm-gone",
        "--from-snapshot",
        "rm",
    ]);
    let _ = own.exits(0);
    // Whatever ends it in an orderly way.
    for end in [
        ["stop", "-t", "0"].as_slice(),
        &["kill"],
        &["restart", "-t", "0"],
    ] {
        let mut args = end.to_vec();
        args.push("rm-kept");
        let _ = hullbox(args).exits(0);
        if end[0] != "restart" {
            let _ = hullbox(["wait", "rm-kept"]).exits(0);
            let changes = hullbox(["diff", "rm-kept"]).exits(0).text();
            assert!(changes.contains("A /big"), "{changes}");
            let _ = hullbox(["start", "rm-kept"]).exits(0);
        }
        let seen = exec("rm-kept", "cat /who; md5sum -c /sum");
        assert_eq!(seen, "kept\n/big: OK");
    }
    let _ = hullbox(["stop", "-t", "0", "rm-gone"]).exits(0);
    // Nobody knows what of this one reached the disk.
    go_on("rm", "rm-torn");
    kill_monitor(&inspected("rm-torn", "{{.Id}}"));
    let _ = hullbox(["wait", "rm-torn"]).exits(0);
    for refused in [
        ["start", "rm-torn"],
        ["export", "rm-torn"],
        ["diff", "rm-torn"],
    ] {
        hullbox(refused).fails_saying("ended before they were synced");
    }
    let _ = hullbox(["rm", "rm-torn"]).exits(0);
    assert_eq!(exec("rm-origin", "cat /who"), "base");
    assert_sound();
}

const COUNTER: &str = "
import os, time
count = 0
while True:
    count += 1
    with open('/count.new', 'w') as file:
        file.write(str(count))
    os.rename('/count.new', '/count')
    time.sleep(0.02)
";

#[test]
#[ignore = "needs the built program: make test"]
fn a_running_program_goes_on_five_times_and_each_goes_its_own_way() {
    let clones = ["snap-1", "snap-2", "snap-3", "snap-4", "snap-5"];
    let mut all = clones.to_vec();
    all.push("snap-origin");
    let _kept = Kept::new(&all, &["warm"]);
    start("snap-origin", "demo", &["python3", "-c", COUNTER]);
    // It has to be there before it can count on.
    let _ = exec(
        "snap-origin",
        "until [ -s /count ]; do sleep 0.1; done; echo base > /who",
    );
    let counted: u64 = exec("snap-origin", "cat /count").parse().unwrap();
    assert_eq!(
        hullbox(["snapshot", "create", "snap-origin", "warm"])
            .exits(0)
            .text(),
        "warm"
    );
    for name in clones {
        go_on("warm", name);
    }
    let ask = "cat /who /proc/sys/kernel/random/boot_id /etc/hostname; hostname; \
               head -c 16 /dev/urandom | od -An -tx1; cat /count";
    let mut seen: [HashSet<String>; 4] = Default::default();
    for name in all.iter().copied() {
        let text = exec(name, ask);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "base");
        assert_eq!(lines[2], lines[3], "the file and the kernel name it alike");
        for (seen, line) in seen.iter_mut().zip(&lines[1..]) {
            seen.insert((*line).to_owned());
        }
        let count: u64 = lines[5].parse().unwrap();
        assert!(count >= counted, "it went on where it was: {count}");
        let _ = exec(name, &format!("echo {name} > /who"));
    }
    assert_eq!(seen.map(|set| set.len()), [6; 4], "all differ");
    for name in all.iter().copied() {
        counts_on(name);
        assert_eq!(exec(name, "cat /who"), name);
    }
    // A clone is a container like any other: it stops, and starts anew on its own disk.
    let _ = hullbox(["stop", "-t", "0", "snap-1"]).exits(0);
    let _ = hullbox(["start", "snap-1"]).exits(0);
    assert_eq!(exec("snap-1", "cat /who"), "snap-1");
    // Without its origin and its snapshot, too.
    let _ = hullbox(["rm", "-f", "snap-origin"]).exits(0);
    let _ = hullbox(["snapshot", "rm", "warm"]).exits(0);
    counts_on("snap-2");
    assert_sound();
}

/// What must be another in each copy, a line each.
const OWN: &str = "cat /proc/sys/kernel/random/boot_id /etc/machine-id /etc/hostname; \
                   head -c 16 /dev/urandom | od -An -tx1";

fn assert_own(name: &str, seen: &mut [HashSet<String>; 4]) {
    let text = exec(name, OWN);
    assert_eq!(text.lines().count(), seen.len(), "{text}");
    for (seen, line) in seen.iter_mut().zip(text.lines()) {
        assert!(seen.insert(line.to_owned()), "{name}: {text}");
    }
    assert!(text.contains(&inspected(name, "{{.Id}}")[..32]), "{text}");
    let again = exec(name, "cat /proc/sys/kernel/random/boot_id");
    assert!(text.starts_with(&again), "one boot, one id: {text}");
    // Nothing of ours lies in /proc, which a user's own /proc would reveal.
    let mut sandbox = vec!["exec", "-u", "1000:1000", name];
    sandbox.extend(SANDBOX);
    let stat = hullbox(sandbox).exits(0).text();
    assert!(stat.starts_with("1 "), "{stat}");
}

#[test]
#[ignore = "needs the built program: make test"]
fn each_copy_has_names_ids_and_random_numbers_of_its_own() {
    let copies = ["own-1", "own-2", "own-3"];
    let _kept = Kept::new(
        &["own-origin", "own-1", "own-2", "own-3", "own-copys-copy"],
        &["own", "own-again"],
    );
    let image = image_with_a_machine_id();
    start("own-origin", &image, &["sleep", "1000"]);
    let mut seen: [HashSet<String>; 4] = Default::default();
    // What was read before the snapshot is in the memory that is copied.
    assert_own("own-origin", &mut seen);
    let _ = hullbox(["snapshot", "create", "own-origin", "own"]).exits(0);
    for name in copies {
        go_on("own", name);
        let start = inspected(name, "{{json .Start}}");
        let start: serde_json::Value = serde_json::from_str(&start).unwrap();
        assert_eq!(
            (&start["From"], &start["Snapshot"]),
            (&"snapshot".into(), &"own".into())
        );
        for done in [
            "RngReseeded",
            "BootIdReplaced",
            "HostnameSet",
            "MachineIdReplaced",
        ] {
            assert_eq!(start["Hygiene"][done], true, "{done}: {start}");
        }
        assert_own(name, &mut seen);
    }
    let _ = hullbox(["snapshot", "create", "own-1", "own-again"]).exits(0);
    go_on("own-again", "own-copys-copy");
    assert_own("own-copys-copy", &mut seen);
}

#[test]
#[ignore = "needs the built program: make test"]
fn streams_belong_to_whoever_started_the_copy() {
    let _kept = Kept::new(&["snap-cat"], &["cat"]);
    start("snap-cat", "busybox", &["cat"]);
    let _ = hullbox(["snapshot", "create", "snap-cat", "cat"]).exits(0);
    for text in [&b"one\n"[..], &[7; 300_000]] {
        let done = finish(
            command(["run", "--rm", "-i", "--from-snapshot", "cat"]),
            text,
        );
        assert_eq!(done.exits(0).stdout, text);
    }
    assert_eq!(inspected("snap-cat", "{{.State.Status}}"), "running");
}

#[test]
#[ignore = "needs the built program: make test"]
fn what_was_edited_is_refused() {
    let _kept = Kept::new(&["snap-edit"], &["edit"]);
    start("snap-edit", "busybox", &["sleep", "1000"]);
    for edit in [
        "printf x | dd of=disk.ext4 bs=1 seek=5000 conv=notrunc",
        "printf x | dd of=memory bs=1 seek=5000 conv=notrunc",
        "printf x | dd of=state bs=1 seek=500 conv=notrunc",
        "truncate -s -1 state",
        "sed -i s/busybox/busyfox/ about.json",
        "rm memory",
    ] {
        let _ = hullbox(["snapshot", "create", "snap-edit", "edit"]).exits(0);
        let script = format!("cd \"$HULLBOX_ROOT/snapshots/edit\" && {edit} 2>/dev/null");
        let _ = on_the_machine(&script).exits(0);
        let refused: Done = hullbox(["run", "--rm", "--from-snapshot", "edit"]);
        refused.fails_saying("snapshot");
        let _ = hullbox(["snapshot", "rm", "edit"]).exits(0);
    }
    assert_sound();
}

#[test]
#[ignore = "needs the built program: make test"]
fn what_cannot_be_saved_says_why() {
    let _kept = Kept::new(&["snap-no", "snap-ns"], &["taken"]);
    let create = |container: &str, name: &str| hullbox(["snapshot", "create", container, name]);
    let flag = Mode::Container.flag();
    let _ = hullbox([
        "run", "-d", "--name", "snap-ns", flag, "busybox", "sleep", "1000",
    ])
    .exits(0);
    create("snap-ns", "taken").fails_saying("--isolation=vm");
    create("no-such", "taken").fails_saying("no such container");
    create("snap-ns", "../x").fails_saying("invalid snapshot name");
    start("snap-no", "busybox", &["sleep", "1000"]);
    let _ = create("snap-no", "taken").exits(0);
    create("snap-no", "taken").fails_saying("already");
    hullbox(["rmi", "busybox"]).fails_saying("conflict");
    let _ = hullbox(["stop", "-t", "0", "snap-no"]).exits(0);
    create("snap-no", "other").fails_saying("not running");
    hullbox(["run", "--from-snapshot", "other"]).fails_saying("no such snapshot");
    hullbox(["run", "--from-snapshot", "taken", "busybox"]).fails_saying("cannot be used with");
    assert_eq!(hullbox(["snapshot", "ls", "-q"]).exits(0).text(), "taken");
}
