//! What an empty volume gets of the image, and what commands on a container's files make of mounts.

use super::{Host, Image, Named, sh};
use crate::life::Kept;
use hullbox_tests::{Mode, both_modes, hullbox, run};

/// Everything that there is to see of the image's directory.
const LOOK: &str = "cd $D; stat -c %u:%g:%a .; stat -c '%n %u:%g:%a:%h' file; cat link; readlink link; \
     stat -c %s holes; [ $(stat -c %b holes) -lt 2048 ] && echo sparse; ls -A";
const SEEN: &str =
    "70:71:1750\nfile 70:71:640:2\nimage\nfile\n67108864\nsparse\ndir\nempty\nfile\nholes\nlink";

fn look(mode: Mode, image: &Image, flags: &[&str], at: &str) -> String {
    let mut args = vec!["-m", "128m"];
    args.extend(flags);
    let script = format!("D={at}; {LOOK}");
    args.extend([image.0.as_str(), "sh", "-c", &script]);
    run(mode, args).exits(0).text()
}

both_modes! {
    fn an_empty_volume_gets_what_the_image_has_there(mode) {
        let image = Image::new("copy", mode);
        // The image's own volume, one that somebody named, one of --mount.
        assert_eq!(look(mode, &image, &[], "/data"), SEEN);
        let named = Named::free("copy", mode);
        assert_eq!(look(mode, &image, &["-v", &named.at("/data")], "/data"), SEEN);
        let other = Named::free("copy-mount", mode);
        let mount = format!("src={},dst=/data,ro", other.0);
        assert_eq!(look(mode, &image, &["--mount", &mount], "/data"), SEEN);
        // What is there stays as it is.
        let _ = sh(mode, &["-v", &named.at("/x")], "rm -rf /x/*; touch /x/.mine; chmod 755 /x").exits(0);
        let again = run(mode, ["-m", "128m", "-v", &named.at("/data"), &image.0, "sh", "-c", "ls -A /data; stat -c %a /data"]);
        assert_eq!(again.exits(0).text(), ".mine\n755");
    }
}

both_modes! {
    fn nothing_is_copied_where_it_is_not_wanted(mode) {
        let image = Image::new("nocopy", mode);
        let list = |flags: &[&str]| {
            let mut args = vec!["-m", "128m"];
            args.extend(flags);
            args.extend([image.0.as_str(), "sh", "-c", "ls -A /data; stat -c %u /data"]);
            run(mode, args).exits(0).text()
        };
        let named = Named::free("nocopy", mode);
        assert_eq!(list(&["-v", &named.at("/data:nocopy")]), "0");
        assert_eq!(list(&["--mount", &format!("src={},dst=/data,volume-nocopy", named.0)]), "0");
        let host = Host::new("nocopy", mode);
        assert_eq!(list(&["-v", &format!("{}:/data", host.0.display())]), "0");
        assert_eq!(list(&["--tmpfs", "/data:mode=700"]), "0");
        // Where the image has nothing there is nothing to copy.
        let other = Named::free("nocopy-new", mode);
        assert_eq!(sh(mode, &["-v", &other.at("/new/place")], "ls -A /new/place").exits(0).text(), "");
    }
}

both_modes! {
    fn a_part_of_a_volume_is_that_part(mode) {
        let volume = Named::free("part", mode);
        let _ = sh(mode, &["-v", &volume.at("/x")], "mkdir -p /x/a/b; echo part >/x/a/b/f; ln -s /etc /x/out; ln -s a/b /x/in; ln -s ../../.. /x/up").exits(0);
        let mount = |part: &str| format!("src={},dst=/y,volume-subpath={part}", volume.0);
        for part in ["a/b", "in", "a/./b"] {
            assert_eq!(sh(mode, &["--mount", &mount(part)], "cat /y/f").exits(0).text(), "part", "{part}");
        }
        assert_eq!(sh(mode, &["--mount", &mount("a/b/f")], "cat /y").exits(0).text(), "part");
        // Links of whoever has the volume lead nowhere else.
        for part in ["out", "up", "none"] {
            sh(mode, &["--mount", &mount(part)], "ls /y").fails_saying(part);
        }
    }
}

