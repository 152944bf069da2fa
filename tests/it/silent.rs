//! Monitors that do not answer: nobody waits for them for ever, and who ends a container ends it.

use crate::life::Kept;
use crate::outcomes::assert_sound;
use hullbox_tests::{Mode, both_modes, hullbox, on_the_machine};
use std::thread;
use std::time::{Duration, Instant};

/// Sends a signal to the monitor of a container, which has this id.
pub(crate) fn signal_monitor(id: &str, signal: &str) {
    let script = format!(
        r#"for p in /proc/[0-9]*; do
            if tr '\0' ' ' <$p/cmdline 2>/dev/null | grep -q "[_]_monitor {}"; then kill -{signal} ${{p#/proc/}}; found=1; fi
        done
        [ "$found" ]"#,
        &id[..12]
    );
    let _ = on_the_machine(&script).exits(0);
}

/// A container whose monitor is stopped.
fn silent(test: &str, mode: Mode) -> (Kept, String) {
    let kept = Kept::new(test, mode);
    let id = kept.run(&["busybox", "sleep", "1000"]);
    signal_monitor(&id, "STOP");
    (kept, id)
}

both_modes! {
    fn what_asks_a_silent_monitor_says_so_and_rm_removes_it(mode) {
        let (one, id) = silent("silent-one", mode);
        let (two, _) = silent("silent-two", mode);
        let name = one.name.as_str();
        let asks: [&[&str]; 7] = [
            &["stats", "--no-stream", name],
            &["top", name],
            &["exec", name, "true"],
            &["pause", name],
            &["attach", name],
            &["kill", "-s", "USR1", name],
            &["diff", name],
        ];
        thread::scope(|scope| {
            for ask in asks {
                scope.spawn(move || hullbox(ask).fails_saying("does not answer"));
            }
        });
        // The record needs nobody.
        let listed = hullbox(["ps", "-q", "--no-trunc", "--filter", &format!("name={name}")]);
        assert_eq!(listed.exits(0).text(), id);
        // Nor does most of what `inspect` tells, and it does not wait long for the rest.
        let begun = Instant::now();
        let status = hullbox(["inspect", "-f", "{{.State.Status}}", name]);
        assert_eq!(status.exits(0).text(), "running");
        assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
        let removed = hullbox(["rm", "-f", name, &two.name]).exits(0).text();
        assert_eq!(removed, format!("{name}\n{}", two.name));
        assert_sound();
    }
}

both_modes! {
    fn a_container_whose_monitor_is_silent_is_stopped_and_killed(mode) {
        for verb in [&["stop", "-t", "1"][..], &["kill"]] {
            let (kept, _) = silent("silent-end", mode);
            let mut all = verb.to_vec();
            all.push(&kept.name);
            let _ = hullbox(all).exits(0);
            let state = ["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", &kept.name];
            assert_eq!(hullbox(state).exits(0).text(), "exited 137", "{verb:?}");
            let _ = hullbox(["start", &kept.name]).exits(0);
            let _ = hullbox(["exec", &kept.name, "true"]).exits(0);
        }
    }
}
