//! Power cuts: what a guest's fsync has acknowledged is there afterwards, whether the virtual machine
//! monitor is killed or the whole (helper) machine under it.
//!
//! `HULLBOX_TEST_POWER_CUTS=MONITORS,MACHINES` sets how many of each are tried.

use crate::own_machine::{Own, kill};
use hullbox_tests::{command, finish, fixture, hullbox, on_the_machine};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// No step takes longer, a start of the helper machine beside other work included.
const LIMIT: Duration = Duration::from_secs(180);
const NAME: &str = "power-cut";

/// Says how many records of its last life are there, in their order. Then it writes numbered ones of
/// this life, each synced before it is acknowledged on standard output. Records are as long as a few
/// of them are a block of the filesystem, and every third is synced through `dd`.
const WORKLOAD: &str = r#"
    n=0
    if [ -e /records ]; then
        while read -r number filling; do
            [ "$number" = $((n + 1)) ] && [ ${#filling} = 1000 ] || break
            n=$number
        done </records
    fi
    echo have $n
    filling=$(printf '%01000d' 0)
    rm -f /records; i=0
    while :; do
        i=$((i + 1))
        if [ $((i % 3)) = 0 ]; then
            echo "$i $filling" | dd of=/records conv=notrunc,fsync oflag=append 2>/dev/null || exit 9
        else
            echo "$i $filling" >>/records; sync /records || exit 9
        fi
        echo $i
    done
"#;

/// How many times either is tried.
fn cuts() -> [u64; 2] {
    let wanted = std::env::var("HULLBOX_TEST_POWER_CUTS").unwrap_or_else(|_| "3,1".to_owned());
    let counts: Vec<_> = wanted.split(',').map(|n| n.trim().parse()).collect();
    match &counts[..] {
        [Ok(monitors), Ok(machines)] => [*monitors, *machines],
        _ => panic!("HULLBOX_TEST_POWER_CUTS is not MONITORS,MACHINES: {wanted}"),
    }
}

/// One life of the container.
struct Life {
    child: Child,
    lines: Receiver<String>,
    /// Records of the life before that were found.
    found: u64,
    acknowledged: u64,
}

impl Life {
    /// Start the container and hear what it found.
    fn begin(mut start: Command) -> Self {
        let mut child = start
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (told, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if told.send(line).is_err() {
                    break;
                }
            }
        });
        let first = lines.recv_timeout(LIMIT).expect("the container speaks");
        let found = first.strip_prefix("have ").map(str::parse);
        Self {
            child,
            lines,
            found: found.expect("its first word").unwrap(),
            acknowledged: 0,
        }
    }

    /// Hear so many records acknowledged.
    fn write(&mut self, records: u64) {
        while self.acknowledged < records {
            let line = self.lines.recv_timeout(LIMIT).expect("an acknowledgement");
            self.acknowledged = line.parse().unwrap();
        }
    }

    /// After the cut: the last record that was acknowledged.
    fn end(mut self) -> u64 {
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                // A line may be cut as well.
                Ok(line) => match line.parse() {
                    Ok(number) if number == self.acknowledged + 1 => self.acknowledged = number,
                    _ => {}
                },
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("the command goes on after the cut"),
            }
        }
        self.child.wait().unwrap();
        self.acknowledged
    }
}

/// Cuts the power so many times, at moments that differ by the records written before.
fn cut(count: u64, set: impl Fn(Command) -> Command, power_off: impl Fn()) {
    let create = [
        "create",
        "--name",
        NAME,
        "--isolation=vm",
        "--cpus=1",
        "-m",
        "128m",
    ];
    let mut create = set(command(create));
    create.args(["busybox", "sh", "-c", WORKLOAD]);
    let _ = finish(create, b"").exits(0);
    let mut acknowledged = 0;
    let mut records = 0;
    for round in 0..=count {
        let mut life = Life::begin(set(command(["start", "-a", NAME])));
        assert!(
            life.found >= acknowledged,
            "round {round}: {acknowledged} were acknowledged, {} are there",
            life.found
        );
        if round == count {
            let _ = finish(set(command(["rm", "-f", NAME])), b"").exits(0);
            life.end();
            break;
        }
        life.write(1 + round * 7 % 12);
        power_off();
        acknowledged = life.end();
        records += acknowledged;
    }
    eprintln!("{count} cuts, {records} records acknowledged before them");
}

#[test]
#[ignore = "needs the built program: make test"]
fn what_was_synced_survives_the_monitor() {
    let kill_monitor = || {
        let script = "for file in $(grep -als '[_]_monitor' /proc/[0-9]*/cmdline); do \
                          pid=${file#/proc/}; kill -9 ${pid%/cmdline}; done";
        let _ = on_the_machine(script).exits(0);
    };
    cut(cuts()[0], |command| command, kill_monitor);
    assert_eq!(hullbox(["ps", "-aq"]).exits(0).text(), "");
}

#[test]
#[ignore = "needs the built program: make test"]
fn what_was_synced_survives_the_machine() {
    let own = Own::new("idle_s = 600");
    let set = |command| {
        let mut command = own.set(command);
        command.env("HULLBOX_MACHINE", "always");
        command
    };
    // Its start has a limit of its own.
    let _ = finish(set(command(["machine", "exec", "--", "true"])), b"").exits(0);
    let image = fixture("busybox.tar");
    let mut load = set(command(["load", "-q", "-i"]));
    load.arg(image);
    let _ = finish(load, b"").exits(0);
    let power_off = || kill(own.helper("qemu"));
    cut(cuts()[1], set, power_off);
}
