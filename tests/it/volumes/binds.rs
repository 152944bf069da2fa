//! Paths of the host.

use super::{Host, Named, sh};
use crate::life::Kept;
use hullbox_tests::{both_modes, command, finish, hullbox, on_the_machine};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

both_modes! {
    fn a_directory_is_the_same_on_both_sides(mode) {
        let host = Host::new("same", mode);
        let _ = host.write("in/file", "from the host\n");
        let bind = format!("{}:/x", host.path("in"));
        let script = "cat /x/file; echo back >/x/out; mkdir /x/dir; chmod 754 /x/out; ln -s out /x/link";
        assert_eq!(sh(mode, &["-v", &bind], script).exits(0).text(), "from the host");
        assert_eq!(host.read("in/out"), "back\n");
        assert!(host.0.join("in/dir").is_dir());
        let out = std::fs::metadata(host.0.join("in/out")).expect("the file");
        // Mode bits are real: a checkout keeps its executables.
        assert_eq!(out.permissions().mode() & 0o777, 0o754);
        assert_eq!(std::fs::read_link(host.0.join("in/link")).expect("a link").to_str(), Some("out"));
    }
}

both_modes! {
    fn read_only_is_read_only_below_the_container(mode) {
        let host = Host::new("ro", mode);
        let _ = host.write("file", "kept\n");
        let bind = format!("{}:/x:ro", host.0.display());
        let script = "echo no >/x/file; rm -f /x/file; touch /x/new; mount -o remount,rw /x; \
            mount -o remount,bind,rw /x; echo no >/x/file; chmod 777 /x; cat /x/file";
        // Even for root who may mount: of its own kernel, behind which the host's is. In container mode who may
        // mount has the host's kernel, as with Docker.
        if mode == hullbox_tests::Mode::Vm {
            let done = sh(mode, &["-v", &bind, "--privileged"], script);
            assert_eq!(done.exits(0).text(), "kept");
            assert_eq!(host.read("file"), "kept\n");
        }
        let done = sh(mode, &["-v", &bind], script);
        assert_eq!(done.exits(0).text(), "kept");
        let mount = format!("type=bind,src={},dst=/x,readonly", host.0.display());
        let done = sh(mode, &["--mount", &mount], "touch /x/new");
        assert!(done.code != 0 && done.stderr.contains("Read-only"), "{}", done.stderr);
        assert!(!host.0.join("new").exists());
    }
}

both_modes! {
    fn one_file_is_that_inode_and_nothing_else(mode) {
        let host = Host::new("file", mode);
        let file = host.write("one", "one\n");
        let _ = host.write("other", "secret\n");
        let box_ = Kept::new("one-file", mode);
        let bind = format!("{file}:/etc/one");
        box_.run(&["-v", &bind, "-v", &format!("{file}:/etc/ro:ro"), "busybox", "sleep", "1000"]);
        assert_eq!(box_.exec(&["cat", "/etc/one"]).exits(0).text(), "one");
        let _ = box_.exec(&["sh", "-c", "echo two >/etc/one"]).exits(0);
        assert_eq!(host.read("one"), "two\n");
        assert!(box_.exec(&["sh", "-c", "echo no >/etc/ro"]).code != 0);
        // Its neighbours are not there, and it can be neither removed nor replaced.
        assert!(box_.exec(&["ls", "/etc/other"]).code != 0);
        assert!(box_.exec(&["rm", "/etc/one"]).code != 0);
        assert!(box_.exec(&["sh", "-c", "echo x >/etc/y; mv /etc/y /etc/one"]).code != 0);
        // An editor that writes a new file and renames it leaves the old one here, as with Docker.
        let _ = host.write("new", "three\n");
        std::fs::rename(host.0.join("new"), host.0.join("one")).expect("renamed");
        assert_eq!(box_.exec(&["cat", "/etc/one"]).exits(0).text(), "two");
    }
}

both_modes! {
    fn nested_mounts_are_both_there_in_any_order(mode) {
        let host = Host::new("nested", mode);
        let _ = host.write("outer/name", "outer\n");
        let _ = host.write("inner/name", "inner\n");
        let volume = Named::free("nested", mode);
        let outer = format!("{}:/w", host.path("outer"));
        let inner = format!("{}:/w/data", host.path("inner"));
        let deep = volume.at("/w/data/deep/er");
        let script = "cat /w/name /w/data/name; touch /w/data/deep/er/x; stat -f -c %T /w/data/tmp";
        for flags in [
            ["-v", &outer, "-v", &inner, "-v", &deep, "--tmpfs", "/w/data/tmp:size=1m"],
            ["--tmpfs", "/w/data/tmp:size=1m", "-v", &deep, "-v", &inner, "-v", &outer],
        ] {
            assert_eq!(sh(mode, &flags, script).exits(0).text(), "outer\ninner\ntmpfs");
        }
        // The places of the inner ones are made in the outer, as with Docker.
        assert!(host.0.join("outer/data").is_dir() && host.0.join("inner/deep/er").is_dir());
        assert!(!host.0.join("inner/deep/er/x").exists());
    }
}

