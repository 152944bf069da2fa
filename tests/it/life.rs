//! Containers that live on: made, started, asked, stopped, started again, removed.

use hullbox_tests::{Done, Mode, Terminal, both_modes, command, finish, hullbox};
use std::path::Path;
use std::time::{Duration, Instant};

/// Asks until it is so: a command takes a few milliseconds on the host and many more through a machine.
#[track_caller]
fn until(never: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{never}");
    }
}

/// A container that is removed with its test.
pub(crate) struct Kept {
    pub(crate) name: String,
    mode: Mode,
}

impl Kept {
    pub(crate) fn new(test: &str, mode: Mode) -> Self {
        let name = format!("{test}-{}", if mode == Mode::Vm { "vm" } else { "ns" });
        let kept = Self { name, mode };
        kept.gone();
        kept
    }

    fn gone(&self) {
        let _ = hullbox(["rm", "-f", &self.name]);
    }

    /// `hullbox VERB --name NAME --isolation MODE ARGS`.
    pub(crate) fn make(&self, verb: &[&str], args: &[&str]) -> Done {
        let mut all = verb.to_vec();
        all.extend(["--name", &self.name, self.mode.flag(), "-m", "128m"]);
        all.extend(args);
        hullbox(all)
    }

    /// Runs it in the background; its id.
    pub(crate) fn run(&self, args: &[&str]) -> String {
        let id = self.make(&["run", "-d"], args).exits(0).text();
        assert_eq!(id.len(), 64, "{id}");
        id
    }

    pub(crate) fn exec(&self, args: &[&str]) -> Done {
        let mut all = vec!["exec", &self.name];
        all.extend(args);
        hullbox(all)
    }

    /// Waits until its checks say so.
    pub(crate) fn until_health(&self, status: &str) {
        self.until("{{.State.Health.Status}}", status);
    }

    /// Waits until `inspect` says so.
    pub(crate) fn until(&self, template: &str, wanted: &str) {
        until(&format!("never {wanted}"), || {
            self.inspect(template) == wanted
        });
    }

    /// Waits until its log holds this.
    pub(crate) fn until_said(&self, words: &str) {
        until(&format!("never said {words}"), || {
            let log = hullbox(["logs", &self.name]).exits(0);
            log.text().contains(words)
        });
    }

    pub(crate) fn inspect(&self, template: &str) -> String {
        hullbox(["inspect", "--format", template, &self.name])
            .exits(0)
            .text()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.gone();
    }
}

