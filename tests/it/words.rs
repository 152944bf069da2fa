//! Flags and words that mean what they mean in Docker: environment, limits, health.

use crate::life::Kept;
use hullbox_tests::{Mode, both_modes, command, finish, hullbox};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn image(template: &str, tag: &str) -> String {
    let args = ["inspect", "--type", "image", "--format", template, tag];
    hullbox(args).exits(0).text()
}

both_modes! {
    fn an_image_of_a_container_has_what_was_configured(mode) {
        let box_ = Kept::new("configured", mode);
        let tag = format!("configured-{}", box_.name);
        let from_image = image("{{json .Config.Env}}", "busybox");
        let from_image = from_image.trim_matches(['[', ']']);
        box_.run(&["-t", "-e", "A=1", "-e", "GONE", "--stop-signal", "INT", "busybox", "sleep", "1000"]);
        let wanted = format!("[\"A=1\",\"GONE\",{from_image}]");
        assert_eq!(box_.inspect("{{json .Config.Env}}"), wanted);
        // The workload has defaults besides, and a process without a terminal has no TERM.
        let own_name = box_.inspect("{{.Config.Hostname}}");
        let env = box_.exec(&["env"]).exits(0).text();
        assert!(env.contains(&format!("HOSTNAME={own_name}")), "{env}");
        assert!(env.contains("A=1") && !env.contains("TERM="), "{env}");
        let workload = box_.exec(&["sh", "-c", "tr '\\0' '\\n' < /proc/1/environ"]).exits(0).text();
        assert!(workload.contains("TERM=xterm") && workload.contains("HOME="), "{workload}");

        let _ = hullbox(["commit", &box_.name, &tag]).exits(0);
        assert_eq!(image("{{json .Config.Env}}", &tag), wanted);
        assert_eq!(image("{{.Config.WorkingDir}}", &tag), "");
        assert_eq!(image("{{.Config.StopSignal}}", &tag), "SIGINT");
        let mut run = command(["run", "--rm", mode.flag(), "-m", "128m", "-h", "other"]);
        run.args([&tag, "sh", "-c", "echo $HOSTNAME [$TERM] $A"]);
        assert_eq!(finish(run, b"").exits(0).text(), "other [] 1");

        // What somebody says of a default is configured.
        let _ = hullbox(["commit", "-c", "ENV HOSTNAME=said", &box_.name, &tag]).exits(0);
        let mut run = command(["run", "--rm", mode.flag(), "-m", "128m", &tag]);
        run.args(["sh", "-c", "echo $HOSTNAME"]);
        assert_eq!(finish(run, b"").exits(0).text(), "said");
        let _ = hullbox(["rmi", "-f", &tag]).exits(0);
    }
}

both_modes! {
    fn processes_are_limited_only_where_somebody_asks(mode) {
        let box_ = Kept::new("pids", mode);
        let limit = || box_.inspect("{{json .HostConfig.PidsLimit}}");
        for (typed, shown) in [(None, "null"), (Some("-1"), "null"), (Some("0"), "null"), (Some("40"), "40")] {
            let mut args = vec!["create"];
            args.extend(typed.map(|_| "--pids-limit"));
            args.extend(typed);
            let _ = box_.make(&args, &["busybox", "sleep", "1000"]).exits(0);
            assert_eq!(limit(), shown, "{typed:?}");
            if typed != Some("40") {
                let _ = hullbox(["rm", &box_.name]).exits(0);
            }
        }
        let _ = hullbox(["start", &box_.name]).exits(0);
        let many = ["sh", "-c", "for i in $(seq 60); do sleep 100 & done; echo all"];
        assert_ne!(box_.exec(&many).code, 0);
        let _ = hullbox(["update", "--pids-limit", "-1", &box_.name]).exits(0);
        assert_eq!(box_.exec(&many).exits(0).text(), "all");
        assert_eq!(limit(), "null");
        let _ = hullbox(["update", "--pids-limit", "50", &box_.name]).exits(0);
        assert_eq!(limit(), "50");
        assert_ne!(box_.exec(&["true"]).code, 0);
        let _ = hullbox(["update", "--pids-limit", "0", &box_.name]).exits(0);
        let _ = box_.exec(&["true"]).exits(0);
        // Lifted for good.
        let _ = hullbox(["restart", "-t", "0", &box_.name]).exits(0);
        assert_eq!(box_.exec(&many).exits(0).text(), "all");
    }
}

