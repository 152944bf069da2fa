//! The main job: one image, both walls, the same meaning.

use hullbox_tests::{Mode, both_modes, hullbox, on_the_machine, run, run_with_input};

// The codes that podman gives too are in `reference`.
both_modes! {
    fn exit_codes_are_those_of_docker_run(mode) {
        for (args, code) in [
            (vec!["busybox", "/bin/bad-elf"], 126),
            (vec!["busybox", "/no/such/program"], 127),
            (vec!["--user", "nosuchuser", "busybox", "true"], 125),
        ] {
            let done = run(mode, &args);
            assert_eq!(done.code, code, "{args:?}: {}", done.stderr);
        }
    }
}

both_modes! {
    fn the_kernel_is_the_guests_own_or_the_hosts(mode) {
        let inside = run(mode, ["busybox", "uname", "-r"]).exits(0).text();
        let machine = on_the_machine("uname -r").exits(0).text();
        match mode {
            Mode::Vm => assert!(inside != machine && inside.contains("hullbox"), "{inside}"),
            Mode::Container => assert_eq!(inside, machine),
        }
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn both_walls_show_the_same_bytes() {
    let script = "find /bin /etc/passwd /etc/group /app /usr /lib /lib64 /home -xdev -type f -exec sha256sum {} + | sort -k2 | sha256sum";
    let sums: Vec<_> = [Mode::Vm, Mode::Container]
        .map(|mode| run(mode, ["demo", "sh", "-c", script]).exits(0).text())
        .into();
    assert_eq!(sums[0], sums[1]);
    assert_eq!(sums[0].len(), 67, "a digest and a dash: {}", sums[0]);
}

both_modes! {
    fn python_runs_and_says_where(mode) {
        let done = run(mode, ["demo", "python3", "/app/hello.py", "3"]).exits(3);
        assert!(done.text().starts_with("Python 3.11"), "{}", done.text());
        assert!(done.text().contains("pid 1"), "{}", done.text());
    }
}

both_modes! {
    fn standard_streams_are_separate_and_exact(mode) {
        let done = run(mode, ["busybox", "sh", "-c", "printf 'out\\0x'; printf err >&2"]).exits(0);
        assert_eq!(done.stdout, b"out\0x");
        assert_eq!(done.stderr, "err");
        let done = run_with_input(mode, ["-i", "busybox", "cat"], b"through\0and back\n").exits(0);
        assert_eq!(done.stdout, b"through\0and back\n");
        // Without -i standard input is empty, whatever the caller has.
        let done = run_with_input(mode, ["busybox", "cat"], b"not for you").exits(0);
        assert_eq!(done.stdout, b"");
    }
}

both_modes! {
    /// A reader that is slow at first lets everything on the way fill up, and what comes back is
    /// more than all of that holds.
    fn a_hundred_mebibytes_go_through_a_slow_reader(mode) {
        let script = format!(
            r#"
            h() {{ timeout -k 5 60 "$HULLBOX_BIN" "$@"; }}
            file=$(mktemp /run/stream.XXXXXX)
            trap 'rm -f $file' EXIT
            head -c $((100 << 20)) /dev/urandom >$file
            slow() {{ sleep 2; sha256sum; }}
            wanted=$(sha256sum <$file)
            [ "$(h run --rm -i {flag} busybox cat <$file | slow)" = "$wanted" ] || echo run
            h run -d --name through {flag} busybox sleep 1000 >/dev/null || echo start
            [ "$(h exec -i through cat <$file | slow)" = "$wanted" ] || echo exec
            h rm -f through >/dev/null
            echo over
            "#,
            flag = mode.flag(),
        );
        let done = on_the_machine(&script).exits(0);
        assert_eq!(done.text(), "over", "{}", done.stderr);
    }
}

both_modes! {
    fn half_close_reaches_the_workload(mode) {
        let script = "n=$(wc -c); echo counted $n";
        let input = vec![b'x'; 3_000_000];
        let done = run_with_input(mode, ["-i", "busybox", "sh", "-c", script], &input).exits(0);
        assert_eq!(done.text(), "counted 3000000");
    }
}

both_modes! {
    fn a_large_stream_arrives_intact(mode) {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let input: Vec<u8> = (0..16 * 1024 * 1024 / 8)
            .flat_map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()
            })
            .collect();
        let done = run_with_input(mode, ["-i", "busybox", "cat"], &input).exits(0);
        assert!(done.stdout == input, "{} bytes came back", done.stdout.len());
    }
}

both_modes! {
    fn argv_and_environment_are_exact(mode) {
        let odd = ["a b", "", "quote\"'", "new\nline", "*", "$HOME", "-x", "ünïcode"];
        let mut args = vec!["busybox", "sh", "-c", "for a; do printf '%s\\0' \"$a\"; done", "sh"];
        args.extend(odd);
        let done = run(mode, &args).exits(0);
        let expected: Vec<u8> = odd.iter().flat_map(|a| a.bytes().chain([0])).collect();
        assert_eq!(done.stdout, expected);

        let done = run(mode, ["-e", "A=1 2", "-e", "B=", "--hostname", "hull", "busybox", "env"]).exits(0);
        let mut lines: Vec<_> = done.text().lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "A=1 2",
                "B=",
                "HOME=/root",
                "HOSTNAME=hull",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ]
        );
    }
}