both_modes! {
    fn copies_reach_volumes_whether_it_runs_or_not(mode) {
        let host = Host::new("cp", mode);
        let file = host.write("file", "copied\n");
        let _ = host.write("bound/x", "");
        let volume = Named::free("cp", mode);
        let box_ = Kept::new("cp-volume", mode);
        let bind = format!("{}:/b", host.path("bound"));
        let _ = box_.make(&["create"], &["-v", &volume.at("/v"), "-v", &bind, "busybox", "sleep", "1000"]).exits(0);
        // Not yet.
        let _ = hullbox(["cp", &file, &format!("{}:/v/first", box_.name)]).exits(0);
        let _ = hullbox(["start", &box_.name]).exits(0);
        let _ = hullbox(["cp", &file, &format!("{}:/v/second", box_.name)]).exits(0);
        let _ = hullbox(["cp", &file, &format!("{}:/b/third", box_.name)]).exits(0);
        assert_eq!(box_.exec(&["cat", "/v/first", "/v/second"]).exits(0).text(), "copied\ncopied");
        assert_eq!(host.read("bound/third"), "copied\n");
        let _ = hullbox(["stop", "-t", "0", &box_.name]).exits(0);
        let _ = hullbox(["cp", &format!("{}:/v/second", box_.name), &host.path("out")]).exits(0);
        assert_eq!(host.read("out"), "copied\n");
        let said = sh(mode, &["-v", &volume.at("/v")], "cat /v/first /v/second").exits(0);
        assert_eq!(said.text(), "copied\ncopied");
    }
}

both_modes! {
    fn what_is_made_of_a_container_leaves_mounts_out(mode) {
        let host = Host::new("export", mode);
        let _ = host.write("secret", "");
        let volume = Named::free("export", mode);
        let box_ = Kept::new("export-volume", mode);
        let bind = format!("{}:/b", host.0.display());
        box_.run(&["-v", &volume.at("/v"), "-v", &bind, "busybox", "sleep", "1000"]);
        let _ = box_.exec(&["sh", "-c", "touch /v/inside /own"]).exits(0);
        for round in ["running", "stopped"] {
            let diff = hullbox(["diff", &box_.name]).exits(0).text();
            let lines: Vec<&str> = diff.lines().collect();
            assert!(lines.contains(&"A /own"), "{round}: {diff}");
            assert!(!diff.contains("inside") && !diff.contains("secret"), "{round}: {diff}");
            let tar = hullbox(["export", &box_.name]).exits(0).stdout;
            let names = String::from_utf8_lossy(&tar).into_owned();
            assert!(names.contains("own") && !names.contains("v/inside") && !names.contains("b/secret"), "{round}");
            let tag = format!("no-mounts-{round}:1");
            let _ = hullbox(["commit", &box_.name, &tag]).exits(0);
            let list = run(mode, ["-m", "128m", &tag, "sh", "-c", "ls -A /v /b; ls /own"]);
            assert_eq!(list.exits(0).text(), "/b:\n\n/v:\n/own", "{round}");
            let _ = hullbox(["rmi", &tag]).exits(0);
            let _ = hullbox(["stop", "-t", "0", &box_.name]).exits(0);
        }
    }
}

both_modes! {
    fn inspect_is_dockers(mode) {
        let host = Host::new("inspect", mode);
        let volume = Named::free("inspect", mode);
        let box_ = Kept::new("inspect-mounts", mode);
        let bind = format!("{}:/b:ro", host.0.display());
        let mount = "type=tmpfs,dst=/t,tmpfs-size=1m";
        let _ = box_
            .make(&["create"], &["-v", &volume.at("/v"), "-v", &bind, "-v", "/a", "--mount", mount, "--tmpfs", "/u:size=1m", "busybox", "true"])
            .exits(0);
        let one = |place: &str, fields: &str| {
            box_.inspect(&format!("{{{{range .Mounts}}}}{{{{if eq .Destination \"{place}\"}}}}{fields}{{{{end}}}}{{{{end}}}}"))
        };
        let fields = "{{.Type}} {{.Mode}} {{.RW}} {{.Propagation}}";
        assert_eq!(one("/b", fields), "bind ro false rprivate");
        assert_eq!(one("/b", "{{.Source}}"), host.0.display().to_string());
        assert_eq!(one("/v", "{{.Name}} {{.Driver}} {{.Mode}} {{.RW}}"), format!("{} local z true", volume.0));
        assert!(one("/v", "{{.Source}}").ends_with(&format!("/volumes/{}/_data", volume.0)));
        assert_eq!(one("/a", "{{.Driver}} {{.Mode}}"), "local ");
        assert_eq!(one("/t", fields), "tmpfs  true ");
        let binds = box_.inspect("{{json .HostConfig.Binds}}");
        assert_eq!(binds, format!(r#"["{}:/v","{bind}"]"#, volume.0));
        assert_eq!(box_.inspect("{{json .HostConfig.Tmpfs}}"), r#"{"/u":"size=1m"}"#);
        assert_eq!(
            box_.inspect("{{json .HostConfig.Mounts}}"),
            r#"[{"Target":"/t","TmpfsOptions":{"SizeBytes":1048576},"Type":"tmpfs"}]"#
        );
        assert_eq!(box_.inspect("{{json .Config.Volumes}}"), r#"{"/a":{}}"#);
    }
}