both_modes! {
    fn limits_are_dockers(mode) {
        let box_ = Kept::new("ulimits", mode);
        let ulimits = ["create", "--ulimit", "nofile=1:2", "--ulimit", "core=3", "--ulimit", "nofile=64:128"];
        let _ = box_.make(&ulimits, &["busybox", "sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c"]).exits(0);
        assert_eq!(
            box_.inspect("{{range .HostConfig.Ulimits}}{{.Name}} {{.Soft}} {{.Hard}},{{end}}"),
            "core 3 3,nofile 64 128,"
        );
        let started = hullbox(["start", "-a", &box_.name]).exits(0).text();
        assert!(started.starts_with("64\n128\n"), "{started}");
        hullbox(["run", "--ulimit", "nofile=2:1", "busybox"]).fails_saying("ulimit soft limit must be less than or equal to hard limit: 2 > 1");
        hullbox(["run", "--ulimit", "files=1", "busybox"]).fails_saying("invalid ulimit type: files");
        hullbox(["run", "--ulimit", "nofile", "busybox"]).fails_saying("invalid ulimit argument: nofile");
    }
}

both_modes! {
    fn health_checks_keep_what_they_saw(mode) {
        let box_ = Kept::new("checked", mode);
        let log = |field: &str| {
            box_.inspect(&format!("{{{{range .State.Health.Log}}}}{{{{.{field}}}}},{{{{end}}}}"))
        };
        // Every check of the start period, which failures do not end, and then the usual ones.
        let check = "echo $(date +%s) >> /checks; wc -l < /checks; test -e /well";
        let id = box_.run(&[
            "--health-cmd", check, "--health-start-period", "1h", "--health-start-interval", "100ms",
            "--health-interval", "200ms", "--health-retries", "2", "busybox", "sleep", "1000",
        ]);
        assert_eq!(hullbox(["ps", "--filter", &format!("id={id}"), "--format", "{{.Status}}"]).exits(0).text().split(" (").nth(1), Some("health: starting)"));
        while !log("Output").contains('7') {}
        assert_eq!(box_.inspect("{{len .State.Health.Log}} {{.State.Health.Status}} {{.State.Health.FailingStreak}}"), "5 starting 0");
        assert!(log("ExitCode").starts_with("1,1,1,1,1,"));
        let _ = box_.exec(&["touch", "/well"]).exits(0);
        box_.until_health("healthy");
        let _ = box_.exec(&["rm", "/well"]).exits(0);
        box_.until_health("unhealthy");

        // What has ended is unhealthy; the next run begins anew, with the old log.
        let _ = hullbox(["stop", "-t", "0", &box_.name]).exits(0);
        assert_eq!(box_.inspect("{{len .State.Health.Log}} {{.State.Health.Status}}"), "5 unhealthy");
        let by_health = |health: &str| {
            let filter = format!("health={health}");
            hullbox(["ps", "-a", "-q", "--no-trunc", "--filter", &filter]).exits(0).text()
        };
        assert!(by_health("unhealthy").contains(&id));
        let _ = hullbox(["start", &box_.name]).exits(0);
        assert!(box_.inspect("{{.State.Health.Status}} {{.State.Health.FailingStreak}}").starts_with("starting 0"));
        assert_eq!(box_.inspect("{{len .State.Health.Log}}"), "5");
    }
}

