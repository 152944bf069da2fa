//! Volumes: made, listed, shown, used, kept and removed.

use super::{Host, Image, Named, sh, volumes};
use crate::life::Kept;
use hullbox_tests::{both_modes, hullbox};

#[test]
#[ignore = "needs the built program: make test"]
fn a_volume_is_made_shown_filtered_and_removed() {
    for name in ["made-a", "made-b"] {
        let _ = hullbox(["volume", "rm", "-f", name]);
    }
    let made = hullbox([
        "volume", "create", "--label", "k=v", "--label", "w", "made-a",
    ]);
    assert_eq!(made.exits(0).text(), "made-a");
    // Again is as good.
    assert_eq!(
        hullbox(["volume", "create", "made-a"]).exits(0).text(),
        "made-a"
    );
    let shown = hullbox(["volume", "inspect", "made-a"]).exits(0).text();
    assert!(
        shown.starts_with("[\n    {\n        \"CreatedAt\": \"20"),
        "{shown}"
    );
    let parts = "{{.Driver}} {{.Scope}} {{.Name}} {{json .Labels}} {{json .Options}}";
    for by in [
        vec!["volume", "inspect"],
        vec!["inspect"],
        vec!["inspect", "--type", "volume"],
    ] {
        let mut args = by.clone();
        args.extend(["-f", parts, "made-a"]);
        let wanted = r#"local local made-a {"k":"v","w":""} null"#;
        assert_eq!(hullbox(args).exits(0).text(), wanted, "{by:?}");
    }
    let place = hullbox(["volume", "inspect", "-f", "{{.Mountpoint}}", "made-a"]);
    assert!(place.exits(0).text().ends_with("/volumes/made-a/_data"));
    let _ = hullbox(["volume", "create", "made-b"]).exits(0);
    for (filter, wanted) in [
        ("name=made-", vec!["made-a", "made-b"]),
        ("name=^made-a$", vec!["made-a"]),
        ("label=k", vec!["made-a"]),
        ("label=k=other", vec![]),
    ] {
        assert_eq!(volumes(filter), wanted, "{filter}");
    }
    let both = [
        "volume",
        "ls",
        "--filter",
        "label=k=v",
        "--filter",
        "label=w",
        "--filter",
        "driver=local",
        "--filter",
        "dangling=true",
    ];
    let listed = hullbox(both).exits(0).text();
    let lines: Vec<Vec<&str>> = listed
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines,
        [vec!["DRIVER", "VOLUME", "NAME"], vec!["local", "made-a"]]
    );
    let json = hullbox([
        "volume",
        "ls",
        "--filter",
        "name=made-b",
        "--format",
        "json",
    ])
    .exits(0)
    .text();
    assert!(
        json.contains(r#""Name":"made-b","Scope":"local","Size":"N/A""#),
        "{json}"
    );
    let gone = hullbox(["volume", "rm", "made-a", "made-b", "made-none"]);
    assert_eq!(gone.text(), "made-a\nmade-b");
    gone.fails_saying("made-none: no such volume");
    let _ = hullbox(["volume", "rm", "-f", "made-a"]).exits(0);
    hullbox(["volume", "inspect", "made-a"]).fails_saying("get made-a: no such volume");
}

#[test]
#[ignore = "needs the built program: make test"]
fn what_makes_no_volume_is_refused() {
    for (args, part) in [
        (
            vec!["a/b"],
            "includes invalid characters for a local volume name",
        ),
        (vec!["x"], "volume name is too short"),
        (vec!["-d", "nfs", "odd"], "plugin \"nfs\" not found"),
        (vec!["-o", "foo=bar", "odd"], "invalid option: \"foo\""),
        (
            vec!["-o", "type=tmpfs", "odd"],
            "missing required option: \"device\"",
        ),
        (vec!["-o", "size=1m", "odd"], "no quota support"),
        (
            vec!["-o", "type=ext4", "odd"],
            "missing required option: \"size\"",
        ),
        (vec!["-o", "type=ext4", "-o", "size=1t", "odd"], "1m to 16g"),
    ] {
        let mut all = vec!["volume", "create"];
        all.extend(args);
        hullbox(all).fails_saying(part);
    }
    assert!(volumes("name=^odd$").is_empty());
}

both_modes! {
    fn a_volume_outlives_its_containers(mode) {
        let volume = Named::free("outlives", mode);
        let _ = sh(mode, &["-v", &volume.at("/x")], "echo kept >/x/f; chown 999:998 /x/f; chmod 600 /x/f").exits(0);
        // Made with it, and not gone with it.
        assert_eq!(volume.inspect("{{.Name}}").exits(0).text(), volume.0);
        let mount = format!("source={},target=/y,readonly", volume.0);
        let script = "cat /y/f; stat -c %u:%g:%a /y/f; touch /y/g 2>/dev/null || echo read-only";
        let said = sh(mode, &["--mount", &mount], script).exits(0).text();
        assert_eq!(said, "kept\n999:998:600\nread-only");
    }
}

