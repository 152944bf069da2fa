//! What a running container is asked: programs that join it, requests, builtins.
#![expect(clippy::panic, reason = "it is how a test's helper fails")]

use super::talk::{Session, Talk, archive_in, archive_out};
use super::{assert_nothing_left, base, ns_run};
use hullbox_protocol::{
    Builtin, CgroupLimits, FailureKind, Frame, ProcessInfo, ProcessSpec, Reply, Request, Stream,
    TerminalSize, Usage, UserSpec,
};
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A container, and the conversation with it.
pub struct Container {
    server: Child,
    talk: Talk,
    pub dir: tempfile::TempDir,
}

impl Deref for Container {
    type Target = Talk;

    fn deref(&self) -> &Talk {
        &self.talk
    }
}

impl DerefMut for Container {
    fn deref_mut(&mut self) -> &mut Talk {
        &mut self.talk
    }
}

impl Container {
    fn start(arguments: &[&str]) -> Option<Self> {
        let mut container = Self::prepare(arguments)?;
        container.exec_as(0, ProcessSpec::default());
        Some(container)
    }

    /// One that nobody has asked to start.
    pub fn prepare(arguments: &[&str]) -> Option<Self> {
        let base = base()?;
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = ns_run(dir.path(), &[base]);
        command.arg("--serve").args(arguments);
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        let server = command.spawn().unwrap();
        drop(command);
        let talk = Talk::new(ours);
        Some(Self { server, talk, dir })
    }

    /// One that runs a shell script and has said `up`.
    pub fn up(arguments: &[&str], script: &str) -> Option<Self> {
        let script = format!("{script}\necho up; while :; do sleep 1; done");
        let mut container = Self::start(&[arguments, &["--", "sh", "-c", &script]].concat())?;
        container.until(|c| c.sessions[&0].text().contains("up"));
        Some(container)
    }

    pub fn shell(&mut self, script: &str) -> &Session {
        self.run(shell(script))
    }

    fn usage(&mut self) -> Usage {
        match self.ask(Request::Usage) {
            Reply::Usage(usage) => *usage,
            other => panic!("{other:?}"),
        }
    }

    fn processes(&mut self) -> Vec<ProcessInfo> {
        match self.ask(Request::Processes) {
            Reply::Processes(processes) => processes,
            other => panic!("{other:?}"),
        }
    }

    /// Kills the workload; checks that nothing is left.
    pub fn finish(mut self) {
        self.send(&Frame::Signal {
            session: 0,
            signal: 9,
        });
        self.end(0);
        self.gone();
    }

    pub fn gone(mut self) -> tempfile::TempDir {
        self.hang_up();
        assert!(self.server.wait().unwrap().success());
        assert_nothing_left(self.dir.path());
        self.dir
    }
}

fn shell(script: &str) -> ProcessSpec {
    program(&["sh", "-c", script])
}

fn program(argv: &[&str]) -> ProcessSpec {
    ProcessSpec {
        argv: argv.iter().map(|a| a.as_bytes().to_vec()).collect(),
        env: vec![b"PATH=/bin".to_vec()],
        capabilities: Some(0xa804_25fb),
        ..ProcessSpec::default()
    }
}

