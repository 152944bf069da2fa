//! What `events` tells, and in which order: Docker's.

use hullbox_tests::{Mode, both_modes, command, finish, hullbox};

const FOREVER: &str = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done";

/// A container that is removed with its test.
struct Kept(String);

impl Kept {
    fn new(test: &str, mode: Mode) -> Self {
        let kept = Self(format!(
            "{test}-{}",
            if mode == Mode::Vm { "vm" } else { "ns" }
        ));
        let _ = hullbox(["rm", "-f", &kept.0]);
        kept
    }

    /// `run -d` of a shell script, with flags.
    fn run(&self, mode: Mode, flags: &[&str], script: &str) -> String {
        let mut all = vec!["run", "-d", "--name", &self.0, mode.flag(), "-m", "128m"];
        all.extend(flags);
        all.extend(["busybox", "sh", "-c", script]);
        hullbox(all).exits(0).text()
    }

    /// Waits until the script has said so often that its trap is set: PID 1 has no default action.
    fn until_ready(&self, times: usize) {
        let says = || hullbox(["logs", &self.0]).exits(0).text();
        while says().lines().filter(|line| *line == "ready").count() < times {}
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = hullbox(["rm", "-f", &self.0]);
    }
}

/// What happened to a container so far.
fn happened(id: &str) -> Vec<String> {
    let filter = format!("container={id}");
    let args = [
        "events",
        "--since",
        "20m",
        "--until",
        "0s",
        "--filter",
        &filter,
        "--format",
        "{{.Action}}",
    ];
    let text = hullbox(args).exits(0).text();
    text.lines().map(str::to_owned).collect()
}

both_modes! {
    fn stop_restart_kill_and_removal_by_force_are_told_in_dockers_order(mode) {
        let box_ = Kept::new("orders", mode);
        let id = box_.run(mode, &[], FOREVER);
        box_.until_ready(1);
        let _ = hullbox(["stop", "-t", "60", &box_.0]).exits(0);
        let _ = hullbox(["start", &box_.0]).exits(0);
        box_.until_ready(2);
        let _ = hullbox(["restart", "-t", "60", &box_.0]).exits(0);
        let _ = hullbox(["kill", &box_.0]).exits(0);
        let _ = hullbox(["start", &box_.0]).exits(0);
        let _ = hullbox(["rm", "-f", &box_.0]).exits(0);
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
        let id = box_.run(mode, &["--rm"], "exit 4");
        let _ = hullbox(["wait", &box_.0]);
        // Gone with its end, and its events are there all the same.
        while hullbox(["inspect", &id]).code == 0 {}
        assert_eq!(happened(&id), ["create", "start", "die", "destroy"]);

        let deaf = Kept::new("deaf", mode);
        let id = deaf.run(mode, &[], "trap '' TERM; echo ready; while :; do sleep 0.1; done");
        deaf.until_ready(1);
        let _ = hullbox(["stop", "-t", "1", &deaf.0]).exits(0);
        assert_eq!(happened(&id), ["create", "start", "kill", "kill", "die", "stop"]);
    }
}

both_modes! {
    fn renamed_containers_are_found_by_both_names(mode) {
        let box_ = Kept::new("before", mode);
        let after = Kept::new("after", mode);
        let id = box_.run(mode, &[], FOREVER);
        let _ = hullbox(["rename", &box_.0, &after.0]).exits(0);
        let filter = format!("container={id}");
        let format = "{{.Actor.Attributes.name}} {{.Actor.Attributes.oldName}}";
        let mut events = command(["events", "--since", "20m", "--until", "0s", "--filter", &filter]);
        events.args(["--filter", "event=rename", "--format", format]);
        assert_eq!(finish(events, b"").exits(0).text(), format!("{} /{}", after.0, box_.0));
        let _ = hullbox(["rm", "-f", &after.0]).exits(0);
        assert_eq!(happened(&id), ["create", "start", "rename", "kill", "die", "destroy"]);
    }
}
