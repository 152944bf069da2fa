//! What `events` tells, and in which order: Docker's.

use crate::life::Kept;
use hullbox_tests::{both_modes, command, finish, hullbox};

const FOREVER: &str = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done";

/// Waits until the script has said so often that its trap is set: PID 1 has no default action.
fn until_ready(box_: &Kept, times: usize) {
    let says = || hullbox(["logs", &box_.name]).exits(0).text();
    while says().lines().filter(|line| *line == "ready").count() < times {}
}

/// What happened to a container so far.
pub(crate) fn happened(id: &str) -> Vec<String> {
    told_of(id, &[], "{{.Action}}")
}

/// The events of a container so far that pass further flags, a line each.
pub(crate) fn told_of(container: &str, flags: &[&str], format: &str) -> Vec<String> {
    let filter = format!("container={container}");
    let args = ["events", "--since", "20m", "--until", "0s"];
    let filters = ["--filter", &filter, "--format", format];
    let text = hullbox([&args[..], &filters, flags].concat())
        .exits(0)
        .text();
    text.lines().map(str::to_owned).collect()
}

both_modes! {
    fn stop_restart_kill_and_removal_by_force_are_told_in_dockers_order(mode) {
        let box_ = Kept::new("orders", mode);
        let id = box_.run(&["busybox", "sh", "-c", FOREVER]);
        until_ready(&box_, 1);
        let _ = hullbox(["stop", "-t", "60", &box_.name]).exits(0);
        let _ = hullbox(["start", &box_.name]).exits(0);
        until_ready(&box_, 2);
        let _ = hullbox(["restart", "-t", "60", &box_.name]).exits(0);
        let _ = hullbox(["kill", &box_.name]).exits(0);
        let _ = hullbox(["start", &box_.name]).exits(0);
        let _ = hullbox(["rm", "-f", &box_.name]).exits(0);
        assert_eq!(
            happened(&id),
            [
                "create", "start", // run -d
                "kill", "die", "stop", // stop
                "start", //
                "kill", "die", "stop", "start", "restart", // restart
                "kill", "die", // kill
                "start", //
                "kill", "die", "destroy", // rm -f
            ]
        );
    }
}

both_modes! {
    fn an_end_of_its_own_and_one_that_stop_had_to_force(mode) {
        let box_ = Kept::new("ends", mode);
        let id = box_.run(&["--rm", "busybox", "sh", "-c", "exit 4"]);
        let _ = hullbox(["wait", &box_.name]);
        // Gone with its end, and its events are there all the same.
        while hullbox(["inspect", &id]).code == 0 {}
        assert_eq!(happened(&id), ["create", "start", "die", "destroy"]);

        let deaf = Kept::new("deaf", mode);
        let id = deaf.run(&["busybox", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"]);
        until_ready(&deaf, 1);
        let _ = hullbox(["stop", "-t", "1", &deaf.name]).exits(0);
        assert_eq!(happened(&id), ["create", "start", "kill", "kill", "die", "stop"]);
    }
}

both_modes! {
    fn renamed_containers_are_found_by_both_names(mode) {
        let box_ = Kept::new("before", mode);
        let after = Kept::new("after", mode);
        let id = box_.run(&["busybox", "sh", "-c", FOREVER]);
        let _ = hullbox(["rename", &box_.name, &after.name]).exits(0);
        let filter = format!("container={id}");
        let format = "{{.Actor.Attributes.name}} {{.Actor.Attributes.oldName}}";
        let mut events = command(["events", "--since", "20m", "--until", "0s", "--filter", &filter]);
        events.args(["--filter", "event=rename", "--format", format]);
        assert_eq!(finish(events, b"").exits(0).text(), format!("{} /{}", after.name, box_.name));
        let _ = hullbox(["rm", "-f", &after.name]).exits(0);
        assert_eq!(happened(&id), ["create", "start", "rename", "kill", "die", "destroy"]);
    }
}
