//! Commands in pipelines whose readers leave: `hullbox … | head -1`.

use crate::life::Kept;
use hullbox_tests::{Done, Mode, both_modes, command, hullbox};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Reads one line of a command's output and leaves; the line, and the command's exit code.
fn head(mut command: Command) -> (String, i32) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut output = BufReader::with_capacity(1, child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    output.read_line(&mut line).expect("a line");
    drop(output);
    let (ended, end) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| ended.send(child.wait().expect("it is waited for").code()));
        match end.recv_timeout(Duration::from_secs(120)) {
            Ok(code) => (line.trim_end().to_owned(), code.unwrap_or(-1)),
            Err(_) => panic!("{command:?} does not end"),
        }
    })
}

fn args(words: &[&str]) -> Command {
    command(words)
}

fn phase(kept: &Kept) -> String {
    let done: Done = hullbox(["inspect", "--format", "{{.State.Status}}", &kept.name]);
    done.exits(0).text()
}

both_modes! {
    fn a_foreground_run_ends_with_its_reader(mode) {
        // The kernel spares the first process of a namespace SIGPIPE: it sees an error.
        let (line, code) = head(args(&["run", "--rm", mode.flag(), "busybox", "yes"]));
        assert!(line == "y" && [1, 141].contains(&code), "{line} {code}");
        let yes = ("y".to_owned(), 141);
        let init = ["run", "--rm", "--init", mode.flag(), "busybox", "yes"];
        assert_eq!(head(args(&init)), yes);
        assert_eq!(head(args(&["run", "--rm", "-t", mode.flag(), "busybox", "yes"])), yes);
        let kept = Kept::new("headed", mode);
        let run = ["run", "--init", "--name", &kept.name, mode.flag(), "busybox", "yes"];
        assert_eq!(head(args(&run)), yes);
        assert_eq!(phase(&kept), "exited");
        let _ = hullbox(["rm", &kept.name]).exits(0);
        let run = ["run", "-t", "--name", &kept.name, mode.flag(), "busybox", "yes"];
        assert_eq!(head(args(&run)), yes);
        assert_eq!(phase(&kept), "exited");
    }
}

both_modes! {
    fn who_joins_a_container_ends_with_its_reader_and_the_container_runs_on(mode) {
        let yes = ("y".to_owned(), 141);
        let script = "while :; do echo y; sleep 0.05; done";
        for tty in [false, true] {
            let kept = Kept::new("joined", mode);
            let mut create = vec!["create", "--name", &kept.name, mode.flag()];
            create.extend(tty.then_some("-t"));
            create.extend(["busybox", "sh", "-c", script]);
            let _ = hullbox(create).exits(0);
            assert_eq!(head(args(&["start", "-a", &kept.name])), yes);
            assert_eq!(phase(&kept), "running");
            assert_eq!(head(args(&["attach", &kept.name])), yes);
            assert_eq!(head(args(&["logs", "-f", &kept.name])).0, "y");
            assert_eq!(head(args(&["exec", &kept.name, "yes"])), yes);
            assert_eq!(head(args(&["exec", "-t", &kept.name, "yes"])), yes);
            assert_eq!(phase(&kept), "running");
        }
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn events_end_with_their_reader() {
    let kept = Kept::new("eventful", Mode::Container);
    let flag = Mode::Container.flag();
    let _ = hullbox(["create", "--name", &kept.name, flag, "busybox", "true"]).exits(0);
    let name = format!("container={}", kept.name);
    let events = [
        "events",
        "--since",
        "1h",
        "--filter",
        &name,
        "--format",
        "{{.Action}}",
    ];
    // What would be written next never comes.
    assert_eq!(head(args(&events)).0, "create");
}