both_modes! {
    fn a_container_lives_through_stop_and_start(mode) {
        let box_ = Kept::new("lives", mode);
        let id = box_.run(&["busybox", "sh", "-c", "echo hello; trap 'exit 3' TERM; while :; do sleep 0.1; done"]);
        assert_eq!(box_.inspect("{{.State.Status}} {{.State.Running}}"), "running true");
        let listed = hullbox(["ps", "--no-trunc", "-q", "--filter", &format!("name={}", box_.name)]).exits(0);
        assert_eq!(listed.text(), id);

        // A real process beside the workload, in its namespaces and root.
        assert_eq!(box_.exec(&["sh", "-c", "echo kept > /file; cat /proc/1/comm"]).exits(0).text(), "sh");
        assert_eq!(box_.exec(&["-u", "alice", "id", "-u"]).code, 127, "flags come before the name");
        let done = hullbox(["exec", "-u", "alice", "-w", "/tmp", "-e", "A=1", &box_.name, "sh", "-c", "id -u; pwd; echo $A; exit 9"]);
        assert_eq!(done.clone().exits(9).text(), "1000\n/tmp\n1");
        let _ = box_.exec(&["no-such-program"]).exits(127);
        let _ = box_.exec(&["/etc"]).exits(126);

        // Stopped by its signal, which it handles; its layer stays.
        let _ = hullbox(["stop", "-t", "20", &box_.name]).exits(0);
        assert_eq!(box_.inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 3");
        assert_eq!(hullbox(["logs", &box_.name]).exits(0).text(), "hello");
        box_.exec(&["true"]).fails_saying("not running");
        let _ = hullbox(["start", &box_.name]).exits(0);
        assert_eq!(box_.exec(&["cat", "/file"]).exits(0).text(), "kept");
        assert_eq!(hullbox(["logs", &box_.name]).exits(0).text(), "hello\nhello");

        hullbox(["rm", &box_.name]).fails_saying("is running");
        let _ = hullbox(["rm", "-f", &box_.name]).exits(0);
        let left = hullbox(["ps", "-aq", "--filter", &format!("name={}", box_.name)]).exits(0);
        assert_eq!(left.text(), "");
    }
}

both_modes! {
    fn an_image_and_its_containers_are_different_things(mode) {
        let one = Kept::new("one", mode);
        let two = Kept::new("two", mode);
        let image = || hullbox(["inspect", "--format", "{{.Id}}", "busybox"]).exits(0).text();
        let before = image();
        // Many containers of one image, none of which sees another's writes.
        one.run(&["busybox", "sleep", "1000"]);
        two.run(&["busybox", "sleep", "1000"]);
        let _ = one.exec(&["sh", "-c", "echo mine > /x; rm /etc/group; mkdir /etc/new"]).exits(0);
        assert_eq!(two.exec(&["cat", "/x"]).code, 1);
        let _ = two.exec(&["cat", "/etc/group"]).exits(0);
        let changes = hullbox(["diff", &one.name]).exits(0).text();
        let mut changes: Vec<_> = changes.lines().collect();
        changes.sort_unstable();
        assert_eq!(changes, ["A /etc/new", "A /x", "C /etc", "D /etc/group"]);
        assert_eq!(hullbox(["diff", &two.name]).exits(0).text(), "");
        assert_eq!(image(), before);

        // A committed container is a new image with one layer more.
        let tag = format!("committed-{}", one.name);
        let id = hullbox(["commit", "-a", "somebody", "-m", "why", "-c", "CMD [\"cat\", \"/x\"]", &one.name, &tag]).exits(0).text();
        assert!(id.starts_with("sha256:"), "{id}");
        let layers = |name: &str| hullbox(["inspect", "--format", "{{len .RootFS.Layers}}", name]).exits(0).text();
        let count = |name: &str| layers(name).parse::<u32>().expect("a number");
        assert_eq!(count(&tag), count("busybox") + 1);
        let mut run = command(["run", "--rm", mode.flag()]);
        run.args(["-m", "128m", &tag]);
        assert_eq!(finish(run, b"").exits(0).text(), "mine");
        let mut run = command(["run", "--rm", mode.flag()]);
        run.args(["-m", "128m", &tag, "ls", "/etc/group"]);
        assert_eq!(finish(run, b"").code, 1);
        assert_eq!(image(), before);
        let _ = hullbox(["rmi", &tag]).exits(0);
    }
}

both_modes! {
    fn files_go_in_and_out_of_running_and_stopped_containers(mode) {
        let box_ = Kept::new("files", mode);
        let here = std::env::temp_dir().join(format!("hullbox-cp-{}-{}", box_.name, std::process::id()));
        std::fs::create_dir_all(here.join("in/sub")).expect("a directory");
        std::fs::write(here.join("in/file"), b"content").expect("a file");
        std::fs::write(here.join("in/sub/deep"), vec![7u8; 3_000_000]).expect("a file");
        let path = |name: &str| here.join(name).to_string_lossy().into_owned();
        box_.run(&["busybox", "sleep", "1000"]);
        for running in [true, false] {
            if !running {
                let _ = hullbox(["stop", "-t", "0", &box_.name]).exits(0);
            }
            let there = if running { "running" } else { "stopped" };
            let _ = hullbox(["cp", &path("in"), &format!("{}:/{there}", box_.name)]).exits(0);
            let _ = hullbox(["cp", &format!("{}:/{there}/sub/.", box_.name), &path(there)]).exits(0);
            let copied = std::fs::read(here.join(there).join("deep")).expect("it came back");
            assert!(copied == vec![7u8; 3_000_000]);
            let archive = hullbox(["cp", &format!("{}:/{there}/file", box_.name), "-"]).exits(0);
            assert!(archive.stdout.len() >= 1024 && archive.stdout.starts_with(b"file\0"));
        }
        hullbox(["cp", &format!("{}:/no/such", box_.name), &path("x")]).fails_saying("exist");
        let whole = hullbox(["export", &box_.name]).exits(0);
        let exported = String::from_utf8_lossy(&whole.stdout);
        assert!(exported.contains("stopped/file") && exported.contains("bin/busybox"));
        std::fs::remove_dir_all(here).expect("tidy");
    }
}

both_modes! {
    needs controllers;
    fn what_runs_can_be_looked_at_frozen_limited_and_killed(mode) {
        let box_ = Kept::new("looked", mode);
        box_.run(&["busybox", "sleep", "1000"]);
        let top = hullbox(["top", &box_.name]).exits(0).text();
        assert!(top.lines().any(|line| line.ends_with("sleep 1000")), "{top}");
        let stats = hullbox(["stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", &box_.name]).exits(0).text();
        assert!(stats.starts_with("1 "), "{stats}");

        let _ = hullbox(["pause", &box_.name]).exits(0);
        assert_eq!(box_.inspect("{{.State.Status}}"), "paused");
        box_.exec(&["true"]).fails_saying("paused");
        let _ = hullbox(["unpause", &box_.name]).exits(0);
        let _ = box_.exec(&["true"]).exits(0);

        let _ = hullbox(["update", "-m", "64m", "--restart", "no", &box_.name]).exits(0);
        let over = box_.exec(&["sh", "-c", "tail /dev/zero"]);
        assert_eq!(over.code, 137, "{}", over.stderr);

        let _ = hullbox(["pause", &box_.name]).exits(0);
        let _ = hullbox(["kill", &box_.name]).exits(0);
        assert_eq!(box_.inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
        assert_eq!(hullbox(["wait", &box_.name]).exits(0).text(), "137");
    }
}

both_modes! {
    fn what_was_made_in_the_background_and_cannot_be_started_has_its_id_told(mode) {
        let box_ = Kept::new("unstartable", mode);
        let made = box_.make(&["run", "-d"], &["busybox", "nosuch"]).exits(127);
        assert!(made.stderr.contains("nosuch"), "{}", made.stderr);
        assert_eq!(made.text(), box_.inspect("{{.Id}}"));
        assert_eq!(box_.inspect("{{.State.Running}} {{.State.ExitCode}}"), "false 127");
        box_.gone();
        // Its id is told, too, of what is gone at once.
        let gone = box_.make(&["run", "-d", "--rm"], &["busybox", "/etc"]).exits(126);
        assert_eq!(gone.text().len(), 64, "{gone:?}");
        hullbox(["inspect", &gone.text()]).fails_saying("no such");
        let unmade = box_.make(&["run", "-d"], &["nosuch", "true"]).exits(125);
        assert_eq!(unmade.text(), "");
    }
}

both_modes! {
    fn stats_tell_what_passed_the_network(mode) {
        let net_io = |box_: &Kept| {
            let stats = ["stats", "--no-stream", "--format", "{{json .NetIO}}", &box_.name];
            hullbox(stats).exits(0).text()
        };
        let networked = Kept::new("counted", mode);
        networked.run(&["busybox", "sleep", "1000"]);
        assert_eq!(net_io(&networked), "\"0B / 0B\"", "nobody has sent anything");
        // 44 bytes are headers.
        let _ = networked.exec(&["ping", "-c", "1", "-s", "4956", "10.0.2.1"]).exits(0);
        let counted = net_io(&networked);
        let (received, sent) = counted.trim_matches('"').split_once(" / ").expect("a pair");
        for bytes in [received, sent] {
            let thousands: f64 = bytes.trim_end_matches("kB").parse().expect("kilobytes");
            assert!((4.9..5.5).contains(&thousands), "{counted}");
        }
        let table = hullbox(["stats", "--no-stream", &networked.name]).exits(0).text();
        assert!(table.contains("NET I/O") && table.contains(&format!(" {sent} ")), "{table}");
        let _ = networked.exec(&["ping", "-c", "1", "-s", "4956", "127.0.0.1"]).exits(0);
        assert_eq!(net_io(&networked), counted, "the loopback is not counted");

        let mut without = vec!["none"];
        // The host's interfaces are everybody's.
        without.extend((mode == Mode::Container).then_some("host"));
        for network in without {
            let box_ = Kept::new("uncounted", mode);
            box_.run(&["--network", network, "busybox", "sleep", "1000"]);
            let _ = box_.exec(&["ping", "-c", "1", "127.0.0.1"]).exits(0);
            assert_eq!(net_io(&box_), "\"0B / 0B\"", "{network}");
        }
    }
}

both_modes! {
    fn a_restart_policy_starts_it_again_until_it_is_stopped(mode) {
        let box_ = Kept::new("again", mode);
        let made = box_.make(&["create", "--restart", "on-failure:2"], &["busybox", "sh", "-c", "echo run; exit 4"]);
        let _ = made.exits(0);
        assert_eq!(box_.inspect("{{.State.Status}}"), "created");
        let _ = hullbox(["start", &box_.name]).exits(0);
        assert_eq!(hullbox(["wait", &box_.name]).exits(0).text(), "4");
        assert_eq!(box_.inspect("{{.RestartCount}}"), "2");
        assert_eq!(hullbox(["logs", &box_.name]).exits(0).text(), "run\nrun\nrun");

        let always = Kept::new("always", mode);
        let _ = always.make(&["run", "-d", "--restart", "always"], &["busybox", "sleep", "1000"]).exits(0);
        let _ = hullbox(["stop", "-t", "0", &always.name]).exits(0);
        assert_eq!(always.inspect("{{.State.Status}}"), "exited");
    }
}

both_modes! {
    fn a_terminal_can_be_left_and_joined_again(mode) {
        let box_ = Kept::new("left", mode);
        let mut run = command(["run", "-it", "--name", &box_.name, mode.flag()]);
        run.args(["-m", "128m", "busybox", "sh"]);
        let mut terminal = Terminal::start(&run, 24, 80);
        terminal.expect("# ");
        terminal.type_text("V=remembered\n");
        terminal.expect("# ");
        terminal.type_text("\x10\x11");
        assert_eq!(terminal.wait(), 0);
        assert_eq!(box_.inspect("{{.State.Status}}"), "running");

        let mut again = Terminal::start(&command(["attach", &box_.name]), 24, 80);
        again.type_text("echo $V; exit 6\n");
        again.expect("remembered");
        assert_eq!(again.wait(), 6);
        let _ = hullbox(["rm", &box_.name]).exits(0);
    }
}

both_modes! {
    fn logs_stay_within_their_bound_and_can_be_followed(mode) {
        let box_ = Kept::new("chatty", mode);
        let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo last >&2";
        let made = box_.make(&["run", "-d", "--log-opt", "max-size=100k", "--log-opt", "max-file=2"], &["busybox", "sh", "-c", script]);
        let _ = made.exits(0);
        let followed = hullbox(["logs", "-f", &box_.name]).exits(0);
        assert!(followed.text().ends_with("line 19999"), "{}", followed.stderr);
        assert_eq!(followed.stderr, "last\n");
        let tail = hullbox(["logs", "--tail", "3", &box_.name]).exits(0);
        assert_eq!((tail.text().as_str(), tail.stderr.as_str()), ("line 19998\nline 19999", "last\n"));
        let kept = hullbox(["logs", &box_.name]).exits(0);
        assert!(kept.stdout.len() < 200 * 1024, "{}", kept.stdout.len());
        let stamped = hullbox(["logs", "-t", "-n", "1", &box_.name]).exits(0);
        assert!(stamped.stderr.starts_with("20"), "{}", stamped.stderr);
    }
}

both_modes! {
    fn health_and_events_are_told(mode) {
        let box_ = Kept::new("well", mode);
        let made = box_.make(
            &["run", "-d", "--health-cmd", "test -e /well", "--health-interval", "300ms", "--health-retries", "1"],
            &["busybox", "sleep", "1000"],
        );
        let _ = made.exits(0);
        box_.until_health("unhealthy");
        let _ = box_.exec(&["touch", "/well"]).exits(0);
        box_.until_health("healthy");
        let _ = hullbox(["rm", "-f", &box_.name]).exits(0);
        let events = hullbox(["events", "--since", "10m", "--until", "0", "--filter", &format!("container={}", box_.name), "--format", "{{.Action}}"]).exits(0).text();
        let happened: Vec<_> = events.lines().filter(|line| !line.starts_with("exec")).collect();
        assert_eq!(happened, ["create", "start", "health_status: unhealthy", "health_status: healthy", "kill", "die", "destroy"]);
    }
}

both_modes! {
    fn an_image_brings_its_health_check(mode) {
        let box_ = Kept::new("checked", mode);
        let made = Kept::new("maker", mode);
        let tag = format!("healthy-{}", box_.name);
        let check = "HEALTHCHECK --interval=1s --retries=1 CMD test -e /well";
        let _ = made.make(&["create"], &["busybox", "true"]).exits(0);
        let _ = hullbox(["commit", "-c", check, &made.name, &tag]).exits(0);
        let image = |tag: &str| hullbox(["inspect", "--type", "image", "--format", "{{json .Config.Healthcheck}}", tag]).exits(0).text();
        assert_eq!(image(&tag), r#"{"Interval":1000000000,"Retries":1,"Test":["CMD-SHELL","test -e /well"]}"#);

        box_.run(&[&tag, "sleep", "1000"]);
        box_.until_health("unhealthy");
        let _ = box_.exec(&["touch", "/well"]).exits(0);
        box_.until_health("healthy");
        // A commit keeps it, with what flags have changed of it.
        box_.gone();
        let _ = box_.make(&["create", "--health-retries", "4"], &[&tag, "true"]).exits(0);
        let _ = hullbox(["commit", &box_.name, &tag]).exits(0);
        assert!(image(&tag).contains(r#""Retries":4"#), "{}", image(&tag));
        assert!(image(&tag).contains(r#"["CMD-SHELL","test -e /well"]"#), "{}", image(&tag));
        box_.gone();
        let _ = box_.make(&["create", "--no-healthcheck"], &[&tag, "true"]).exits(0);
        assert_eq!(box_.inspect("{{.State.Health}}"), box_.inspect("{{.State.Signal}}"));
        let _ = hullbox(["commit", &box_.name, &tag]).exits(0);
        assert_eq!(image(&tag), r#"{"Test":["NONE"]}"#);
        box_.gone();
        let _ = hullbox(["rmi", "-f", &tag]).exits(0);
    }
}

both_modes! {
    fn a_container_that_is_starting_is_removed_by_force(mode) {
        let dir = tempfile::tempdir().unwrap();
        let box_ = Kept::new("starts", mode);
        for delay_ms in [0, 60, 120, 240, 480] {
            let path = dir.path().join(format!("after-{delay_ms}"));
            let file = path.to_str().unwrap();
            let flags = ["run", "--name", &box_.name, mode.flag(), "--cidfile", file];
            let mut run = command(flags).args(["busybox", "sleep", "1000"]).spawn().unwrap();
            let id = id_in(&path);
            std::thread::sleep(Duration::from_millis(delay_ms));
            assert_eq!(hullbox(["rm", "-f", &id]).exits(0).text(), id);
            assert_eq!(run.wait().unwrap().code(), Some(137), "after {delay_ms} ms");
            hullbox(["inspect", &id]).fails_saying("no such");
        }
    }
}

/// Waits until the container is made: its id.
fn id_in(path: &Path) -> String {
    for _ in 0..6000 {
        let id = std::fs::read_to_string(path).unwrap_or_default();
        if id.len() == 64 {
            return id;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no id in {}", path.display());
}

/// The file is the host's, wherever the container runs, and there only when it is.
#[test]
#[ignore = "needs the built program: make test"]
fn a_cidfile_is_written_when_the_container_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cid");
    let file = path.to_str().unwrap();
    let box_ = Kept::new("cid", Mode::Container);
    let id = box_
        .make(&["create", "--cidfile", file], &["busybox", "true"])
        .exits(0)
        .text();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), id);
    // Another container needs another file.
    box_.gone();
    box_.make(&["create", "--cidfile", file], &["busybox", "true"])
        .fails_saying("exists");
    std::fs::remove_file(&path).unwrap();
    hullbox(["create", "--cidfile", file, "no-such-image"]).fails_saying("Unable to find image");
    assert!(!path.exists());
    // It was made, though it could not be run.
    let _ = box_
        .make(
            &["run", "--rm", &format!("--cidfile={file}")],
            &["busybox", "no-such"],
        )
        .exits(127);
    assert_eq!(std::fs::read_to_string(&path).unwrap().len(), 64);
    std::fs::remove_file(&path).unwrap();
    // While the container runs in the foreground.
    let mut run = command([
        "run",
        "--name",
        &box_.name,
        box_.mode.flag(),
        "--cidfile",
        file,
        "busybox",
        "sleep",
        "1000",
    ])
    .spawn()
    .unwrap();
    let id = id_in(&path);
    assert_eq!(
        hullbox(["inspect", "--format", "{{.Id}}", &box_.name])
            .exits(0)
            .text(),
        id
    );
    let _ = hullbox(["rm", "-f", &id]).exits(0);
    assert_eq!(run.wait().unwrap().code(), Some(137));
}

#[test]
#[ignore = "needs the built program: make test"]
fn everything_that_is_kept_is_sound() {
    let checked = hullbox(["system", "check"]).exits(0).text();
    assert!(checked.contains("sound: "), "{checked}");
    let table = hullbox(["system", "df"]).exits(0).text();
    assert!(
        table.contains("Images") && table.contains("Containers"),
        "{table}"
    );
}

both_modes! {
    fn logs_have_what_was_written_before_its_newline_and_as_it_was(mode) {
        let box_ = Kept::new("prompts", mode);
        let script = "printf '\\377\\n'; echo one; printf 'name? '; until [ -e /go ]; do sleep 0.1; done; echo me";
        let made = box_.make(
            &["run", "-d", "--log-opt", "max-size=1k", "--log-opt", "max-file=5"],
            &["busybox", "sh", "-c", script],
        );
        let _ = made.exits(0);
        let mut shown = Vec::new();
        while !shown.ends_with(b"name? ") {
            shown = hullbox(["logs", &box_.name]).exits(0).stdout;
        }
        assert_eq!(shown, b"\xff\none\nname? ");
        // Ends by itself, whatever the container does.
        let until = hullbox(["logs", "-f", "--until", "0s", "-n", "1", &box_.name]).exits(0);
        assert_eq!(until.stdout, b"name? ");
        let _ = box_.exec(&["touch", "/go"]).exits(0);
        let all = hullbox(["logs", "-f", "-n", "2", &box_.name]).exits(0);
        assert!(all.stdout.ends_with(b"name? me\n"), "{all:?}");
        let stamped = hullbox(["logs", "-t", "-n", "1", &box_.name]).exits(0).text();
        assert!(stamped.starts_with("20") && stamped.ends_with("Z name? me"), "{stamped}");
    }
}

both_modes! {
    fn a_terminal_of_exec_is_named_and_only_that(mode) {
        let box_ = Kept::new("termed", mode);
        let _ = box_.run(&["busybox", "sleep", "1000"]);
        let with = hullbox(["exec", "-t", &box_.name, "sh", "-c", "echo =$TERM="]).exits(0);
        assert_eq!(with.text().trim_end(), "=xterm=");
        assert_eq!(box_.exec(&["sh", "-c", "echo =$TERM="]).exits(0).text(), "==");
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn system_prune_removes_what_its_filters_name() {
    let make = |label: &str| {
        let label = format!("pruned={label}");
        hullbox(["create", "--label", &label, "busybox", "true"])
            .exits(0)
            .text()
    };
    let (gone, kept) = (make("yes"), make("no"));
    let image = hullbox(["commit", "-c", "LABEL pruned=yes", &kept]);
    let image = image.exits(0).text();
    let prune = |filter: &str| hullbox(["system", "prune", "-f", "--filter", filter]);
    let is_there = |name: &str| hullbox(["inspect", name]).code == 0;

    prune("labels=pruned=yes").fails_saying("labels");
    let _ = prune("until=1h").exits(0);
    let _ = prune("label=pruned=other").exits(0);
    assert!(is_there(&gone) && is_there(&kept) && is_there(&image));

    let told = prune("label=pruned=yes").exits(0).text();
    assert!(told.contains(&gone) && told.contains(&image), "{told}");
    assert!(!told.contains(&kept), "{told}");
    assert!(!is_there(&gone) && !is_there(&image) && is_there(&kept));

    let _ = prune("label!=pruned=no").exits(0);
    assert!(is_there(&kept));
    let _ = hullbox(["rm", &kept]).exits(0);
}
