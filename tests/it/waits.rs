//! `wait` with Docker's conditions.

use crate::life::Kept;
use hullbox_tests::{both_modes, command, hullbox, on_the_machine};
use std::process::{Child, Stdio};

/// `wait --condition=…`, when it has begun to wait: it watches the log of events then.
fn waiting(condition: &str, name: &str) -> Child {
    let flag = format!("--condition={condition}");
    let mut wait = command(["wait", &flag, name]);
    let child = wait.stdout(Stdio::piped()).spawn().unwrap();
    // One process looks at all command lines, and one at the descriptors of those that fit: under
    // emulation starting a process takes longer than all that it does here. The dots are the NULs
    // between arguments; the brackets keep the searching shell and grep from finding themselves.
    let script = format!(
        "while :; do
            fitting=$(grep -lasE '[w]ait.{flag}.{name}.$' /proc/[0-9]*/cmdline)
            for line in $fitting; do
                grep -qs ^inotify ${{line%cmdline}}fdinfo/* && exit 0
            done
        done"
    );
    let _ = on_the_machine(&script).exits(0);
    child
}

fn said(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

both_modes! {
    fn a_wait_begins_before_the_run_and_outlasts_the_container(mode) {
        let box_ = Kept::new("awaited", mode);
        let _ = box_.make(&["create", "--rm"], &["busybox", "sh", "-c", "exit 9"]).exits(0);
        // It does not run, so there is nothing to wait for.
        assert_eq!(hullbox(["wait", &box_.name]).exits(0).text(), "0");
        let exit = waiting("next-exit", &box_.name);
        let removal = waiting("removed", &box_.name);
        let _ = hullbox(["start", &box_.name]).exits(0);
        assert_eq!((said(exit), said(removal)), ("9".to_owned(), "9".to_owned()));
        hullbox(["wait", &box_.name]).fails_saying("no such container");

        // One that ran before: its old end does not count.
        let _ = box_.make(&["create"], &["busybox", "sh", "-c", "test -e /ran && exit 4; touch /ran"]).exits(0);
        let _ = hullbox(["start", "-a", &box_.name]).exits(0);
        let exit = waiting("next-exit", &box_.name);
        let _ = hullbox(["start", &box_.name]).exits(0);
        assert_eq!(said(exit), "4");
        let removal = waiting("removed", &box_.name);
        let _ = hullbox(["rm", &box_.name]).exits(0);
        assert_eq!(said(removal), "4");
    }
}
