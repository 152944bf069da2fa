//! Commands in pipelines whose readers leave: `hullbox … | head -1`.

use crate::life::Kept;
use hullbox_tests::{Done, Mode, both_modes, command, hullbox, on_the_machine};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read as _, Write as _};
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

both_modes! {
    fn who_is_attached_later_shares_the_output_of_a_foreground_run(mode) {
    let kept = Kept::new("shared", mode);
    let script = "read a; echo first $a; read b; while [ ! -e /go ]; do sleep 0.05; done; \
                  i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i + 1)); done; cat";
    let mut run = args(&[
        "run",
        "--rm",
        "-i",
        "--name",
        &kept.name,
        mode.flag(),
    ]);
    run.args(["busybox", "sh", "-c", script]);
    let mut run = run
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut input = run.stdin.take().expect("a pipe");
    let mut output = BufReader::new(run.stdout.take().expect("a pipe"));
    input.write_all(b"1\n2\n").expect("it is read");
    let mut line = String::new();
    output.read_line(&mut line).expect("a line");
    assert_eq!(line, "first 1\n");

    let mut attach = args(&["attach", "--no-stdin", &kept.name]);
    let mut attach = attach.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut shared = BufReader::new(attach.stdout.take().expect("a pipe"));
    // Seen by the monitor before the exec is: the container's log of events has it.
    let filter = format!("container={}", kept.name);
    let mut events = args(&[
        "events",
        "--since",
        "1h",
        "--filter",
        &filter,
        "--filter",
        "event=attach",
    ]);
    events.args(["--format", "{{.Action}}"]);
    assert_eq!(head(events).0, "attach");
    let _ = hullbox(["exec", &kept.name, "touch", "/go"]).exits(0);
    input.write_all(b"the end\n").expect("it is read");
    drop(input);
    let (mut mine, mut theirs) = (String::new(), String::new());
    output.read_to_string(&mut mine).expect("text");
    shared.read_to_string(&mut theirs).expect("text");
    let expected: String = (0..2000).map(|i| format!("line {i}\n")).collect();
    assert_eq!(mine, format!("{expected}the end\n"));
    assert_eq!(theirs, mine);
    assert_eq!(run.wait().expect("it ends").code(), Some(0));
    assert_eq!(attach.wait().expect("it ends").code(), Some(0));
}
}

both_modes! {
    fn streams_of_files_and_pipes_are_whole(mode) {
        let dir = tempfile::tempdir().expect("a directory");
        let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n % 253) as u8).collect();
        let (from, to) = (dir.path().join("in"), dir.path().join("out"));
        fs::write(&from, &bytes).expect("it is written");
        let kept = Kept::new("streamed", mode);
        let create = ["run", "-d", "--name", &kept.name, mode.flag(), "busybox", "sleep", "1000"];
        let _ = hullbox(create).exits(0);
        let run: &[&str] = &["run", "--rm", "-i", mode.flag(), "busybox", "cat"];
        let exec: &[&str] = &["exec", "-i", &kept.name, "cat"];
        for words in [run, exec] {
            let mut cat = args(words);
            cat.stdin(File::open(&from).expect("it is there"));
            cat.stdout(File::create(&to).expect("it is made"));
            assert!(cat.status().expect("it runs").success());
            assert!(fs::read(&to).expect("it is there") == bytes, "{words:?}");

            // What is appended stays appended.
            let mut cat = args(words);
            cat.stdin(File::open(&from).expect("it is there"));
            cat.stdout(File::options().append(true).open(&to).expect("it is there"));
            assert!(cat.status().expect("it runs").success());
            assert!(fs::read(&to).expect("it is there") == [&bytes[..], &bytes].concat());

            let mut cat = args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
            let mut input = cat.stdin.take().expect("a pipe");
            let mut output = cat.stdout.take().expect("a pipe");
            let mut seen = Vec::new();
            thread::scope(|scope| {
                let bytes = &bytes;
                scope.spawn(move || input.write_all(bytes).expect("it is read"));
                output.read_to_end(&mut seen).expect("bytes");
            });
            assert!(seen == bytes, "{words:?}: {} bytes", seen.len());
            assert!(cat.wait().expect("it ends").success());
        }
        // Both outputs in one file, in the order of a writer that waits for each.
        let both = File::create(&to).expect("it is made");
        let mut sh = args(&["run", "--rm", mode.flag(), "busybox", "sh", "-c"]);
        sh.arg("echo 1; sleep 0.3; echo 2 >&2; sleep 0.3; echo 3; exit 4");
        sh.stdout(both.try_clone().expect("a copy")).stderr(both);
        assert_eq!(sh.status().expect("it runs").code(), Some(4));
        assert_eq!(fs::read_to_string(&to).expect("it is there"), "1\n2\n3\n");
    }
}

both_modes! {
    fn an_input_with_a_name_ends_with_its_writer(mode) {
        // The writer has gone before anybody but the shell has opened it.
        let script = format!(
            "export HULLBOX_MACHINE=never; dir=$(mktemp -d /run/fifo.XXXXXX); mkfifo $dir/f
            echo whole >$dir/f & \"$HULLBOX_BIN\" run --rm -i {flag} busybox cat <$dir/f; code=$?
            rm -r $dir; exit $code",
            flag = mode.flag()
        );
        assert_eq!(on_the_machine(&script).exits(0).text(), "whole");
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn an_archive_that_nobody_reads_on_is_no_error_to_print() {
    let mut save = command(["save", "busybox"]);
    save.stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = save.spawn().expect("the program starts");
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_exact(&mut [0; 5]).expect("the beginning");
    drop(stdout);
    let done = child.wait_with_output().expect("it is waited for");
    assert_eq!(done.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
}
