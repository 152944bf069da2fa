//! A client that is stopped while its container ends.

use crate::life::Kept;
use hullbox_tests::{both_modes, command, hullbox, on_the_machine};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Read;
use std::process::Stdio;

both_modes! {
    fn a_client_that_was_stopped_gets_all_when_it_goes_on(mode) {
        const LEN: usize = 900_000;
        let kept = Kept::new("late", mode);
        let script = format!(
            "echo up; until [ -e /go ]; do sleep 0.05; done; head -c {LEN} /dev/zero | tr '\\0' x; exit 7"
        );
        let mut run = command(["run", "--name", &kept.name, mode.flag(), "busybox", "sh", "-c", &script]);
        let mut client = run
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut output = client.stdout.take().expect("a pipe");
        output.read_exact(&mut [0; 3]).expect("it is up");
        let id = hullbox(["inspect", "--format", "{{.Id}}", &kept.name]).exits(0).text();
        kill_process(Pid::from_child(&client), Signal::STOP).expect("it runs");
        let _ = hullbox(["exec", &kept.name, "touch", "/go"]).exits(0);
        // Nobody waits for the client: neither who waits for the end, nor who starts it anew.
        assert_eq!(hullbox(["wait", &kept.name]).exits(0).text(), "7");
        let _ = hullbox(["rm", &kept.name]).exits(0);
        let gone = format!(
            r#"for i in $(seq 200); do
                left=$(grep -lz "[_]_monitor" /proc/[0-9]*/cmdline 2>/dev/null | xargs -r grep -lz {})
                [ -n "$left" ] || exit 0
                sleep 0.05
            done
            exit 1"#,
            &id[..12]
        );
        // Root's monitors leave it to the kernel.
        let _ = on_the_machine(&gone).exits(0);
        kill_process(Pid::from_child(&client), Signal::CONT).expect("it is there");
        let mut rest = Vec::new();
        output.read_to_end(&mut rest).expect("the rest");
        assert_eq!(rest.len(), LEN);
        assert!(rest.iter().all(|byte| *byte == b'x'));
        assert_eq!(client.wait().expect("it ends").code(), Some(7));
    }
}
