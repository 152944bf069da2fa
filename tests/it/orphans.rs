//! What outlives a monitor that is killed: nothing, whatever the container did.

use crate::life::Kept;
use hullbox_tests::{Mode, both_modes, command, hullbox, on_the_machine};
use std::io::Read;
use std::process::Stdio;

/// Kills the monitor of the container with this id, and nothing else, and waits until it is dead:
/// what a process holds is free when the last of its threads has gone, which is after `kill` returns.
pub(crate) fn kill_monitor(id: &str) {
    let script = format!(
        r#"for f in $(grep -lzx __monitor /proc/[0-9]*/cmdline 2>/dev/null | sort -t/ -k3n); do
            grep -qszx {} $f || continue
            p=${{f#/proc/}} p=${{p%/cmdline}}
            kill -9 $p
            for i in $(seq 1200); do
                grep -hs '^State:' /proc/$p/task/*/status | grep -qv zombie || exit 0
                sleep 0.05
            done
            exit 2
        done
        exit 1"#,
        &id[..12]
    );
    let _ = on_the_machine(&script).exits(0);
}

both_modes! {
    fn a_workload_that_changed_its_user_dies_with_its_monitor(mode) {
        let kept = Kept::new("orphan", mode);
        // Whoever changes its user is no longer told of its parent's death.
        let id = kept.run(&["busybox", "sh", "-c", "exec su alice -c 'exec sleep 98765'"]);
        // In a microVM there is nothing to see from outside.
        let seen = "grep -lzx 98765 /proc/[0-9]*/cmdline 2>/dev/null";
        if mode == Mode::Container {
            let up = format!("for i in $(seq 200); do {seen} && exit 0; sleep 0.05; done; exit 1");
            let _ = on_the_machine(&up).exits(0);
        }
        if mode == Mode::Container {
            // All that are called so.
            crate::silent::signal_monitor(&id, "KILL");
        } else {
            kill_monitor(&id);
        }
        // Nobody runs a command that would clean up.
        let gone = format!("for i in $(seq 200); do {seen} || exit 0; sleep 0.05; done; exit 1");
        let _ = on_the_machine(&gone).exits(0);
        let state = ["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", &kept.name];
        assert_eq!(hullbox(state).exits(0).text(), "exited 137");
    }
}

both_modes! {
    fn an_errand_that_is_killed_leaves_nothing(mode) {
        let kept = Kept::new("errand", mode);
        let id = kept.run(&["busybox", "sh", "-c", "head -c 30000000 /dev/urandom >/big"]);
        let _ = hullbox(["wait", &kept.name]).exits(0);
        let mut export = command(["export", &kept.name])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut output = export.stdout.take().expect("a pipe");
        // It runs, and nobody takes the rest.
        output.read_exact(&mut [0; 512]).expect("a beginning");
        kill_monitor(&id);
        drop(output);
        let _ = export.wait().expect("the command ends");
        assert_eq!(hullbox(["start", "-a", &kept.name]).code, 0, "it is as it was");
        let _ = hullbox(["rm", &kept.name]).exits(0);
        // Of it; others may be at work beside.
        let left = format!(
            r#"find /sys/fs/cgroup "$HULLBOX_ROOT" "$HULLBOX_RUNTIME" -name '{}*' 2>/dev/null"#,
            &id[..12]
        );
        assert_eq!(on_the_machine(&left).text(), "");
    }
}
