//! Signals: how programs find them, and what one to a monitor does.

use crate::life::Kept;
use crate::silent::signal_monitor;
use hullbox_tests::{Mode, both_modes, hullbox, run};

/// Says what is blocked and ignored, one line each.
const STATUS: [&str; 3] = ["grep", "-E", "Sig(Blk|Ign)"];
const NONE: &str = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000";

both_modes! {
    fn programs_start_with_no_signal_blocked_or_ignored(mode) {
        let status = |flags: &[&str]| {
            let mut all = flags.to_vec();
            all.push("busybox");
            all.extend(STATUS);
            all.push("/proc/self/status");
            run(mode, all).exits(0).text().replace('\r', "")
        };
        assert_eq!(status(&[]), NONE);
        assert_eq!(status(&["-t"]), NONE);
        assert_eq!(status(&["--init"]), NONE);
        let kept = Kept::new("signals", mode);
        let _ = kept.run(&["busybox", "sleep", "1000"]);
        for flags in [&["exec"][..], &["exec", "-t"]] {
            let mut all = flags.to_vec();
            all.push(&kept.name);
            all.extend(STATUS);
            all.push("/proc/self/status");
            assert_eq!(hullbox(all).exits(0).text().replace('\r', ""), NONE);
        }
    }
}

both_modes! {
    fn what_a_shutdown_sends_stops_a_container_as_stop_does(mode) {
        // To every process there is of the container's outside of it.
        let kept = Kept::new("shutdown", mode);
        let obeys = "trap 'sleep 1; exit 5' TERM; echo up; while :; do sleep 0.1; done";
        let id = kept.run(&["busybox", "sh", "-c", obeys]);
        kept.until_said("up");
        signal_monitor(&id, "TERM");
        assert_eq!(hullbox(["wait", &kept.name]).exits(0).text(), "5");
        let _ = hullbox(["rm", &kept.name]).exits(0);

        let deaf = "trap '' TERM; echo up; while :; do sleep 0.1; done";
        let id = kept.run(&["--stop-timeout", "1", "busybox", "sh", "-c", deaf]);
        kept.until_said("up");
        signal_monitor(&id, "TERM");
        assert_eq!(hullbox(["wait", &kept.name]).exits(0).text(), "137");
    }
}

both_modes! {
    fn updated_limits_hold_after_a_restart_by_policy(mode) {
        if mode == Mode::Container && std::env::var("HULLBOX_MACHINE").as_deref() == Ok("never") {
            // This host may have no controllers to spare.
            return;
        }
        let kept = Kept::new("updated", mode);
        // The second time it needs no processes of its own.
        let script = "[ -e /went ] && exec sleep 1000; until [ -e /go ]; do sleep 0.1; done; mv /go /went; exit 1";
        let _ = kept.run(&["--restart", "on-failure:3", "busybox", "sh", "-c", script]);
        let limits = ["update", "-m", "64m", "--pids-limit", "12", "--cpus", "0.5", &kept.name];
        let _ = hullbox(limits).exits(0);
        let _ = hullbox(["exec", &kept.name, "touch", "/go"]).exits(0);
        kept.until("{{.RestartCount}} {{.State.Status}}", "1 running");
        let many = "i=0; while [ $i -lt 40 ]; do sleep 2 & i=$((i+1)); done; wait";
        let done = hullbox(["exec", &kept.name, "sh", "-c", many]);
        assert!(done.stderr.contains("fork"), "{done:?}");
        let stats = ["stats", "--no-stream", "--format", "{{.MemUsage}}", &kept.name];
        let used = hullbox(stats).exits(0).text();
        assert!(used.ends_with("/ 64MiB"), "{used}");
    }
}
