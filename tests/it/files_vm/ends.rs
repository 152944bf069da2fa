//! Ends: of the server, of what it serves, and of who is second.

use super::{DEBIAN, Host, Named, debian, keep, with};
use crate::life::Kept;
use hullbox_tests::{Mode, hullbox, on_the_machine};

/// Kills the servers in the machine.
fn kill_servers() {
    let script = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q '[_]_files' && kill -9 ${p#/proc/}; done; true";
    let _ = on_the_machine(script).exits(0);
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_server_that_is_killed_fails_its_files_and_nothing_else() {
    let volume = Named::free("fv-killed");
    let kept = keep("served", &volume.at("/w"), "busybox", &["sleep", "1000"]);
    let script = "echo before >/w/file; exec 3>>/w/file; echo open >/open; sleep 1000";
    let _ = hullbox(["exec", "-d", &kept.name, "sh", "-c", script]).exits(0);
    let look = || kept.exec(&["cat", "/open"]).code == 0;
    while !look() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    kill_servers();
    let done = kept.exec(&[
        "sh",
        "-c",
        "ls /w; cat /w/file; echo new >/w/new; echo lives",
    ]);
    assert_eq!(done.code, 0, "{done:?}");
    let said = format!("{done:?}");
    assert!(
        said.contains("I/O error") || said.contains("Input/output error"),
        "{said}"
    );
    assert_eq!(done.text(), "lives");
    // The next start has another server, and what was written is there.
    let _ = hullbox(["restart", "-t", "1", &kept.name]).exits(0);
    assert_eq!(kept.exec(&["cat", "/w/file"]).exits(0).text(), "before");
}

#[test]
#[ignore = "needs the built program: make test"]
fn no_server_outlives_its_container() {
    let volume = Named::free("fv-alone");
    let _ = with(&volume.at("/w"), "busybox", &["true"]).exits(0);
    let kept = keep("served", &volume.at("/w"), "busybox", &["sleep", "1000"]);
    let count = || {
        let script = "n=0; for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q '[_]_files' && n=$((n+1)); done; echo $n";
        on_the_machine(script).exits(0).text()
    };
    assert_eq!(count(), "1");
    let _ = hullbox(["kill", &kept.name]).exits(0);
    kept.until("{{.State.Status}}", "exited");
    assert_eq!(count(), "0");
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_block_volume_has_one_writer() {
    let volume = Named::block("fv-single", "64m");
    let first = keep("first", &volume.at("/w"), "busybox", &["sleep", "1000"]);
    let done = with(&volume.at("/w"), "busybox", &["true"]);
    assert_eq!(done.code, 125, "{done:?}");
    assert!(format!("{done:?}").contains("in use"), "{done:?}");
    let _ = first.exec(&["sh", "-c", "echo mine >/w/file"]).exits(0);
    let _ = hullbox(["stop", "-t", "1", &first.name]).exits(0);
    assert_eq!(
        with(&volume.at("/w"), "busybox", &["cat", "/w/file"])
            .exits(0)
            .text(),
        "mine"
    );
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_block_volume_that_was_filled_is_whole_when_its_guest_is_killed() {
    let volume = Named::block("fv-filled", "64m");
    let sum = ["sh", "-c", "cd /bin && md5sum busybox && ls | md5sum"];
    let wanted = hullbox_tests::run(Mode::Vm, [&["busybox"][..], &sum].concat()).exits(0);
    let kept = Kept::new("filled", Mode::Vm);
    let mount = volume.at("/bin");
    let id = kept.run(&["-v", &mount, "busybox", "sleep", "1000"]);
    // Long before a kernel writes of itself what it has.
    crate::orphans::kill_monitor(&id);
    assert_eq!(with(&mount, "busybox", &sum).exits(0).text(), wanted.text());
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_directory_that_is_removed_and_changed_behind_the_guest_is_an_error_and_no_hang() {
    debian();
    let host = Host::new("swapped");
    std::fs::create_dir(host.0.join("sub")).unwrap();
    std::fs::write(host.0.join("sub/file"), "one").unwrap();
    let kept = keep("swapped", &host.at("/w"), DEBIAN, &["sleep", "1000"]);
    assert_eq!(kept.exec(&["cat", "/w/sub/file"]).exits(0).text(), "one");
    // A link to the host's files in the place of a directory: of the guest's own root.
    std::fs::remove_dir_all(host.0.join("sub")).unwrap();
    std::os::unix::fs::symlink("/etc", host.0.join("sub")).unwrap();
    let done = kept.exec(&["sh", "-c", "sleep 2; cat /w/sub/file; cat /w/sub/hostname"]);
    assert!(
        done.text().starts_with(&kept.inspect("{{.Id}}")[..12]),
        "{done:?}"
    );
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_container_with_files_from_outside_is_not_saved() {
    let volume = Named::free("fv-saved");
    let kept: Kept = keep("unsaved", &volume.at("/w"), "busybox", &["sleep", "1000"]);
    hullbox(["snapshot", "create", &kept.name, "never"]).fails_saying("files from outside (at /w)");
    let _ = kept.exec(&["true"]).exits(0);
}