both_modes! {
    fn a_missing_path_is_made_or_missed(mode) {
        let host = Host::new("missing", mode);
        let bind = format!("{}:/x", host.path("a/b"));
        let _ = sh(mode, &["-v", &bind], "touch /x/f").exits(0);
        assert!(host.0.join("a/b/f").exists());
        let mount = format!("type=bind,src={},dst=/x", host.path("none"));
        sh(mode, &["--mount", &mount], "true").fails_saying(&format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {}",
            host.path("none")
        ));
        // Of several none is made when one cannot be had.
        let other = format!("{}:/y", host.path("other"));
        sh(mode, &["-v", &other, "--mount", &mount], "true").fails_saying("does not exist");
        assert!(!host.0.join("other").exists());
        // A directory on a file, and the other way round.
        let file = host.write("file", "");
        sh(mode, &["-v", &format!("{file}:/etc")], "true").fails_saying("not a directory");
        let dir = format!("{}:/etc/passwd", host.path("a"));
        sh(mode, &["-v", &dir], "true").fails_saying("not a directory");
    }
}

both_modes! {
    fn a_relative_path_is_the_callers(mode) {
        let host = Host::new("relative", mode);
        let _ = host.write("src/file", "mine\n");
        for flags in [vec!["-v", "./src:/x:ro"], vec!["--mount", "type=bind,src=./src,dst=/x"]] {
            let mut run = command(["run", "--rm", mode.flag(), "-m", "128m"]);
            run.args(flags).args(["busybox", "cat", "/x/file"]).current_dir(&host.0);
            assert_eq!(finish(run, b"").exits(0).text(), "mine");
        }
        let mut run = command(["run", "--rm", mode.flag(), "-m", "128m"]);
        run.args(["-v", ".:/x", "busybox", "cat", "/x/file"]).current_dir(host.0.join("src"));
        assert_eq!(finish(run, b"").exits(0).text(), "mine");
    }
}

both_modes! {
    fn owners_are_the_hosts(mode) {
        let host = Host::new("owners", mode);
        let _ = host.write("theirs", "");
        std::os::unix::fs::chown(host.0.join("theirs"), Some(1234), Some(5678)).expect("chown");
        let bind = format!("{}:/x", host.0.display());
        let script = "stat -c %u:%g /x/theirs; touch /x/root; chown 33:34 /x/root";
        assert_eq!(sh(mode, &["-v", &bind], script).exits(0).text(), "1234:5678");
        let made = std::fs::metadata(host.0.join("root")).expect("the file");
        assert_eq!((made.uid(), made.gid()), (33, 34));
        // Who is nobody there is nobody here.
        let done = sh(mode, &["-v", &bind, "-u", "1000:1000"], "touch /x/other");
        assert!(done.code != 0 && done.stderr.contains("denied"), "{}", done.stderr);
    }
}

/// Mounts below a source: there or not, read-only or not. The host's kernel alone has them.
#[test]
#[ignore = "needs the built program: make test"]
fn submounts_are_as_read_only_as_they_are_asked_to_be() {
    let mode = hullbox_tests::Mode::Container;
    // Where the containers run, which may be a helper machine.
    let setup = "mkdir -p /tmp/hullbox-sub/below && mount -t tmpfs sub /tmp/hullbox-sub/below && echo sub >/tmp/hullbox-sub/below/name";
    if on_the_machine("test -w /tmp").code != 0
        || std::env::var("HULLBOX_MACHINE").as_deref() != Ok("never")
    {
        eprintln!("skipped: the containers' host is not this one");
        return;
    }
    let _ = on_the_machine(setup).exits(0);
    let flags = |options: &str| format!("type=bind,src=/tmp/hullbox-sub,dst=/x{options}");
    let look = "cat /x/below/name; touch /x/below/new 2>/dev/null && echo written";
    let said = |options: &str| sh(mode, &["--mount", &flags(options)], look).text();
    let all = [
        said(""),
        said(",ro"),
        said(",ro,bind-recursive=writable"),
        said(",ro,bind-recursive=readonly,bind-propagation=rprivate"),
        said(",bind-recursive=disabled"),
    ];
    let _ = on_the_machine("umount /tmp/hullbox-sub/below; rm -rf /tmp/hullbox-sub").exits(0);
    assert_eq!(all[..4], ["sub\nwritten", "sub", "sub\nwritten", "sub"]);
    assert!(!all[4].contains("sub"), "{}", all[4]);
}

both_modes! {
    fn what_is_outside_is_not_in_a_snapshot(mode) {
        if mode == hullbox_tests::Mode::Vm {
            let volume = Named::free("snap", mode);
            let box_ = Kept::new("snap-mount", mode);
            box_.run(&["-v", &volume.at("/x"), "busybox", "sleep", "1000"]);
            hullbox(["snapshot", "create", &box_.name, "snap-mount"])
                .fails_saying("files from outside (at /x), which a snapshot cannot hold");
        }
    }
}