both_modes! {
    fn a_check_that_takes_too_long_leaves_its_words(mode) {
        let box_ = Kept::new("late", mode);
        let check = "echo early; [ -e /quick ] || sleep 1000";
        box_.run(&["--health-cmd", check, "--health-interval", "50ms", "--health-timeout", "3s", "--health-retries", "1", "busybox", "sleep", "1000"]);
        box_.until_health("unhealthy");
        let last = "{{with index .State.Health.Log 0}}{{.ExitCode}} {{json .Output}}{{end}}";
        assert_eq!(box_.inspect(last), "-1 \"Health check exceeded timeout (3s): early\\n\"");
        let _ = box_.exec(&["touch", "/quick"]).exits(0);
        box_.until_health("healthy");
    }
}

both_modes! {
    fn a_pause_is_no_fault_of_a_check(mode) {
        let box_ = Kept::new("frozen", mode);
        // A check that ends when it is told to, of a container that stands still for longer than a
        // check may take.
        let limit_s = if mode == Mode::Vm { 5 } else { 1 };
        let limit = format!("{limit_s}s");
        let check = "touch /checking; while [ ! -e /go ]; do sleep 0.05; done";
        box_.run(&["--health-cmd", check, "--health-interval", "50ms", "--health-timeout", &limit, "--health-retries", "1", "busybox", "sleep", "1000"]);
        let _ = box_.exec(&["sh", "-c", "until [ -e /checking ]; do :; done"]).exits(0);
        let _ = hullbox(["pause", &box_.name]).exits(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let until = (now + Duration::from_secs(limit_s)).as_secs_f64().to_string();
        let seen = hullbox(["events", "--filter", "event=health_status", "--since", "1m", "--until", &until, "--filter", &format!("container={}", box_.name)]);
        assert_eq!(seen.exits(0).text(), "");
        let status = hullbox(["ps", "-a", "--filter", &format!("name=^{}$", box_.name), "--format", "{{.Status}}"]);
        assert!(status.exits(0).text().ends_with("(Paused)"));
        let _ = hullbox(["unpause", &box_.name]).exits(0);
        let _ = box_.exec(&["touch", "/go"]).exits(0);
        box_.until_health("healthy");
        assert_eq!(box_.inspect("{{.State.Health.FailingStreak}}"), "0");
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn health_checks_without_sense_are_refused_as_docker_does() {
    for (flags, why) in [
        (
            &["--health-interval", "-1s"][..],
            "--health-interval cannot be negative",
        ),
        (
            &["--health-retries", "-1"],
            "--health-retries cannot be negative",
        ),
        (
            &["--health-timeout", "1us"],
            "Timeout in Healthcheck cannot be less than 1ms",
        ),
        (
            &["--no-healthcheck", "--health-cmd", "x"],
            "--no-healthcheck conflicts with --health-* options",
        ),
        (&["--health-interval", "5"], "--health-interval"),
    ] {
        let mut args = vec!["run", "--rm"];
        args.extend(flags);
        args.extend(["busybox", "true"]);
        let done = hullbox(&args);
        assert_eq!(done.code, 125, "{flags:?}");
        done.fails_saying(why);
    }
}

both_modes! {
    fn a_name_may_begin_with_a_slash_and_an_empty_flag_is_none(mode) {
        let box_ = Kept::new("slashed", mode);
        let slashed = format!("/{}", box_.name);
        let flags = ["create", mode.flag(), "-w", "", "-u", "", "-h", "", "--cidfile", "", "--pull", "", "--log-driver", ""];
        let mut create = command(flags);
        create.args(["--name", &slashed, "-m", "64m", "-m", "128m", "--rm", "--rm=false", "busybox", "true"]);
        let id = finish(create, b"").exits(0).text();
        assert_eq!(hullbox(["inspect", "-f", "{{.Id}}", &slashed]).exits(0).text(), id);
        assert_eq!(box_.inspect("{{.Name}} {{.HostConfig.Memory}} {{.HostConfig.AutoRemove}}"), format!("{slashed} {} false", 128 << 20));
        let _ = hullbox(["rename", &slashed, &format!("{slashed}-2")]).exits(0);
        assert_eq!(hullbox(["inspect", "-f", "{{.Name}}", &id]).exits(0).text(), format!("{slashed}-2"));
        let _ = hullbox(["rm", &format!("{slashed}-2")]).exits(0);
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn every_mistake_is_printed_in_order() {
    for command in [
        "rm",
        "stop",
        "start",
        "kill",
        "inspect",
        "wait",
        "update --cpus 1",
    ] {
        let mut args: Vec<&str> = command.split(' ').collect();
        args.extend(["nope-1", "nope-2", "nope-3"]);
        let done = hullbox(&args).exits(1);
        let names: Vec<_> = done
            .stderr
            .lines()
            .filter_map(|line| line.rsplit(": ").next())
            .collect();
        assert_eq!(
            names,
            ["nope-1", "nope-2", "nope-3"],
            "{command}: {}",
            done.stderr
        );
    }
    let done = hullbox(["rmi", "nope-1", "nope-2"]).exits(1);
    assert!(
        done.stderr.find("nope-1") < done.stderr.find("nope-2"),
        "{}",
        done.stderr
    );
    let many = &(1 << 20).to_string();
    hullbox(["update", "--cpus", many, "nope-1"])
        .fails_saying("invalid value for --cpus: this host has");
}

#[test]
#[ignore = "needs the built program: make test"]
fn an_empty_format_and_an_empty_filter_are_none() {
    for command in [
        &["ps"][..],
        &["images"],
        &["history", "busybox"],
        &["inspect", "busybox"],
        &["system", "df"],
        &["version"],
    ] {
        let plain = hullbox(command).exits(0).text();
        let with = |flags: &[&str]| {
            let args: Vec<&str> = command.iter().chain(flags).copied().collect();
            hullbox(args).exits(0).text()
        };
        assert_eq!(with(&["--format", ""]), plain, "{command:?}");
        if matches!(command, ["ps" | "images"]) {
            assert_eq!(with(&["--filter", ""]), plain, "{command:?}");
        }
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn fields_that_scripts_ask_for_have_dockers_names() {
    for (command, fields) in [
        (
            "version",
            "{{.Client.Version}} {{.Server.Version}} {{.Server.Os}} {{.Server.Arch}} {{.Server.KernelVersion}}",
        ),
        (
            "info",
            "{{.ServerVersion}} {{.Name}} {{.OSType}} {{.OperatingSystem}} {{.Architecture}} {{.MemTotal}} {{.Driver}} \
             {{.DockerRootDir}} {{.ContainersPaused}} {{.LoggingDriver}} {{.CgroupVersion}} {{.SecurityOptions}}",
        ),
        ("images", "{{.SharedSize}} {{.UniqueSize}} {{.VirtualSize}}"),
        (
            "image inspect busybox",
            "{{.OsVersion}}[{{.Config.StopSignal}}]",
        ),
    ] {
        let mut args: Vec<&str> = command.split(' ').collect();
        args.extend(["--format", fields]);
        let text = hullbox(&args).exits(0).text();
        assert!(!text.contains("<n"), "{command}: {text}");
    }
    let table = hullbox(["images", "--digests", "busybox"]).exits(0).text();
    assert!(table.starts_with("REPOSITORY   TAG      DIGEST"), "{table}");
    let table = hullbox(["system", "df", "-v"]).exits(0).text();
    assert!(
        table.starts_with("Images space usage:\n\nREPOSITORY"),
        "{table}"
    );
    assert!(
        table.contains("\n\nContainers space usage:\n\nCONTAINER ID"),
        "{table}"
    );
    let json = hullbox(["system", "df", "-v", "--format", "{{len .Images}}"])
        .exits(0)
        .text();
    assert_ne!(json, "0");
    let of_all = "{{json .}}";
    let events = ["events", "--since", "20m", "--until", "0s", "--format"];
    let with = |format| {
        hullbox(events.iter().copied().chain([format]))
            .exits(0)
            .text()
    };
    let lines = with(of_all);
    let line: Vec<_> = lines.lines().take(1).collect();
    assert!(
        line.iter()
            .all(|line| line.contains("\"timeNano\"") && !line.contains("\"TimeNano\"")),
        "{line:?}"
    );
    let _ = hullbox(["system", "prune", "--help"]).exits(0);
}
