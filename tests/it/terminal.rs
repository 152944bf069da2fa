//! `-it` under a pseudo-terminal.

use hullbox_tests::{Terminal, both_modes, command, finish};

both_modes! {
    fn a_terminal_behaves_like_one(mode) {
        let mut terminal = Terminal::start(&["run", "--rm", "-it", mode.flag(), "busybox", "sh"], 33, 99);
        let before = terminal.modes();
        terminal.expect("# ");
        terminal.type_text("stty size\n");
        terminal.expect("33 99");
        terminal.resize(44, 111);
        terminal.type_text("until stty size | grep -q 44; do :; done; stty size\n");
        terminal.expect("44 111");

        // Ctrl-C ends the foreground job, not the shell.
        terminal.type_text("echo rea''dy; sleep 1000\n");
        terminal.expect("ready");
        terminal.type_text("\x03");
        terminal.expect("# ");
        terminal.type_text("echo code=$?\n");
        terminal.expect("code=130");

        // Job control: stop with Ctrl-Z, list, end.
        terminal.type_text("echo rea''dy; sleep 1000\n");
        terminal.expect("ready");
        terminal.type_text("\x1a");
        terminal.expect("Stopped");
        terminal.type_text("jobs; kill %1; echo do''ne\n");
        terminal.expect("sleep 1000");
        terminal.expect("done");

        terminal.type_text("tty; exit 5\n");
        terminal.expect("/dev/");
        assert_eq!(terminal.wait(), 5);
        let after = terminal.modes();
        assert_eq!(before.local_modes, after.local_modes);
        assert_eq!(before.input_modes, after.input_modes);
        assert_eq!(before.output_modes, after.output_modes);
    }
}

both_modes! {
    fn a_terminal_needs_a_terminal(mode) {
        let mut run = command(["run", "--rm", "-it", mode.flag()]);
        run.args(["busybox", "true"]);
        let done = finish(run, b"x");
        assert_eq!(done.code, 125, "{}", done.stderr);
        assert!(done.stderr.contains("not a TTY") || done.stderr.contains("not a terminal"), "{}", done.stderr);
    }
}
