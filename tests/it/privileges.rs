//! What a container may do to the kernel it runs on: nothing, everything, and what was asked for.

use hullbox_tests::{Done, Mode, both_modes, hullbox, run};

fn script(mode: Mode, flags: &[&str], script: &str) -> Done {
    let mut args = flags.to_vec();
    args.extend(["-m", "160m", "busybox", "sh", "-c", script]);
    run(mode, args)
}

both_modes! {
    fn the_kernels_own_files_are_read_only_and_masked(mode) {
        // Root meets what it meets in Docker: a read-only file system. Not every kernel has every file.
        let text = script(mode, &[], "
            for file in /proc/sys/kernel/core_pattern /proc/sys/vm/swappiness /proc/sysrq-trigger /proc/sys/net/ipv4/ip_forward; do
                [ ! -e $file ] || (: >$file) 2>&1 | grep -q 'Read-only file system' || echo \"wrote $file\"
            done
            for path in /proc/sys /proc/sysrq-trigger /proc/irq /proc/bus /proc/fs; do
                [ ! -e $path ] || grep -q \" $path [^ ]* ro[, ]\" /proc/mounts || echo \"writable $path\"
            done
            cat /proc/keys /proc/timer_list /proc/interrupts; ls /sys/firmware
            (echo 1 >/sys/kernel/mm/transparent_hugepage/enabled) 2>/dev/null && echo wrote sys
            mkdir /sys/fs/cgroup/x 2>/dev/null && echo made a group
            grep '^Seccomp:' /proc/self/status").exits(0).text();
        assert_eq!(text, "Seccomp:\t2");
    }
}

both_modes! {
    fn a_container_uses_no_devices_but_its_own(mode) {
        let text = script(mode, &[], "
            mknod /kmsg c 1 11 && (: </kmsg) 2>/dev/null && echo kmsg
            mknod /disk b 254 0 && (: </disk) 2>/dev/null && echo disk
            mknod /loop c 10 237 && (: </loop) 2>/dev/null && echo loop
            mknod /mine c 1 3 && : >/mine && echo null").exits(0).text();
        assert_eq!(text, "null");
    }
}

both_modes! {
    fn a_device_may_be_used_as_it_was_given(mode) {
        let devices = ["--device", "/dev/fuse:/dev/mine", "--device", "/dev/zero:/dir/zero:r"];
        let text = script(mode, &devices, "
            : <>/dev/mine && echo fuse
            stat -c '%F %t:%T' /dev/mine /dir/zero
            head -c 2 /dir/zero | wc -c").exits(0).text();
        let special = "character special file";
        assert_eq!(text, format!("fuse\n{special} a:e5\n{special} 1:5\n2"));
        let rule = ["--device-cgroup-rule", "c 10:237 r"];
        let text = script(mode, &rule, "
            mknod /loops c 10 237 && : </loops && echo reads
            (: >/loops) 2>/dev/null && echo writes; true").exits(0).text();
        assert_eq!(text, "reads");
        script(mode, &["--device", "/dev/no-such"], "true").fails_saying("/dev/no-such");
        script(mode, &["--device", "relative"], "true").refuses_flags_saying("--device");
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_microvm_is_given_none_of_the_hosts_devices() {
    let why = "virtualization is hidden from it";
    script(Mode::Vm, &["--device", "/dev/kvm"], "true").fails_saying(why);
    let disk = "devices of this host stay with it";
    script(Mode::Vm, &["--device", "/dev/vda"], "true").fails_saying(disk);
    let loops = ["--device", "/dev/loop-control", "--device", "/dev/loop0"];
    let text = script(
        Mode::Vm,
        &loops,
        ": </dev/loop-control && [ -b /dev/loop0 ] && echo loops",
    );
    assert_eq!(text.exits(0).text(), "loops");
}

/// A user namespace comes with a /proc in which nothing is covered. Root, whom the kernel takes for the
/// owner of its parameters in any namespace, can do nothing with it that it could not do before.
#[test]
#[ignore = "needs the built program: make test"]
fn a_fresh_proc_gives_root_of_a_microvm_no_parameters() {
    let inner = "
        for file in /proc/sys/kernel/core_pattern /proc/sys/vm/swappiness /proc/sys/kernel/sysrq; do
            old=$(cat $file); (echo 1 >$file) 2>/dev/null && echo \"wrote $file\"
            [ \"$old\" = \"$(cat $file)\" ] || echo \"changed $file\"
        done
        (echo h >/proc/sysrq-trigger) 2>/dev/null && echo triggered
        cat /proc/self/stat | cut -d ' ' -f 1";
    for user in ["0", "1000:1000"] {
        let mut args = vec!["-u", user, "-m", "160m", "busybox"];
        args.extend(["unshare", "-Urpf", "--mount-proc", "sh", "-c", inner]);
        let text = run(Mode::Vm, args).exits(0).text();
        assert_eq!(text.lines().count(), 1, "{user}: {text}");
    }
}

both_modes! {
    /// Docker's words and podman's, seen from inside.
    fn security_options_do_what_they_say(mode) {
        let seen = |option: &str, text: &str| script(mode, &["--security-opt", option], text).exits(0).text();
        let writable = "echo $(grep -c ' /proc/sys ' /proc/mounts) $(head -n 1 /proc/interrupts | wc -l)";
        for option in ["systempaths=unconfined", "unmask=ALL", "unmask=/proc/sys:/proc/interrupts"] {
            assert_eq!(seen(option, writable), "0 1", "{option}");
        }
        assert_eq!(seen("mask=/proc/version:/home", "cat /proc/version; ls /home | wc -l"), "0");
        let status = "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status";
        assert_eq!(seen("seccomp=unconfined", status), "NoNewPrivs:\t0\nSeccomp:\t0");
        assert_eq!(seen("no-new-privileges", status), "NoNewPrivs:\t1\nSeccomp:\t2");
        for nothing in ["apparmor=unconfined", "label=disable", "seccomp=builtin"] {
            assert_eq!(seen(nothing, status), "NoNewPrivs:\t0\nSeccomp:\t2", "{nothing}");
        }
        for bad in ["apparmor=docker-default", "label=nonsense", "frobnicate", "mask=relative"] {
            script(mode, &["--security-opt", bad], "true").refuses_flags_saying("--security-opt");
        }
    }
}

both_modes! {
    fn a_seccomp_profile_is_read_from_a_file(mode) {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("profile.json");
        let option = format!("seccomp={}", file.display());
        let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}"#;
        std::fs::write(&file, profile).expect("a file");
        let done = script(mode, &["--privileged", "--security-opt", &option], "mkdir /x");
        assert_eq!(done.code, 1, "{done:?}");
        assert!(done.stderr.contains("not supported"), "{done:?}");
        std::fs::write(&file, "{}").expect("a file");
        script(mode, &["--security-opt", &option], "true").fails_saying("is invalid");
        script(mode, &["--security-opt", "seccomp=/no/such"], "true").fails_saying("/no/such");
    }
}

both_modes! {
    fn a_privileged_container_has_everything_of_its_kernel(mode) {
        let text = script(mode, &["--privileged"], "
            grep -E '^(CapEff|CapBnd|Seccomp):' /proc/self/status
            value=$(cat /proc/sys/kernel/panic); echo $value >/proc/sys/kernel/panic && echo parameters
            mkdir /sys/fs/cgroup/x && rmdir /sys/fs/cgroup/x && echo groups
            grep -q ' /sys sysfs rw' /proc/mounts && echo sysfs
            mount -t tmpfs x /mnt 2>/dev/null || { mkdir /mnt; mount -t tmpfs x /mnt; } && echo mounts
            grep -c -E ' /proc/(sys|keys|irq)' /proc/mounts
            : <>/dev/fuse && : </dev/loop-control && echo devices
            mknod /node c 1 11 && : </node && echo nodes").exits(0).text();
        let (status, rest) = text.split_once("parameters").expect(&text);
        assert!(status.contains("Seccomp:\t0"), "{text}");
        for set in ["CapEff:\t000001f", "CapBnd:\t000001f"] {
            assert!(status.contains(set), "{set}: {text}");
        }
        assert_eq!(rest, "\ngroups\nsysfs\nmounts\n0\ndevices\nnodes");
    }
}

both_modes! {
    fn inspect_tells_what_a_container_was_given(mode) {
        let name = format!("given-{}", if mode == Mode::Vm { "vm" } else { "ns" });
        let create = |flags: &[&str]| {
            let _ = hullbox(["rm", "-f", &name]);
            let mut args = vec!["create", "--name", &name, mode.flag()];
            args.extend(flags);
            args.push("busybox");
            let _ = hullbox(args).exits(0);
        };
        let inspect = |format: &str| hullbox(["inspect", "--format", format, &name]).exits(0).text();
        create(&["--privileged"]);
        let format = "{{.HostConfig.Privileged}} {{.HostConfig.MaskedPaths}} {{json .HostConfig.CapAdd}}";
        assert_eq!(inspect(format), "true [] null");
        create(&["--device", "/dev/fuse:/dev/mine:rw", "--device-cgroup-rule", "c 10:200 r",
            "--security-opt", "label=disable", "--security-opt", "mask=/etc/passwd", "--cgroupns", "host"]);
        let format = "{{.HostConfig.Privileged}}{{range .HostConfig.Devices}} {{.PathOnHost}} {{.PathInContainer}} \
                      {{.CgroupPermissions}}{{end}} {{.HostConfig.DeviceCgroupRules}} \
                      {{.HostConfig.SecurityOpt}} {{.HostConfig.CgroupnsMode}}";
        assert_eq!(inspect(format),
            "false /dev/fuse /dev/mine rw [c 10:200 r] [label=disable mask=/etc/passwd] host");
        let _ = hullbox(["rm", "-f", &name]).exits(0);
    }
}