both_modes! {
    fn two_containers_share_a_volume(mode) {
        let volume = Named::free("shared", mode);
        let one = Kept::new("share-one", mode);
        let two = Kept::new("share-two", mode);
        one.run(&["-v", &volume.at("/x"), "busybox", "sleep", "1000"]);
        two.run(&["-v", &volume.at("/y"), "busybox", "sleep", "1000"]);
        let _ = one.exec(&["sh", "-c", "echo hello >/x/f"]).exits(0);
        assert_eq!(two.exec(&["cat", "/y/f"]).exits(0).text(), "hello");
    }
}

both_modes! {
    fn what_a_container_has_is_not_removed(mode) {
        let volume = Named::free("in-use", mode);
        let box_ = Kept::new("in-use", mode);
        let id = box_.make(&["create"], &["-v", &volume.at("/x"), "busybox", "true"]).exits(0).text();
        hullbox(["volume", "rm", &volume.0])
            .fails_saying(&format!("remove {}: volume is in use - [{id}]", volume.0));
        hullbox(["volume", "rm", "-f", &volume.0]).fails_saying("volume is in use");
        assert!(volumes("dangling=false").contains(&volume.0));
        let listed = hullbox(["ps", "-aq", "--no-trunc", "--filter", &format!("volume={}", volume.0)]);
        assert_eq!(listed.exits(0).text(), id);
        let by_place = hullbox(["ps", "-aq", "--no-trunc", "--filter", "volume=/x", "--filter", "name=in-use"]);
        assert_eq!(by_place.exits(0).text(), id);
        let shown = hullbox(["ps", "-a", "--no-trunc", "--format", "{{.Mounts}} {{.LocalVolumes}}", "--filter", &format!("id={id}")]);
        assert_eq!(shown.exits(0).text(), format!("{} 1", volume.0));
        let _ = hullbox(["rm", "-v", &box_.name]).exits(0);
        let _ = hullbox(["volume", "rm", &volume.0]).exits(0);
    }
}

