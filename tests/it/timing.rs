//! `--timing`: every command's account is whole, in order, and adds up.

use hullbox_tests::{Done, Mode, both_modes, command, finish, hullbox};
use serde_json::Value;

/// One phase of an account.
#[derive(Debug)]
struct Phase {
    name: String,
    process: String,
    at_us: u64,
    took_us: u64,
    share_us: u64,
}

/// A command's account, checked for what is true of all.
struct Account(Vec<Phase>);

impl Account {
    #[track_caller]
    fn of(done: &Done) -> Self {
        let lines: Vec<_> = done
            .stderr
            .lines()
            .filter(|line| line.starts_with('{'))
            .collect();
        assert_eq!(lines.len(), 1, "{}", done.stderr);
        let report: Value = serde_json::from_str(lines[0]).unwrap();
        let phase = |row: &Value| Phase {
            name: row["phase"].as_str().unwrap().to_owned(),
            process: row["process"].as_str().unwrap().to_owned(),
            at_us: row["at_us"].as_u64().unwrap(),
            took_us: row["took_us"].as_u64().unwrap(),
            share_us: row["share_us"].as_u64().unwrap(),
        };
        let phases: Vec<_> = report["phases"]
            .as_array()
            .unwrap()
            .iter()
            .map(phase)
            .collect();
        let account = Self(phases);
        account.is_sound(report["total_us"].as_u64().unwrap());
        account
    }

    #[track_caller]
    fn is_sound(&self, total_us: u64) {
        let Self(phases) = self;
        assert!(phases.is_sorted_by_key(|row| row.at_us), "{phases:?}");
        assert_eq!(phases.last().unwrap().name, "wait");
        assert_eq!(phases.last().unwrap().at_us, total_us);
        let shares: u64 = phases.iter().map(|row| row.share_us).sum();
        assert_eq!(shares, total_us, "{phases:?}");
        // Each process's phases follow each other without a gap.
        for process in ["command", "monitor"] {
            let own: Vec<_> = phases.iter().filter(|row| row.process == process).collect();
            assert!(!own.is_empty(), "{phases:?}");
            for pair in own.windows(2) {
                assert_eq!(pair[0].at_us + pair[1].took_us, pair[1].at_us, "{phases:?}");
            }
        }
        let first = &phases[0];
        assert_eq!((first.name.as_str(), first.at_us), ("cli", first.took_us));
    }

    /// The names of what one process did.
    fn of_process(&self, process: &str) -> Vec<&str> {
        let own = self.0.iter().filter(|row| row.process == process);
        own.map(|row| row.name.as_str()).collect()
    }

    fn took_us(&self, name: &str) -> u64 {
        let row = self.0.iter().find(|row| row.name == name);
        row.unwrap().took_us
    }
}

const RUN: [&str; 5] = ["cli", "spawn", "store", "order", "wait"];

/// From the orders on, behind whichever wall.
const END: [&str; 7] = [
    "agent_contact",
    "rootfs",
    "exec",
    "first_output",
    "exit",
    "cleanup",
    "record",
];