#[test]
fn programs_join_everything_of_the_container() {
    let Some(mut container) = Container::up(&["-h", "box", "--tmpfs", "/t"], "echo x > /t/mark")
    else {
        return;
    };
    let script = "cat /t/mark /proc/sys/kernel/hostname; for n in pid mnt net uts ipc cgroup; do \
                  ls -l /proc/self/ns/$n; done | tr -d '\\n' | wc -c; cat /proc/self/cgroup; \
                  test \"$(ls -l /proc/1/ns/pid | tail -c 14)\" = \"$(ls -l /proc/self/ns/pid | tail -c 14)\" \
                  || echo differ; ls /proc/self/fd | wc -l";
    let session = container.shell(script);
    assert_eq!(session.code(), 0, "{session:?}");
    let text = session.text();
    assert!(text.starts_with("x\nbox\n"), "{text}");
    assert!(text.contains("0::/\n") && text.ends_with("\n4\n"), "{text}");
    let status = "grep -E 'Cap|Seccomp:|NoNew|NSpid' /proc/self/status; id; umask; pwd";
    let text = container.shell(status).text();
    for line in [
        "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "Seccomp:\t2",
        "NoNewPrivs:\t0",
        "uid=0(root)",
        "0022",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let mut other = shell(status);
    other.user = UserSpec::Named {
        user: "www".into(),
        additional_groups: Vec::new(),
    };
    other.cwd = "/srv".into();
    other.no_new_privileges = true;
    let text = container.run(other).text();
    for line in [
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "uid=33(www)",
        "77(extra)",
        "/srv",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let mut privileged = shell(status);
    privileged.privileged = true;
    let text = container.run(privileged).text();
    assert!(
        text.contains("Seccomp:\t0") && !text.contains("a80425fb"),
        "{text}"
    );
    container.finish();
}

#[test]
fn programs_that_cannot_join_say_why() {
    let Some(mut container) = Container::up(&[], "") else {
        return;
    };
    let user = |user: &str| ProcessSpec {
        user: UserSpec::Named {
            user: user.into(),
            additional_groups: Vec::new(),
        },
        ..program(&["true"])
    };
    let cwd = |cwd: &str| ProcessSpec {
        cwd: cwd.into(),
        ..program(&["true"])
    };
    for (spec, code, words) in [
        (program(&["true"]), 0, ""),
        (shell("exit 7"), 7, ""),
        (shell("kill -TERM $$"), 143, ""),
        (
            program(&["no-such"]),
            127,
            "executable file not found in $PATH",
        ),
        (program(&["/no/such"]), 127, "no such file or directory"),
        (program(&["/etc"]), 126, "is a directory"),
        (program(&["badformat"]), 126, "exec format error"),
        (program(&[]), 125, "no command"),
        (user("nobody"), 125, "nobody"),
        (cwd("/no/dir"), 127, "/no/dir"),
        (cwd("/proc/self/fd/9"), 127, "working directory"),
    ] {
        let shown = format!("{:?} {:?}", spec.argv, spec.cwd);
        let session = container.run(spec);
        assert_eq!(session.code(), code, "{shown}: {session:?}");
        if let Some(Err(failure)) = &session.end {
            assert!(failure.message.contains(words), "{failure:?}");
        }
    }
    // Each of them is reaped: nothing of them is left but the shell's own sleep.
    let begun = Instant::now();
    while container.processes().len() > 2 {
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    container.finish();
}

#[test]
fn many_programs_at_once_with_streams_signals_and_terminals() {
    let Some(mut container) = Container::up(&[], "") else {
        return;
    };
    let mut cat = program(&["cat"]);
    cat.stdin = true;
    let cats: Vec<u32> = (0..5).map(|_| container.exec(cat.clone())).collect();
    let trapped = container.exec(shell(
        "trap 'echo caught; exit 3' TERM; echo on; while :; do sleep 0.1; done",
    ));
    container.until(|c| c.sessions[&trapped].text().contains("on"));
    container.send(&Frame::Signal {
        session: trapped,
        signal: 15,
    });
    assert_eq!(container.end(trapped).code(), 3);
    for &session in &cats {
        container.input(session, format!("to {session}").as_bytes());
        let stream = Stream::Stdin;
        container.send(&Frame::Eof { session, stream });
    }
    for &session in &cats {
        assert_eq!(container.end(session).text(), format!("to {session}"));
    }
    let mut terminal = shell("tty; stty size 2>/dev/null; read x; echo got $x; ls -l $(tty)");
    terminal.stdin = true;
    terminal.terminal = Some(TerminalSize {
        rows: 17,
        columns: 71,
    });
    let session = container.exec(terminal);
    container.until(|c| c.sessions[&session].text().contains("/dev/pts/"));
    container.input(session, b"line\n");
    let ended = container.end(session);
    assert!(
        ended.code() == 0 && ended.text().contains("got line"),
        "{ended:?}"
    );
    // A descendant that holds the output open holds its session up for a while only.
    let begun = Instant::now();
    let session = container.shell("sleep 100 & echo done");
    assert_eq!(session.text(), "done\n");
    assert!(begun.elapsed() < Duration::from_secs(10));
    container.finish();
}

#[test]
fn what_joined_ends_with_the_container_and_is_told_first() {
    let Some(mut container) = Container::up(&[], "") else {
        return;
    };
    let joined = container.exec(shell("echo on; sleep 1000"));
    container.until(|c| c.sessions[&joined].text().contains("on"));
    container.send(&Frame::Signal {
        session: 0,
        signal: 9,
    });
    container.end(0);
    let told = container.sessions[&joined].end.is_some();
    assert!(told, "{:?}", container.sessions[&joined]);
    assert_eq!(container.sessions[&joined].code(), 137);
    container.gone();
}

#[test]
fn usage_and_processes() {
    let Some(mut container) =
        Container::up(&[], "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
    else {
        return;
    };
    let usage = container.usage();
    assert!(usage.cpu_us > 1000 && usage.cpus >= 1, "{usage:?}");
    assert!(usage.memory_bytes > 100_000, "{usage:?}");
    assert!(usage.memory_limit_bytes > usage.memory_bytes, "{usage:?}");
    assert!((1..5).contains(&usage.pids), "{usage:?}");
    let joined = container.exec(program(&["sleep", "77"]));
    container.until(|c| c.sessions[&joined].started);
    let processes = container.processes();
    let sleep = processes.iter().find(|p| p.command == "sleep 77").unwrap();
    assert!(sleep.uid == 0 && "RS".contains(sleep.state), "{sleep:?}");
    // As the host sees it.
    let name = std::fs::read_to_string(format!("/proc/{}/comm", sleep.pid)).unwrap();
    assert_eq!(name, "sleep\n");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let age = now.as_secs() as i64 - sleep.started_ns / 1_000_000_000;
    assert!((-2..60).contains(&age), "{age}");
    container.finish();
}

#[test]
fn a_frozen_container_stands_still_can_be_copied_and_killed() {
    let Some(mut container) = Container::up(&[], "echo data > /srv/file") else {
        return;
    };
    let ticker = container.exec(shell("while :; do echo tick; sleep 0.05; done"));
    container.until(|c| c.sessions[&ticker].text().contains("tick\ntick"));
    assert_eq!(container.ask(Request::Freeze), Reply::Done);
    container.usage();
    let before = container.sessions[&ticker].text().len();
    std::thread::sleep(Duration::from_millis(400));
    container.usage();
    assert_eq!(container.sessions[&ticker].text().len(), before);
    let refused = container.shell("true");
    assert_eq!(refused.code(), 125);
    let archive = container.builtin(archive_out("/srv/file"), b"");
    assert!(
        archive.code() == 0 && archive.text().contains("data"),
        "{archive:?}"
    );
    assert_eq!(container.ask(Request::Thaw), Reply::Done);
    container.until(|c| c.sessions[&ticker].text().len() > before);
    assert_eq!(container.ask(Request::Freeze), Reply::Done);
    container.finish();
}

#[test]
fn limits_can_be_changed() {
    let Some(mut container) = Container::up(&[], "") else {
        return;
    };
    let limit = |pids, memory_bytes| {
        Request::Limit(CgroupLimits {
            memory_bytes,
            pids,
            cpu_quota_us: 0,
        })
    };
    match container.ask(limit(6, 0)) {
        Reply::Failed(why) if why.contains("controller is not available") => {
            eprintln!("skipped: {why}");
            return;
        }
        reply => assert_eq!(reply, Reply::Done),
    }
    let session = container.shell("for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done");
    let said = String::from_utf8_lossy(&session.error).into_owned();
    assert!(said.contains("can't fork"), "{said}");
    let reply = container.ask(limit(0, 4096));
    assert!(
        matches!(&reply, Reply::Failed(why) if why.contains("bytes in use")),
        "{reply:?}"
    );
    assert_eq!(container.ask(limit(0, 256 << 20)), Reply::Done);
    assert_eq!(container.usage().memory_limit_bytes, 256 << 20);
    container.finish();
}

#[test]
fn files_go_in_and_out_and_changes_are_told() {
    let script = "echo new > /srv/new; mkdir /etc/d; rm /etc/group; echo more >> /etc/passwd; \
                  touch /tmp/gone; rm /tmp/gone; echo s3cr3t > /t/hidden; \
                  mknod /srv/null c 1 3; chmod 4755 /srv/new";
    let args = [
        "--tmpfs",
        "/t",
        "--hosts",
        "1.2.3.4 here",
        "--resolv",
        "nameserver 9.9.9.9",
    ];
    let Some(mut container) = Container::up(&args, script) else {
        return;
    };
    let archive = container.builtin(archive_out("/srv"), b"").output.clone();
    let listed = container.builtin(archive_in("/tmp"), &archive);
    assert_eq!(listed.code(), 0, "{listed:?}");
    let check = "cat /tmp/srv/new; test -u /tmp/srv/new && test -c /tmp/srv/null && echo kept";
    assert_eq!(container.shell(check).text(), "new\nkept\n");
    // What is mounted there is seen as the container sees it.
    let hidden = container.builtin(archive_out("/t/hidden"), b"");
    assert!(hidden.text().contains("s3cr3t"), "{hidden:?}");
    let missing = container.builtin(archive_out("/nowhere"), b"");
    match &missing.end {
        Some(Err(failure)) => {
            assert_eq!(failure.kind, FailureKind::NotFound);
            assert_eq!(
                failure.message,
                "Could not find the file /nowhere in container"
            );
        }
        other => panic!("{other:?}"),
    }
    let broken = container.builtin(archive_in("/tmp"), &[7; 2000]);
    assert_eq!(broken.code(), 1);
    assert_eq!(broken.error.iter().filter(|&&b| b == b'\n').count(), 1);
    let text = container.builtin(Builtin::Changes, b"").text();
    let changes: Vec<_> = text.split_terminator('\0').collect();
    assert_eq!(
        changes,
        [
            "C /etc",
            "A /etc/d",
            "D /etc/group",
            "C /etc/passwd",
            "C /srv",
            "A /srv/new",
            "A /srv/null",
            "A /t",
            "C /tmp",
            "A /tmp/srv",
            "A /tmp/srv/new",
            "A /tmp/srv/null",
        ]
    );
    let layer = container.builtin(Builtin::Layer, b"").text();
    assert!(layer.contains("etc/.wh.group") && !layer.contains("s3cr3t"));
    let export = container.builtin(Builtin::Export, b"");
    assert_eq!(export.code(), 0);
    let text = export.text();
    assert!(text.contains("bin/busybox") && text.contains("srv/new"));
    // Names in a tar begin behind zeros.
    assert!(
        !text.contains("s3cr3t") && !text.contains("1.2.3.4") && !text.contains("\0proc/version")
    );
    let stat = container
        .builtin(
            Builtin::Stat {
                path: b"/srv/new".to_vec(),
            },
            b"",
        )
        .text();
    assert!(stat.contains("\"size\":4,"), "{stat}");
    container.finish();
}

#[test]
fn a_container_that_does_not_run_can_be_looked_at() {
    let Some(mut container) = Container::start(&["--builtin", "pause", "--"]) else {
        return;
    };
    container.until(|c| c.sessions[&0].started);
    let archive = container
        .builtin(archive_out("/etc/passwd"), b"")
        .output
        .clone();
    assert_eq!(container.builtin(archive_in("/srv"), &archive).code(), 0);
    assert_eq!(
        container.builtin(Builtin::Changes, b"").text(),
        "C /srv\0A /srv/passwd\0"
    );
    assert_eq!(container.shell("true").code(), 125);
    container.send(&Frame::Signal {
        session: 0,
        signal: 15,
    });
    assert_eq!(container.end(0).code(), 0);
    container.gone();
    // A builtin as the workload itself.
    let Some(mut container) = Container::start(&["--builtin", "export", "--"]) else {
        return;
    };
    assert_eq!(container.end(0).code(), 0);
    assert!(container.sessions[&0].text().contains("bin/busybox"));
    container.gone();
}