both_modes! {
    fn users_and_groups_come_from_the_image(mode) {
        for (user, ids) in [
            ("alice", "uid=1000(alice) gid=1000(alice) groups=29(audio),44(video),1000(alice)"),
            ("1000", "uid=1000(alice) gid=1000(alice) groups=29(audio),44(video),1000(alice)"),
            ("alice:audio", "uid=1000(alice) gid=29(audio)"),
            ("4242:77", "uid=4242 gid=77"),
        ] {
            let text = run(mode, ["-u", user, "busybox", "id"]).exits(0).text();
            let groups = |text: &str| -> Vec<String> {
                let mut parts: Vec<_> = text.split([' ', ',']).map(|p| p.replace("groups=", "")).collect();
                parts.sort();
                parts.dedup();
                parts
            };
            let (got, want) = (groups(&text), groups(ids));
            assert!(want.iter().all(|part| got.contains(part)), "{user}: {text}");
        }
        let home = run(mode, ["-u", "alice", "busybox", "sh", "-c", "echo $HOME; pwd"]).exits(0).text();
        assert_eq!(home, "/home\n/");
    }
}

both_modes! {
    fn working_directory_is_made_when_missing(mode) {
        let text = run(mode, ["-w", "/made/for/me", "busybox", "pwd"]).exits(0).text();
        assert_eq!(text, "/made/for/me");
    }
}

both_modes! {
    fn pid_1_is_the_workload_and_init_reaps(mode) {
        let text = run(mode, ["busybox", "sh", "-c", "echo $$; cat /proc/1/comm; true"]).exits(0).text();
        assert_eq!(text, "1\nsh");
        let text = run(mode, ["--init", "busybox", "sh", "-c", "echo $$"]).exits(0).text();
        assert_ne!(text, "1");
    }
}

both_modes! {
    fn writes_stay_in_the_container(mode) {
        let _ = run(mode, ["busybox", "sh", "-c", "echo changed >/etc/passwd; rm -r /home; touch /new"]).exits(0);
        let text = run(mode, ["busybox", "sh", "-c", "head -c4 /etc/passwd; ls -d /home; ls /new 2>&1 || true"])
            .exits(0)
            .text();
        assert!(text.starts_with("root/home\n"), "{text}");
        assert!(text.contains("No such file"), "{text}");
    }
}

both_modes! {
    fn a_read_only_root_refuses_writes_and_tmpfs_takes_them(mode) {
        let script = "touch /x 2>/dev/null && echo wrote; touch /scratch/y && df -k /scratch | tail -1 | awk '{print $2}'; mount | grep ' /scratch '";
        let text = run(mode, ["--read-only", "--tmpfs", "/scratch:size=1m,mode=700", "busybox", "sh", "-c", script])
            .exits(0)
            .text();
        assert!(text.starts_with("1024\n"), "{text}");
        assert!(text.contains("nosuid") && text.contains("nodev"), "{text}");
    }
}

both_modes! {
    fn limits_are_limits(mode) {
        let text = run(mode, ["--ulimit", "nofile=123:456", "busybox", "sh", "-c", "ulimit -n; ulimit -Hn; umask"])
            .exits(0)
            .text();
        assert_eq!(text, "123\n456\n0022");
        // Pages that can go nowhere: a program that nears its limit slowly spends minutes in between.
        let fill = ["dd", "if=/dev/zero", "of=/t/x", "bs=1M", "count=190"];
        let args = ["-m", "96m", "--tmpfs", "/t:size=200m", "busybox"];
        let done = run(mode, args.into_iter().chain(fill));
        assert_eq!(done.code, 137, "{done:?}");
    }
}

both_modes! {
    fn capabilities_are_dockers(mode) {
        let caps = |args: &[&str]| {
            let mut all = args.to_vec();
            all.extend(["busybox", "grep", "CapEff", "/proc/self/status"]);
            run(mode, all).exits(0).text().split_whitespace().last().unwrap_or("").to_owned()
        };
        assert_eq!(caps(&[]), "00000000a80425fb");
        assert_eq!(caps(&["--cap-drop", "ALL"]), "0000000000000000");
        assert_eq!(caps(&["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"]), "0000000000001000");
        assert_eq!(caps(&["-u", "1000"]), "0000000000000000");
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn bad_input_gets_one_clear_line() {
    for (args, part) in [
        (vec!["run", "-m", "lots", "busybox"], "memory"),
        (vec!["run", "--cpus", "-1", "busybox"], "cpus"),
        (vec!["run", "--isolation=magic", "busybox"], "isolation"),
        (vec!["run", "absent:1"], "absent:1"),
        (vec!["run", "some/UPPER"], "lowercase"),
        (vec!["run", "--name", "no spaces please", "busybox"], "name"),
    ] {
        hullbox(&args).fails_saying(part);
    }
}

both_modes! {
    fn the_root_is_one_filesystem_to_stat(mode) {
        let script = "mkdir /n; touch /n/x; stat -c %d / /etc /etc/passwd /n /n/x | sort -u | wc -l";
        assert_eq!(run(mode, ["busybox", "sh", "-c", script]).exits(0).text(), "1");
    }
}

both_modes! {
    fn limits_do_not_come_from_the_callers_shell(mode) {
        let script = "ulimit -n; ulimit -c; ulimit -f; ulimit -s";
        let text = run(mode, ["busybox", "sh", "-c", script]).exits(0).text();
        assert_eq!(text, "1024\nunlimited\nunlimited\n8192");
    }
}