fn before_the_end(first: &[&'static str]) -> Vec<&'static str> {
    [first, &END].concat()
}

both_modes! {
    fn a_run_accounts_for_its_time(mode) {
        let done = hullbox([
            "run", "--rm", mode.flag(), "--cold", "-m", "128m", "--timing=json",
            "busybox", "sh", "-c", "echo here; sleep 0.3",
        ]).exits(0);
        assert_eq!(done.text(), "here");
        let account = Account::of(&done);
        assert_eq!(account.of_process("command"), RUN);
        let first: &[_] = match mode {
            Mode::Vm => &[
                "monitor", "memory_map", "vm_create", "kernel_load", "orders", "disks", "devices",
                "vm_start",
            ],
            Mode::Container => &["monitor", "orders"],
        };
        assert_eq!(account.of_process("monitor"), before_the_end(first));
        assert!(account.took_us("exit") >= 250_000, "it slept: {:?}", account.0);

        // A program that is not there has an account, and no exec in it.
        let done = hullbox([
            "run", "--rm", mode.flag(), "--cold", "-m", "128m", "--timing=json", "busybox", "no-such",
        ]).exits(127);
        let account = Account::of(&done);
        assert!(!account.of_process("monitor").contains(&"exec"), "{:?}", account.0);
    }
}

both_modes! {
    fn opening_published_ports_is_accounted_for(mode) {
        let run = |network: [&str; 2]| {
            let mut args = vec!["run", "--rm", mode.flag(), "--cold", "-m", "128m", "--timing=json"];
            args.extend(network);
            args.extend(["busybox", "true"]);
            Account::of(&hullbox(args).exits(0))
        };
        let account = run(["-p", "127.0.0.1::80"]);
        let monitor = account.of_process("monitor");
        let at = monitor.iter().position(|phase| *phase == "network").expect("a phase");
        // A process is started for it.
        assert!(account.took_us("network") > 0, "{:?}", account.0);
        assert_eq!(monitor[at + 1], "agent_contact", "the workload waits for it");
        for nothing in [["--network", "none"], ["--expose", "80"]] {
            assert!(!run(nothing).of_process("monitor").contains(&"network"), "{nothing:?}");
        }
    }
}

both_modes! {
    fn a_container_that_lives_on_accounts_for_each_command(mode) {
        let name = if mode == Mode::Vm { "timed-vm" } else { "timed-ns" };
        let _ = hullbox(["rm", "-f", name]);
        let wait = "echo up; while [ ! -e /end ]; do sleep 0.1; done";
        let done = hullbox([
            "run", "-d", "--name", name, mode.flag(), "--timing=json", "-m", "128m",
            "busybox", "sh", "-c", wait,
        ]).exits(0);
        assert_eq!(done.text().len(), 64);
        let account = Account::of(&done);
        assert_eq!(account.of_process("command"), RUN);
        assert_eq!(account.of_process("monitor").last(), Some(&"exec"));

        let done = hullbox(["exec", "--timing=json", name, "echo", "hi"]).exits(0);
        assert_eq!(done.text(), "hi");
        let account = Account::of(&done);
        assert_eq!(account.of_process("command"), ["cli", "store", "order", "wait"]);
        assert_eq!(account.of_process("monitor"), ["monitor", "exec", "first_output", "exit"]);
        let table = hullbox(["exec", "--timing", name, "touch", "/end"]).exits(0).stderr;
        assert!(table.starts_with("PHASE"), "{table}");
        assert!(table.contains("\nexec "), "{table}");

        let _ = hullbox(["wait", name]).exits(0);
        hullbox(["start", "--timing", name]).fails_saying("--timing");
        let done = hullbox(["start", "-a", "--timing=json", name]).exits(0);
        assert_eq!(done.text(), "up");
        let account = Account::of(&done);
        assert_eq!(account.of_process("command"), ["cli", "spawn", "store", "order", "wait"]);
        assert_eq!(account.of_process("monitor").last(), Some(&"record"));
        let _ = hullbox(["rm", name]).exits(0);
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_guest_that_begins_at_a_template_accounts_for_its_restoring() {
    let shape = ["--cpus", "1", "-m", "144m"];
    let mut build = vec!["template", "build"];
    build.extend(shape);
    let _ = hullbox(build).exits(0);
    let mut run = vec!["run", "--rm", "--timing=json"];
    run.extend(shape);
    run.extend(["busybox", "echo", "here"]);
    let mut run = command(run);
    run.env("HULLBOX_TEMPLATES", "auto");
    let done = finish(run, b"").exits(0);
    assert_eq!(done.text(), "here");
    let account = Account::of(&done);
    let first = [
        "monitor",
        "template",
        "memory_map",
        "vm_create",
        "state_restore",
        "orders",
        "disks",
        "devices",
        "resume",
    ];
    assert_eq!(account.of_process("monitor"), before_the_end(&first));
}

#[test]
#[ignore = "needs the built program: make test"]
fn nothing_is_shown_unless_it_is_asked_for() {
    let done = hullbox(["run", "--rm", "--isolation=container", "busybox", "true"]).exits(0);
    assert!(!done.stderr.contains("total_us"), "{}", done.stderr);
    assert!(!done.stderr.contains("PHASE"), "{}", done.stderr);
    hullbox(["create", "--timing", "busybox", "true"]).fails_saying("--timing");
    let odd = hullbox(["run", "--timing=yaml", "busybox", "true"]);
    assert_eq!(odd.code, 125, "{odd:?}");
}
