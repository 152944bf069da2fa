//! Many containers at once: each answers for itself, and nothing is left of any.
//!
//! `HULLBOX_TEST_CROWD=CONTAINERS,VMS` makes the crowd larger or smaller, `HULLBOX_TEST_BUSY=ROUNDS,SECONDS`
//! the rounds of busy guests more and longer: the helper machine's emulator has hung under 20,40.

use crate::outcomes::{assert_nothing_left, assert_sound};
use hullbox_tests::{Mode, both_modes, hullbox, on_the_machine, run};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const THREADS: usize = 8;

/// How many containers live and die in one case.
fn members(mode: Mode) -> usize {
    let wanted = std::env::var("HULLBOX_TEST_CROWD").unwrap_or_else(|_| "24,4".to_owned());
    let (containers, vms) = wanted.split_once(',').expect("CONTAINERS,VMS");
    let count = match mode {
        Mode::Container => containers,
        Mode::Vm => vms,
    };
    count.trim().parse().expect("a number")
}

/// One whole life, of commands that run where the containers do: what it said.
fn live(name: &str, mode: Mode, number: usize) -> String {
    // Half of them end by their own handler, half are killed. A handler answers `exec`s first.
    let (workload, patience) = match number % 2 {
        0 => ("trap 'exit 3' TERM; sleep 1000 & wait", 60),
        _ => ("exec sleep 1000", 0),
    };
    let script = format!(
        r#"
        set -e
        h() {{ "$HULLBOX_BIN" "$@"; }}
        trap 'echo "failed with $?"' EXIT
        id=$(h create --name {name} {flag} -m 128m --cpus 1 -e NUMBER={number} busybox sh -c "{workload}")
        echo "made ${{#id}}"
        h start {name}
        h exec {name} sh -c 'echo $NUMBER >/mine; echo "I am $NUMBER"'
        h exec {name} cat /mine
        code=0; h exec {name} sh -c 'exit $((NUMBER % 100 + 1))' || code=$?
        echo "code $code"
        h stop -t {patience} {name}
        h rm "$id" >/dev/null
        trap - EXIT
        "#,
        flag = mode.flag(),
    );
    let done = on_the_machine(&script);
    format!("{}\n{}", done.text(), done.stderr)
}

fn expected(name: &str, number: usize) -> String {
    let code = number % 100 + 1;
    format!("made 64\n{name}\nI am {number}\n{number}\ncode {code}\n{name}\n")
}

both_modes! {
    fn a_crowd_lives_and_leaves_nothing(mode) {
        let count = members(mode);
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let name = format!("crowd-{number}");
                    assert_eq!(live(&name, mode, number), expected(&name, number));
                });
            }
        });
        assert_eq!(hullbox(["ps", "-aq"]).exits(0).text(), "");
        assert_sound();
        assert_nothing_left();
    }
}

/// Guests that compute, sleep and write fifty times a second, six at once.
#[test]
#[ignore = "needs the built program: make test"]
fn busy_guests_all_get_on() {
    const GUESTS: usize = 6;
    let wanted = std::env::var("HULLBOX_TEST_BUSY").unwrap_or_else(|_| "1,10".to_owned());
    let (rounds, seconds) = wanted.split_once(',').expect("ROUNDS,SECONDS");
    let [rounds, seconds]: [u64; 2] =
        [rounds, seconds].map(|text| text.trim().parse().expect("a number"));
    let lines = seconds * 50;
    let program = format!(
        "import time\nfor i in range({lines}):\n print(i, sum(range(1000)), flush=True)\n time.sleep(0.02)"
    );
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        thread::scope(|scope| {
            for _ in 0..GUESTS {
                scope.spawn(|| {
                    let done = run(Mode::Vm, ["-m", "128m", "demo", "python3", "-c", &program]);
                    let text = done.exits(0).text();
                    let last = format!("{} 499500", lines - 1);
                    assert_eq!(text.lines().count() as u64, lines);
                    assert_eq!(text.lines().last(), Some(last.as_str()));
                });
            }
        });
    }
}
