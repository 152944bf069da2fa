//! Commands that are killed at any moment: the store is valid, and nothing is left.

use crate::archives::archive::image;
use crate::archives::testing::TarBuilder;
use crate::hostile::store;
use crate::outcomes::assert_nothing_left;
use hullbox_tests::{Mode, both_modes, command, hullbox, on_the_machine, run};
use std::fs;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Moments spread over a while, the same in every run of the tests.
pub(crate) fn moments(count: u64, within: Duration) -> impl Iterator<Item = Duration> {
    // Steps of the golden ratio leave no large gaps, however many there are.
    (1..=count).map(move |i| within.mul_f64((i as f64 * 0.618_034).fract()))
}

pub(crate) fn start(args: &[&str]) -> Child {
    command(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Fails unless the command ends, whatever became of its container.
#[track_caller]
pub(crate) fn ends(child: &mut Child) {
    let deadline = Instant::now() + Duration::from_secs(180);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the command does not end");
        thread::sleep(Duration::from_millis(20));
    }
}

both_modes! {
    fn a_run_killed_at_any_moment_leaves_nothing(mode) {
        let whole = match mode {
            Mode::Vm => Duration::from_secs(4),
            Mode::Container => Duration::from_secs(2),
        };
        let end_monitors = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q [_]_monitor && kill -9 ${p#/proc/}; done; true";
        for (i, moment) in moments(8, whole).enumerate() {
            let mut child = start(&["run", "--rm", mode.flag(), "busybox", "true"]);
            thread::sleep(moment);
            // The command and its monitor in turn; either may have ended already.
            if i % 2 == 0 {
                child.kill().unwrap();
            } else {
                let _ = on_the_machine(end_monitors).exits(0);
            }
            ends(&mut child);
        }
        assert_eq!(run(mode, ["busybox", "echo", "well"]).exits(0).text(), "well");
        assert_nothing_left();
    }
}

/// Through the helper machine, the program ends a moment after the command that asked for it.
#[track_caller]
fn assert_load_ended() {
    let script = "for i in $(seq 200); do grep -qs '^load' /proc/[0-9]*/cmdline -z || exit 0; sleep 0.1; done; exit 1";
    let _ = on_the_machine(script).exits(0);
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_load_killed_at_any_moment_leaves_a_valid_store() {
    let before = store();
    let large: Vec<u8> = (0..2_000_000u32).flat_map(u32::to_le_bytes).collect();
    let layers: Vec<_> = (0..6)
        .map(|i| {
            let name = format!("numbers-{i}");
            TarBuilder::default().file(&name, &large).finish()
        })
        .collect();
    let layers: Vec<_> = layers.iter().map(Vec::as_slice).collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image.tar");
    fs::write(&file, image(&layers)).unwrap();
    let mut loaded = 0;
    let count = crate::killed_lives::loads();
    for moment in moments(count, Duration::from_secs(3)) {
        let mut child = start(&["load", "-q", "-i", file.to_str().unwrap()]);
        thread::sleep(moment);
        child.kill().unwrap();
        ends(&mut child);
        assert_load_ended();
        // All of it or nothing.
        let names = hullbox(["images", "-q", "test:1"]).exits(0).text();
        if !names.is_empty() {
            loaded += 1;
            let _ = hullbox(["rmi", "test:1"]).exits(0);
        }
        assert_eq!(store(), before);
    }
    eprintln!("killed {} of {count} before it was loaded", count - loaded);
    let _ = hullbox(["load", "-q", "-i", file.to_str().unwrap()]).exits(0);
    let _ = hullbox(["rmi", "test:1"]).exits(0);
}
