//! What is refused, before anything is made.

use super::{sh, volumes};
use hullbox_tests::{both_modes, hullbox};

both_modes! {
    fn what_docker_refuses_makes_nothing(mode) {
        let before = (volumes("name=."), hullbox(["ps", "-aq"]).exits(0).text());
        for (flags, part) in [
            (vec!["-v", "/a:/b:ro:x"], "invalid spec: /a:/b:ro:x: too many colons"),
            (vec!["-v", "new-vol:/b:rx"], "invalid mode: rx"),
            (vec!["-v", "/a:/"], "destination can't be '/'"),
            (vec!["-v", "new-vol:b"], "mount path must be absolute"),
            (vec!["-v", "a?b:/b"], "includes invalid characters for a local volume name"),
            (vec!["-v", ":/b"], "empty section between colons"),
            (vec!["--mount", "x"], "invalid field 'x' must be a key=value pair"),
            (vec!["--mount", "type=volume"], "target is required"),
            (vec!["--mount", "type=bind,src=/etc,dst=/b,volume-nocopy"], "cannot mix 'volume-*' options with mount type 'bind'"),
            (vec!["--mount", "foo=bar,dst=/b"], "unexpected key 'foo' in 'foo=bar'"),
            (vec!["--volumes-from", "x:y"], "invalid mode: y"),
            (vec!["--tmpfs", "/b:nonsense"], "invalid tmpfs option \"nonsense\""),
        ] {
            let done = sh(mode, &flags, "true");
            let code = done.code;
            done.refuses_flags_saying(part);
            assert_eq!(code, 125);
        }
        for (flags, part) in [
            (vec!["-v", "new-vol:/b", "-v", "other-vol:/b/"], "Duplicate mount point: /b"),
            (vec!["-v", "new-vol:/b", "--tmpfs", "/b"], "Duplicate mount point: /b"),
            (vec!["-v", "new-vol:/proc/x"], "inside /proc"),
            (vec!["-v", "new-vol:/b", "--mount", "type=bind,src=/no/such/path,dst=/c"], "bind source path does not exist: /no/such/path"),
            (vec!["--mount", "src=new-vol,dst=/b,volume-driver=nfs"], "plugin \"nfs\" not found"),
            (vec!["--mount", "src=new-vol,dst=/b,volume-opt=x=y"], "invalid option: \"x\""),
        ] {
            sh(mode, &flags, "true").fails_saying(part);
        }
        let after = (volumes("name=."), hullbox(["ps", "-aq"]).exits(0).text());
        assert_eq!(before, after);
    }
}

both_modes! {
    fn memory_is_mounted_as_docker_mounts_it(mode) {
        let mount = "type=tmpfs,dst=/t,tmpfs-size=2m,tmpfs-mode=1770";
        let script = "stat -c %a /t; grep ' /t ' /proc/mounts | tr ',' '\\n' | grep -E '^(size|noexec|nosuid|nodev)' | sort | tr '\\n' ' '";
        let said = sh(mode, &["--mount", mount], script).exits(0).text();
        assert!(said.starts_with("1770\n") && said.contains("size=2048k"), "{said}");
        let script = "touch /t/x 2>/dev/null || echo read-only; cp /bin/busybox /u/true && /u/true && echo exec";
        let said = sh(mode, &["--mount", "type=tmpfs,dst=/t,ro", "--tmpfs", "/u:exec,size=8m"], script);
        assert_eq!(said.exits(0).text(), "read-only\nexec");
    }
}
