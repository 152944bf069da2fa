//! `-it` under a pseudo-terminal.

use hullbox_tests::{Terminal, both_modes, command, finish};
use std::process::Command;

/// A dialog with a shell. The same one with busybox on a terminal without any wall tests the test.
fn dialog(mut terminal: Terminal) {
    let before = terminal.modes_before.clone();
    terminal.expect("# ");
    terminal.type_text("stty size\n");
    terminal.expect("33 99");
    terminal.resize(44, 111);
    terminal.type_text("until stty size | grep -q 44; do :; done; stty size\n");
    terminal.expect("44 111");

    // Ctrl-C ends the foreground job, not the shell. The job itself says that it is there: a key
    // typed before it is in the foreground would go to the shell.
    terminal.type_text("sh -c 'echo rea\"\"dy; exec sleep 1000'\n");
    terminal.expect("ready");
    terminal.type_text("\x03");
    terminal.expect("# ");
    terminal.type_text("echo code=$?\n");
    terminal.expect("code=130");

    // Job control: stop with Ctrl-Z, list, end. A stopped job takes no TERM, and a shell with
    // stopped jobs does not exit at the first try.
    terminal.type_text("sh -c 'echo rea\"\"dy; exec sleep 1000'\n");
    terminal.expect("ready");
    terminal.type_text("\x1a");
    terminal.expect("Stopped");
    terminal.type_text("jobs; kill -KILL %1; wait; echo do''ne\n");
    terminal.expect("Stopped");
    terminal.expect("done");

    terminal.type_text("tty; exit 5\n");
    terminal.expect("/dev/");
    assert_eq!(terminal.wait(), 5);
    let after = terminal.modes();
    assert_eq!(before.local_modes, after.local_modes);
    assert_eq!(before.input_modes, after.input_modes);
    assert_eq!(before.output_modes, after.output_modes);
}

both_modes! {
    fn a_terminal_behaves_like_one(mode) {
        let mut run = command(["run", "--rm", "-it", mode.flag()]);
        run.args(["busybox", "sh"]);
        dialog(Terminal::start(&run, 33, 99));
    }
}

#[test]
fn the_dialog_is_what_a_plain_terminal_gives() {
    // Whoever runs the tests may ignore SIGINT, and no shell could take it back.
    let mut shell = Command::new("env");
    shell.args(["--default-signal=INT,QUIT", "busybox", "sh"]);
    dialog(Terminal::start(&shell, 33, 99));
}

both_modes! {
    fn a_terminal_needs_a_terminal(mode) {
        let mut run = command(["run", "--rm", "-it", mode.flag()]);
        run.args(["busybox", "true"]);
        let done = finish(run, b"x");
        // As `docker run`, whose own failures are 125 otherwise.
        assert_eq!(done.code, 1, "{}", done.stderr);
        assert!(done.stderr.contains("not a TTY") || done.stderr.contains("not a terminal"), "{}", done.stderr);
    }
}