both_modes! {
    fn what_nobody_named_goes_with_its_container(mode) {
        let before = volumes("name=.");
        // With --rm.
        let _ = sh(mode, &["-v", "/anonymous"], "echo x >/anonymous/f").exits(0);
        assert_eq!(volumes("name=."), before);
        // By `rm -v`, and not without.
        let box_ = Kept::new("anonymous", mode);
        let _ = box_.make(&["run"], &["-v", "/anonymous", "busybox", "touch", "/anonymous/f"]).exits(0);
        let name = box_.inspect("{{range .Mounts}}{{.Name}}{{end}}");
        assert_eq!(name.len(), 64, "{name}");
        assert!(volumes("name=.").contains(&name));
        let _ = hullbox(["start", "-a", &box_.name]).exits(0);
        assert_eq!(box_.inspect("{{range .Mounts}}{{.Name}}{{end}}"), name);
        let _ = hullbox(["rm", &box_.name]).exits(0);
        assert!(volumes("dangling=true").contains(&name));
        let label = hullbox(["volume", "inspect", "-f", "{{json .Labels}}", &name]);
        assert_eq!(label.exits(0).text(), r#"{"com.docker.volume.anonymous":""}"#);
        let _ = hullbox(["volume", "rm", &name]).exits(0);
        let _ = box_.make(&["create"], &["-v", "/anonymous", "busybox", "true"]).exits(0);
        let name = box_.inspect("{{range .Mounts}}{{.Name}}{{end}}");
        let _ = hullbox(["rm", "-v", &box_.name]).exits(0);
        assert!(!volumes("name=.").contains(&name));
    }
}

both_modes! {
    fn mounts_of_another_container_are_had(mode) {
        let host = Host::new("from", mode);
        let _ = host.write("file", "bound\n");
        let image = Image::new("from", mode);
        let volume = Named::free("from", mode);
        let data = Kept::new("from-data", mode);
        let bind = format!("{}:/b", host.0.display());
        let _ = data
            .make(&["create"], &["-v", &volume.at("/v"), "-v", &bind, &image.0, "true"])
            .exits(0);
        let script = "cat /b/file; ls -A /data | wc -l; touch /v/x 2>/dev/null && echo written";
        let first = sh(mode, &["--volumes-from", &data.name, "--tmpfs", "/other"], script);
        // Its own volume was not filled yet, and is not from somebody else's image.
        assert_eq!(first.exits(0).text(), "bound\n0\nwritten");
        let from = format!("{}:ro", data.name);
        let read_only = sh(mode, &["--volumes-from", &from], script).text();
        assert_eq!(read_only, "bound\n0");
        // Over that, what is typed.
        let over = sh(mode, &["--volumes-from", &data.name, "-v", "/b"], "ls /b | wc -l").exits(0);
        assert_eq!(over.text(), "1");
        let over = sh(mode, &["--volumes-from", &data.name, "--tmpfs", "/b"], "ls /b | wc -l").exits(0);
        assert_eq!(over.text(), "0");
        sh(mode, &["--volumes-from", "no-such-box"], "true").fails_saying("no such container: no-such-box");
    }
}

both_modes! {
    fn volumes_are_pruned_counted_and_told_of(mode) {
        let volume = Named::free("prune", mode);
        let box_ = Kept::new("prune-volumes", mode);
        let _ = box_.make(&["run"], &["-v", &volume.at("/x"), "-v", "/y", "busybox", "sh", "-c", "dd if=/dev/zero of=/x/f bs=1M count=3 2>/dev/null"]).exits(0);
        let anonymous = box_.inspect("{{range .Mounts}}{{if eq .Destination \"/y\"}}{{.Name}}{{end}}{{end}}");
        let df = hullbox(["system", "df", "-v"]).exits(0).text();
        let row = df.lines().find(|line| line.starts_with(&volume.0)).unwrap_or_default().to_owned();
        let row: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(row[1], "1", "{df}");
        assert!(row[2].starts_with("3.1") && row[2].ends_with("MB"), "{df}");
        let table = hullbox(["system", "df", "--format", "{{.Type}} {{.Active}}"]).exits(0).text();
        assert!(table.contains("Local Volumes "), "{table}");
        let _ = hullbox(["system", "check", "--quick"]).exits(0);
        let _ = hullbox(["rm", &box_.name]).exits(0);
        // Those with a name stay, unless all are to go.
        let pruned = hullbox(["volume", "prune", "-f"]).exits(0).text();
        assert!(pruned.starts_with("Deleted Volumes:\n") && pruned.contains(&anonymous), "{pruned}");
        assert!(!pruned.contains(&volume.0), "{pruned}");
        let _ = hullbox(["volume", "prune", "-f", "--filter", "label=none", "-a"]).exits(0);
        assert_eq!(volumes(&format!("name=^{}$", volume.0)), [volume.0.as_str()]);
        let pruned = hullbox(["volume", "prune", "-af"]).exits(0).text();
        assert!(pruned.contains(&volume.0) && pruned.contains("Total reclaimed space: 3.1"), "{pruned}");
        let events = hullbox([
            "events", "--since", "10m", "--until", "0s", "--filter",
            &format!("volume={}", volume.0), "--format", "{{.Action}}",
        ]);
        let events = events.exits(0).text();
        let all: Vec<&str> = events.lines().collect();
        assert_eq!(all[all.len() - 4..], ["create", "mount", "unmount", "destroy"], "{events}");
    }
}

both_modes! {
    fn an_options_volume_is_what_its_options_say(mode) {
        let host = Host::new("options", mode);
        let _ = host.write("file", "bound\n");
        let volume = Named::free("options", mode);
        let device = format!("device={}", host.0.display());
        let _ = hullbox(["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, &volume.0]).exits(0);
        let said = sh(mode, &["-v", &volume.at("/x")], "cat /x/file; echo more >/x/more").exits(0);
        assert_eq!(said.text(), "bound");
        assert_eq!(host.read("more"), "more\n");
        hullbox(["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", &volume.0])
            .fails_saying("exists with other options");
        let _ = hullbox(["volume", "rm", &volume.0]).exits(0);
        assert_eq!(host.read("file"), "bound\n");
        // Memory, as long as a container has it.
        let _ = hullbox(["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,mode=700", &volume.0]).exits(0);
        let script = "stat -f -c %T /x; stat -c %a /x; ls /x; touch /x/f; dd if=/dev/zero of=/x/big bs=1M count=2 2>/dev/null || echo full";
        let wanted = if mode == hullbox_tests::Mode::Container { "tmpfs\n700\nfull" } else { "700\nfull" };
        for _ in 0..2 {
            let said = sh(mode, &["-v", &volume.at("/x:nocopy")], script).exits(0).text();
            assert!(said.ends_with(wanted), "{said}");
        }
    }
}

both_modes! {
    fn a_disk_of_its_own_is_for_microvms(mode) {
        let volume = Named::free("disk", mode);
        let _ = hullbox(["volume", "create", "-o", "type=ext4", "-o", "size=64m", &volume.0]).exits(0);
        if mode == hullbox_tests::Mode::Container {
            sh(mode, &["-v", &volume.at("/x")], "true").fails_saying("has a disk of its own, which microVMs alone can use");
            let _ = hullbox(["volume", "update", "--opt", "size=128m", &volume.0]).exits(0);
            assert_eq!(volume.inspect("{{.Options.size}}").exits(0).text(), "128m");
            hullbox(["volume", "update", "--opt", "size=1m", &volume.0]).fails_saying("cannot be made smaller");
            hullbox(["volume", "update", "--opt", "type=tmpfs", &volume.0]).fails_saying("cannot be changed");
        } else {
            let _ = sh(mode, &["-v", &volume.at("/x")], "echo kept >/x/f; ls -A /x; stat -f -c %T /x").exits(0);
            let _ = hullbox(["volume", "update", "--opt", "size=256m", &volume.0]).exits(0);
            let script = "cat /x/f; df -m /x | tail -1 | awk '{print ($2 > 200)}'";
            assert_eq!(sh(mode, &["-v", &volume.at("/x")], script).exits(0).text(), "kept\n1");
        }
    }
}
