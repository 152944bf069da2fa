//! The agent's processes, tried on this system without any guest: one session of the machine's
//! role on a socket pair. Needs root, as PID 1 has it; without it there is nothing to try.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail as its own lines do"
)]

use hullbox_protocol::{
    Decoder, ExitStatus, FailureKind, Frame, ProcessSpec, Rlimit, Stream, TerminalSize, UserSpec,
    encode_into,
};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Session {
    agent: Child,
    socket: UnixStream,
    decoder: Decoder,
    output: Vec<u8>,
}

/// How a session ended.
#[derive(Debug, PartialEq)]
enum End {
    Exited(ExitStatus),
    Failed(FailureKind, String),
    Closed,
}

impl Session {
    fn start(spec: ProcessSpec) -> Option<Self> {
        if !rustix::process::getuid().is_root() {
            eprintln!("skipped: not root");
            return None;
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        // Whoever runs the tests may ignore SIGINT or SIGHUP, and no shell can trap what it was started with.
        let agent = Command::new("/usr/bin/env")
            .args(["--default-signal=HUP,INT,QUIT", "--"])
            .arg(env!("CARGO_BIN_EXE_hullbox-agent"))
            .env_clear()
            .env("HULLBOX_ROLE", "session")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        let time = Some(Duration::from_secs(20));
        ours.set_read_timeout(time).unwrap();
        let mut session = Self {
            agent,
            socket: ours,
            decoder: Decoder::new(),
            output: Vec::new(),
        };
        session.send(&Frame::Exec {
            session: 0,
            spec: Box::new(spec),
        });
        Some(session)
    }

    fn send(&mut self, frame: &Frame) {
        let mut wire = Vec::new();
        encode_into(frame, &mut wire).unwrap();
        self.socket.write_all(&wire).unwrap();
    }

    fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            let mut chunk = [0; 65536];
            match self.socket.read(&mut chunk).unwrap() {
                0 => return None,
                read => self.decoder.push(&chunk[..read]),
            }
        }
    }

    fn until(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.output).contains(text) {
            match self.next() {
                Some(Frame::Data { bytes, .. }) => self.output.extend(bytes),
                Some(_) => {}
                None => panic!("no {text:?} in {:?}", self.output),
            }
        }
    }

    fn end(&mut self) -> End {
        loop {
            match self.next() {
                Some(Frame::Data { bytes, .. }) => self.output.extend(bytes),
                Some(Frame::Exited { status, .. }) => return End::Exited(status),
                Some(Frame::Failed { failure, .. }) => {
                    return End::Failed(failure.kind, failure.message);
                }
                Some(_) => {}
                None => return End::Closed,
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.agent.wait();
    }
}

fn spec(argv: &[&str]) -> ProcessSpec {
    ProcessSpec {
        argv: argv.iter().map(|a| a.as_bytes().to_vec()).collect(),
        env: vec![b"PATH=/usr/bin:/bin:/usr/sbin:/sbin".to_vec()],
        cwd: "/".into(),
        user: UserSpec::Ids {
            uid: 0,
            gid: 0,
            groups: vec![0],
        },
        stdin: true,
        ..ProcessSpec::default()
    }
}

fn shell(script: &str) -> ProcessSpec {
    spec(&["sh", "-c", script])
}

const fn code(code: u8) -> End {
    End::Exited(ExitStatus::Code(code))
}

#[test]
fn exit_codes_and_signals() {
    for (script, expected) in [
        ("exit 0", code(0)),
        ("exit 7", code(7)),
        (
            "kill -9 $$",
            End::Exited(ExitStatus::Signal {
                signal: 9,
                oom: false,
            }),
        ),
        (
            "kill -SEGV $$",
            End::Exited(ExitStatus::Signal {
                signal: 11,
                oom: false,
            }),
        ),
    ] {
        let Some(mut session) = Session::start(shell(script)) else {
            return;
        };
        let end = session.end();
        let same = match (&end, &expected) {
            // Whether the kernel killed for memory is a question for the container's role.
            (
                End::Exited(ExitStatus::Signal { signal: a, .. }),
                End::Exited(ExitStatus::Signal { signal: b, .. }),
            ) => a == b,
            _ => end == expected,
        };
        assert!(same, "{script}: {end:?}");
    }
}

#[test]
fn what_cannot_be_executed() {
    let directory = tempdir("exec");
    let bad = directory.join("bad");
    std::fs::write(&bad, "\u{7f}ELF nothing").unwrap();
    make_executable(&bad);
    let orphan = directory.join("orphan");
    std::fs::write(&orphan, "#!/no/such/interpreter\n").unwrap();
    make_executable(&orphan);
    let plain = directory.join("plain");
    std::fs::write(&plain, "").unwrap();
    let path = |path: &std::path::Path| path.display().to_string();
    for (program, kind, words) in [
        (
            "no-such-program".to_owned(),
            FailureKind::NotFound,
            "executable file not found in $PATH",
        ),
        (
            "/no/such".to_owned(),
            FailureKind::NotFound,
            "no such file or directory",
        ),
        (
            path(&orphan),
            FailureKind::NotFound,
            "no such file or directory",
        ),
        (
            "/etc".to_owned(),
            FailureKind::NotExecutable,
            "is a directory",
        ),
        (
            path(&plain),
            FailureKind::NotExecutable,
            "permission denied",
        ),
        (path(&bad), FailureKind::NotExecutable, "exec format error"),
    ] {
        let Some(mut session) = Session::start(spec(&[&program])) else {
            return;
        };
        let End::Failed(got, message) = session.end() else {
            panic!("{program} ran");
        };
        assert_eq!(got, kind, "{program}: {message}");
        assert!(message.contains(words), "{program}: {message}");
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn arguments_and_environment_are_exact_bytes() {
    let mut odd = spec(&[
        "sh",
        "-c",
        "printf %s \"$1\" | od -An -tx1; printf %s \"$X\" | od -An -tx1; env | wc -l",
    ]);
    odd.argv.push(b"name".to_vec());
    odd.argv.push(vec![0xff, 0x0a, 0x80]);
    odd.env.push(b"X=\xfe=\n".to_vec());
    let Some(mut session) = Session::start(odd) else {
        return;
    };
    assert_eq!(session.end(), code(0));
    let text = session.text();
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!(words[..6], ["ff", "0a", "80", "fe", "3d", "0a"]);
}

#[test]
fn no_descriptor_of_the_agents_is_left_open() {
    let Some(mut session) = Session::start(spec(&["ls", "/proc/self/fd"])) else {
        return;
    };
    assert_eq!(session.end(), code(0));
    // The fourth is the directory that is being listed.
    assert_eq!(
        session.text().split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"]
    );
}

#[test]
fn user_limits_mask_and_capabilities() {
    let mut limited = shell(
        "id -u; id -g; id -G; umask; ulimit -n; grep -E 'CapEff|CapBnd|NoNew' /proc/self/status; touch /dev/stdout 2>/dev/null && echo x >/dev/stdout",
    );
    limited.user = UserSpec::Ids {
        uid: 1234,
        gid: 4321,
        groups: vec![4321, 77],
    };
    limited.umask = Some(0o027);
    limited.rlimits.push(Rlimit {
        resource: 7,
        soft: 99,
        hard: 100,
    });
    limited.capabilities = Some(0x21);
    limited.no_new_privileges = true;
    let Some(mut session) = Session::start(limited) else {
        return;
    };
    session.end();
    let text = session.text();
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!(
        words,
        [
            "1234",
            "4321",
            "4321",
            "77",
            "0027",
            "99",
            "CapEff:",
            "0000000000000000",
            "CapBnd:",
            "0000000000000021",
            "NoNewPrivs:",
            "1",
            "x"
        ]
    );
}

#[test]
fn a_directory_that_is_not_there_is_an_error_in_the_machine() {
    let mut lost = shell("pwd");
    lost.cwd = "/no/such/directory".into();
    let Some(mut session) = Session::start(lost) else {
        return;
    };
    let End::Failed(FailureKind::Setup, message) = session.end() else {
        panic!("it ran");
    };
    assert!(message.contains("/no/such/directory"), "{message}");
}

#[test]
fn a_terminal_controls_its_session() {
    let mut interactive = shell(
        // A shell that is about to read would look at the signal only after the line.
        "tty >/dev/null && stty size; trap 'echo caught; c=1' INT; echo ready; \
         while [ -z \"$c\" ]; do :; done; read line; echo got $line",
    );
    interactive.terminal = Some(TerminalSize {
        rows: 17,
        columns: 71,
    });
    let Some(mut session) = Session::start(interactive) else {
        return;
    };
    session.until("ready");
    assert!(session.text().contains("17 71"), "{}", session.text());
    // Ctrl-C is a byte that the terminal turns into a signal for its foreground group.
    let typed = |bytes: &[u8]| Frame::Data {
        session: 0,
        stream: Stream::Stdin,
        bytes: bytes.to_vec(),
    };
    session.send(&typed(b"\x03"));
    session.until("caught");
    session.send(&typed(b"line\n"));
    session.until("got");
    assert_eq!(session.end(), code(0));
}

#[test]
fn streams_beside_a_terminal_are_pipes() {
    let mut mixed = shell(
        "test -t 0 || echo in; test -t 1 || echo out; test -t 2 && echo err >&2; echo tty >/dev/tty; cat",
    );
    mixed.terminal = Some(TerminalSize::default());
    mixed.pipes.stdin = true;
    mixed.pipes.stdout = true;
    let Some(mut session) = Session::start(mixed) else {
        return;
    };
    session.send(&Frame::Data {
        session: 0,
        stream: Stream::Stdin,
        bytes: b"through".to_vec(),
    });
    session.send(&Frame::Eof {
        session: 0,
        stream: Stream::Stdin,
    });
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(frame) = session.next() {
        match frame {
            Frame::Data {
                stream: Stream::Stdout,
                bytes,
                ..
            } => out.extend(bytes),
            Frame::Data { bytes, .. } => err.extend(bytes),
            Frame::Exited { .. } => break,
            _ => {}
        }
    }
    assert_eq!(String::from_utf8(out).unwrap(), "in\nout\nthrough");
    assert_eq!(String::from_utf8(err).unwrap(), "err\r\ntty\r\n");
}

#[test]
fn signals_reach_the_whole_group() {
    let Some(mut session) = Session::start(shell(
        // The parent's trap comes first: nothing may be signalled before both are set.
        "trap 'wait; echo parent; exit 5' TERM; (trap 'echo child; exit' TERM; echo up; while :; do sleep 0.1; done) & wait",
    )) else {
        return;
    };
    session.until("up");
    session.send(&Frame::Signal {
        session: 0,
        signal: 15,
    });
    assert_eq!(session.end(), code(5));
    let text = session.text();
    assert!(text.contains("child") && text.contains("parent"), "{text}");
}

#[test]
fn a_lost_client_hangs_up_and_detached_processes_stay() {
    let directory = tempdir("hangup");
    let (hup, stay) = (directory.join("hup"), directory.join("stay"));
    let script = format!(
        "trap 'echo > {}' HUP; \
         setsid sh -c 'echo up; exec >/dev/null 2>&1 </dev/null; sleep 4; echo > {}' & \
         exec >/dev/null 2>&1; while :; do sleep 0.1; done",
        hup.display(),
        stay.display()
    );
    let Some(mut session) = Session::start(shell(&script)) else {
        return;
    };
    session.until("up");
    let begun = Instant::now();
    session.socket.shutdown(std::net::Shutdown::Both).unwrap();
    session.agent.wait().unwrap();
    // The script does not end on SIGHUP; SIGKILL comes two seconds later.
    assert!(hup.exists());
    let took = begun.elapsed();
    assert!(
        took > Duration::from_secs(1) && took < Duration::from_secs(8),
        "{took:?}"
    );
    while !stay.exists() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "it did not survive"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn hostile_frames_end_the_session_and_its_process() {
    let Some(mut session) = Session::start(shell("echo up; sleep 100")) else {
        return;
    };
    session.until("up");
    session.socket.write_all(&[0xff; 100]).unwrap();
    let begun = Instant::now();
    let _ = session.agent.wait();
    assert!(begun.elapsed() < Duration::from_secs(10));
}

fn tempdir(name: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("hullbox-agent-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn make_executable(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
