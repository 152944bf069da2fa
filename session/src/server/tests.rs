mod direct;

use super::*;
use crate::client::{AttachOptions, Outcome, Streams, attach_streams};
use hullbox_protocol::{INITIAL_CREDIT, MAX_DATA, encode_data, encode_into};
use rustix::process::{PidfdFlags, pidfd_open};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::thread;

fn spec(argv: &[&str]) -> Box<ProcessSpec> {
    Box::new(ProcessSpec {
        argv: argv.iter().map(|a| a.as_bytes().to_vec()).collect(),
        stdin: true,
        ..ProcessSpec::default()
    })
}

fn spawn(spec: &ProcessSpec) -> (Child, Stdio) {
    let args: Vec<_> = spec
        .argv
        .iter()
        .map(|a| String::from_utf8_lossy(a))
        .collect();
    let piped = std::process::Stdio::piped;
    let mut command = Command::new(&*args[0]);
    command.args(args[1..].iter().map(|a| &**a));
    let mut child = command
        .stdin(piped())
        .stdout(piped())
        .stderr(piped())
        .spawn()
        .unwrap();
    let stdio = Stdio::Pipes {
        stdin: child.stdin.take().map(Into::into),
        stdout: child.stdout.take().map(Into::into),
        stderr: child.stderr.take().map(Into::into),
    };
    (child, stdio)
}

/// Serves one session the way a backend does. Returns how the connection ended.
fn serve(connection: OwnedFd, drain: Drain) -> Event {
    let mut pump = Pump::new(connection).unwrap();
    pump.accept_descriptors();
    let mut running: Option<(u32, Child, OwnedFd)> = None;
    loop {
        let exited: Vec<_> = running.iter().map(|(_, _, fd)| fd.as_fd()).collect();
        match pump.wait(&exited, None).unwrap() {
            Event::Exec { session, spec } => {
                let (child, stdio) = spawn(&spec);
                let pid = rustix::process::Pid::from_child(&child);
                let exited = pidfd_open(pid, PidfdFlags::empty()).unwrap();
                pump.open(session, stdio).unwrap();
                running = Some((session, child, exited));
            }
            Event::Ready(_) => {
                let (session, mut child, _) = running.take().unwrap();
                let code = child.wait().unwrap().code().unwrap_or(255);
                let status = ExitStatus::Code(u8::try_from(code).unwrap());
                pump.finish(session, status, drain);
            }
            Event::Finished { .. } => {}
            end => {
                if let Some((_, mut child, _)) = running.take() {
                    child.kill().unwrap();
                    child.wait().unwrap();
                }
                return end;
            }
        }
    }
}

/// A peer that reads and writes frames by hand.
struct Peer {
    socket: UnixStream,
    decoder: hullbox_protocol::Decoder,
}

impl Peer {
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
            let mut chunk = [0; 100_000];
            match self.socket.read(&mut chunk) {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.decoder.push(&chunk[..n]),
            }
        }
    }

    /// All frames up to `Exited`, with data counted instead of kept.
    fn until_exit(&mut self) -> (usize, ExitStatus) {
        let mut count = 0;
        loop {
            match self.next().unwrap() {
                Frame::Data { bytes, .. } => count += bytes.len(),
                Frame::Exited { status, .. } => return (count, status),
                _ => {}
            }
        }
    }
}

fn start(argv: &[&str], drain: Drain) -> (Peer, thread::JoinHandle<Event>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || serve(theirs.into(), drain));
    let mut peer = Peer {
        socket: ours,
        decoder: hullbox_protocol::Decoder::new(),
    };
    let spec = spec(argv);
    peer.send(&Frame::Exec { session: 0, spec });
    (peer, server)
}

fn pattern(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

/// Runs `argv` with `input` through a real client and a real server.
fn run(argv: &[&str], input: Vec<u8>) -> (Outcome, Vec<u8>, Vec<u8>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    run_on(ours, theirs, argv, input)
}

/// As [`run`], with a client and a server that are joined somehow.
fn run_on(
    ours: UnixStream,
    theirs: UnixStream,
    argv: &[&str],
    input: Vec<u8>,
) -> (Outcome, Vec<u8>, Vec<u8>) {
    let server = thread::spawn(move || serve(theirs.into(), Drain::ToEnd));
    let (stdin, mut feed) = std::io::pipe().unwrap();
    let (mut out, stdout) = std::io::pipe().unwrap();
    let (mut err, stderr) = std::io::pipe().unwrap();
    let feeder = thread::spawn(move || {
        // The process may well not read it all.
        let _ = feed.write_all(&input);
    });
    let read_out = thread::spawn(move || {
        let mut all = Vec::new();
        out.read_to_end(&mut all).unwrap();
        all
    });
    let read_err = thread::spawn(move || {
        let mut all = Vec::new();
        err.read_to_end(&mut all).unwrap();
        all
    });
    let options = AttachOptions {
        session: 0,
        stdin: true,
        input_credit: INITIAL_CREDIT,
        tty: false,
        sig_proxy: false,
        detach: None,
    };
    let exec = Frame::Exec {
        session: 0,
        spec: spec(argv),
    };
    let streams = Streams {
        stdin: stdin.as_fd(),
        stdout: stdout.as_fd(),
        stderr: stderr.as_fd(),
    };
    let outcome = attach_streams(ours.into(), &[exec], options, streams, &mut |_| {}).unwrap();
    drop((stdin, stdout, stderr));
    feeder.join().unwrap();
    assert!(matches!(server.join().unwrap(), Event::Closed(None)));
    (outcome, read_out.join().unwrap(), read_err.join().unwrap())
}

#[test]
fn a_big_binary_stream_survives_both_ways_at_once() {
    let input = pattern(24 * 1024 * 1024 + 7);
    let (outcome, out, err) = run(&["cat"], input.clone());
    assert_eq!(outcome, Outcome::Exited(ExitStatus::Code(0)));
    assert!(out == input, "{} of {} bytes", out.len(), input.len());
    assert!(err.is_empty());
}

/// Passes on what comes in pieces of all sizes, so that frames are cut anywhere and a sender mostly
/// finds less room than it wants.
fn dribble(mut from: UnixStream, mut to: UnixStream) {
    let mut buffer = vec![0; 200_000];
    for size in pattern(1 << 20) {
        let most = match size {
            0..64 => usize::from(size) + 1,
            64..192 => usize::from(size) * 97,
            _ => buffer.len(),
        };
        match from.read(&mut buffer[..most]) {
            Ok(read @ 1..) if to.write_all(&buffer[..read]).is_ok() => {}
            _ => break,
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[test]
fn frames_may_be_cut_anywhere() {
    let (ours, left) = UnixStream::pair().unwrap();
    let (right, theirs) = UnixStream::pair().unwrap();
    // The least that the system gives.
    for socket in [&left, &right] {
        rustix::net::sockopt::set_socket_send_buffer_size(socket, 1).unwrap();
    }
    let input = pattern(9 * 1024 * 1024 + 3);
    let ends = [&left, &right].map(|end| end.try_clone().unwrap());
    let [left_too, right_too] = ends;
    let relays = [
        thread::spawn(move || dribble(left, right)),
        thread::spawn(move || dribble(right_too, left_too)),
    ];
    let (outcome, out, _) = run_on(ours, theirs, &["cat"], input.clone());
    assert_eq!(outcome, Outcome::Exited(ExitStatus::Code(0)));
    assert!(out == input, "{} of {} bytes", out.len(), input.len());
    for relay in relays {
        relay.join().unwrap();
    }
}

#[test]
fn both_outputs_flow_at_once_and_apart() {
    let script = "cat >&2 & head -c 3000000 /dev/zero; wait; exit 7";
    // dash gives background commands /dev/null as input unless told otherwise.
    let script = format!("exec 3<&0; {}", script.replace("cat", "cat <&3"));
    let input = pattern(2_000_001);
    let (outcome, out, err) = run(&["sh", "-c", &script], input.clone());
    assert_eq!(outcome, Outcome::Exited(ExitStatus::Code(7)));
    assert_eq!(out.len(), 3_000_000);
    assert!(err == input);
}

#[test]
fn a_half_closed_input_still_gets_its_answer() {
    let (_, out, _) = run(&["wc", "-c"], pattern(1_234_567));
    assert_eq!(String::from_utf8(out).unwrap().trim(), "1234567");
}

#[test]
fn a_process_that_stops_reading_does_not_hang_its_feeder() {
    let (outcome, out, _) = run(&["head", "-c", "3"], b"abc".repeat(3_000_000));
    assert_eq!(outcome, Outcome::Exited(ExitStatus::Code(0)));
    assert_eq!(out, b"abc");
}

#[test]
fn what_an_early_exit_left_in_the_pipe_comes_before_the_exit() {
    for _ in 0..20 {
        let (mut peer, _server) = start(
            &["sh", "-c", "head -c 60000 /dev/zero; exit 3"],
            Drain::ToEnd,
        );
        assert_eq!(peer.until_exit(), (60_000, ExitStatus::Code(3)));
    }
}

#[test]
fn a_reader_that_stalls_bounds_the_sender() {
    let (mut peer, _server) = start(&["yes"], Drain::ToEnd);
    // Without a word of credit, exactly the initial credit arrives and then nothing.
    let mut got = 0;
    peer.socket
        .set_read_timeout(Some(Duration::from_millis(400)))
        .unwrap();
    while let Some(frame) = peer.next() {
        if let Frame::Data { bytes, .. } = frame {
            got += bytes.len();
        }
    }
    assert_eq!(got, INITIAL_CREDIT as usize);
    peer.send(&Frame::Credit {
        session: 0,
        stream: Stream::Stdout,
        bytes: 10,
    });
    let Some(Frame::Data { bytes, .. }) = peer.next() else {
        panic!("no data for the credit");
    };
    assert_eq!(bytes.len(), 10);
}

#[test]
fn a_process_that_never_reads_holds_input_at_its_credit() {
    let (mut peer, server) = start(&["sleep", "30"], Drain::ToEnd);
    let chunk = vec![7; MAX_DATA];
    let mut wire = Vec::new();
    encode_data(0, Stream::Stdin, &chunk, &mut wire).unwrap();
    for _ in 0..INITIAL_CREDIT as usize / MAX_DATA {
        peer.socket.write_all(&wire).unwrap();
    }
    peer.socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    // Credit only for what was passed on: what the pipe holds, and it was made larger.
    let mut credited = 0;
    while let Some(frame) = peer.next() {
        match frame {
            Frame::Credit { bytes, .. } => credited += bytes as usize,
            other => panic!("{other:?}"),
        }
    }
    assert!(credited <= 2 * MAX_DATA, "{credited}");
    for _ in 0..INITIAL_CREDIT as usize / MAX_DATA {
        let _ = peer.socket.write_all(&wire);
    }
    assert!(matches!(
        server.join().unwrap(),
        Event::Closed(Some(ConnectionError::Violation(_)))
    ));
}

#[test]
fn nobody_reads_is_passed_on_as_a_broken_pipe() {
    let (mut peer, _server) = start(
        &[
            "sh",
            "-c",
            "trap '' PIPE; while echo x; do :; done 2>/dev/null; exit 9",
        ],
        Drain::ToEnd,
    );
    let Some(Frame::Data { .. }) = peer.next() else {
        panic!("no output");
    };
    peer.send(&Frame::Eof {
        session: 0,
        stream: Stream::Stdout,
    });
    assert_eq!(peer.until_exit().1, ExitStatus::Code(9));
}

#[test]
fn descendants_that_keep_the_output_hold_it_up_for_the_grace_only() {
    let begun = Instant::now();
    let argv = ["sh", "-c", "sleep 20 & echo hi"];
    let (mut peer, _server) = start(&argv, Drain::Grace(Duration::from_millis(200)));
    assert_eq!(peer.until_exit(), (3, ExitStatus::Code(0)));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_lost_connection_is_reported() {
    let (peer, server) = start(&["sleep", "30"], Drain::ToEnd);
    drop(peer);
    let end = server.join().unwrap();
    assert!(matches!(end, Event::Closed(None)), "{end:?}");
}

#[test]
fn hostile_frames_end_the_connection() {
    let frames = [
        Frame::Exec {
            session: 0,
            spec: spec(&["true"]),
        },
        Frame::Data {
            session: 0,
            stream: Stream::Stdout,
            bytes: vec![1],
        },
        Frame::Log("no".into()),
        Frame::Exited {
            session: 0,
            status: ExitStatus::Code(0),
        },
    ];
    for frame in frames {
        let (mut peer, server) = start(&["sleep", "30"], Drain::ToEnd);
        peer.send(&frame);
        let Event::Closed(Some(ConnectionError::Violation(_))) = server.join().unwrap() else {
            panic!("{frame:?} was accepted");
        };
    }
    let (mut peer, server) = start(&["sleep", "30"], Drain::ToEnd);
    peer.socket.write_all(&[0xff; 64]).unwrap();
    let Event::Closed(Some(ConnectionError::Decode(_))) = server.join().unwrap() else {
        panic!("junk was accepted");
    };
}

#[test]
fn frames_for_nobody_are_forgotten() {
    let (mut peer, _server) = start(&["cat"], Drain::ToEnd);
    let session = 77;
    for frame in [
        Frame::Data {
            session,
            stream: Stream::Stdin,
            bytes: vec![1; 9],
        },
        Frame::Eof {
            session,
            stream: Stream::Stdin,
        },
        Frame::Eof {
            session,
            stream: Stream::Stderr,
        },
        Frame::Credit {
            session,
            stream: Stream::Stdout,
            bytes: u32::MAX,
        },
        Frame::Resize {
            session,
            size: TerminalSize::default(),
        },
        Frame::Data {
            session: 0,
            stream: Stream::Stdin,
            bytes: b"hello".to_vec(),
        },
        Frame::Eof {
            session: 0,
            stream: Stream::Stdin,
        },
    ] {
        peer.send(&frame);
    }
    assert_eq!(peer.until_exit(), (5, ExitStatus::Code(0)));
}

#[test]
fn a_terminal_has_a_size_echoes_and_ends_with_its_last_slave() {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut pump = Pump::new(theirs.into()).unwrap();
    pump.open(0, Stdio::Terminal(master)).unwrap();
    let mut peer = Peer {
        socket: ours,
        decoder: hullbox_protocol::Decoder::new(),
    };
    peer.send(&Frame::Resize {
        session: 0,
        size: TerminalSize {
            rows: 31,
            columns: 97,
        },
    });
    peer.send(&Frame::Data {
        session: 0,
        stream: Stream::Stdin,
        bytes: b"typed\n".to_vec(),
    });
    let tick = Some(Duration::from_millis(100));
    assert!(matches!(pump.wait(&[], tick).unwrap(), Event::Timeout));
    let size = rustix::termios::tcgetwinsize(&slave).unwrap();
    assert_eq!((size.ws_row, size.ws_col), (31, 97));
    let mut line = [0; 64];
    assert_eq!(rustix::io::read(&slave, &mut line).unwrap(), 6);
    rustix::io::write(&slave, b"answer\n").unwrap();
    drop(slave);
    pump.finish(0, ExitStatus::Code(0), Drain::ToEnd);
    assert!(matches!(
        pump.wait(&[], None).unwrap(),
        Event::Finished { session: 0 }
    ));
    let mut text = Vec::new();
    while let Some(frame) = peer.next() {
        match frame {
            Frame::Data { bytes, .. } => text.extend(bytes),
            Frame::Exited { .. } => break,
            _ => {}
        }
    }
    assert_eq!(text, b"typed\r\nanswer\r\n");
}

#[test]
fn input_that_came_before_the_process_is_kept_for_it() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut pump = Pump::new(theirs.into()).unwrap();
    let mut peer = Peer {
        socket: ours,
        decoder: hullbox_protocol::Decoder::new(),
    };
    peer.send(&Frame::Exec {
        session: 5,
        spec: spec(&["cat"]),
    });
    peer.send(&Frame::Data {
        session: 5,
        stream: Stream::Stdin,
        bytes: b"early".to_vec(),
    });
    peer.send(&Frame::Eof {
        session: 5,
        stream: Stream::Stdin,
    });
    let Event::Exec { session, spec } = pump.wait(&[], None).unwrap() else {
        panic!("no exec");
    };
    let tick = Some(Duration::from_millis(50));
    assert!(matches!(pump.wait(&[], tick).unwrap(), Event::Timeout));
    let (mut child, stdio) = spawn(&spec);
    pump.open(session, stdio).unwrap();
    assert!(matches!(pump.wait(&[], tick).unwrap(), Event::Timeout));
    child.wait().unwrap();
    pump.finish(session, ExitStatus::Code(0), Drain::ToEnd);
    assert!(matches!(
        pump.wait(&[], None).unwrap(),
        Event::Finished { session: 5 }
    ));
    assert_eq!(peer.until_exit().0, 5);
}

#[test]
fn a_session_number_can_be_used_again() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut pump = Pump::new(theirs.into()).unwrap();
    let mut peer = Peer {
        socket: ours,
        decoder: hullbox_protocol::Decoder::new(),
    };
    for round in 0..3 {
        peer.send(&Frame::Exec {
            session: 4,
            spec: spec(&["true"]),
        });
        let Event::Exec { session, .. } = pump.wait(&[], None).unwrap() else {
            panic!("no exec in round {round}");
        };
        pump.finish(session, ExitStatus::Code(round), Drain::ToEnd);
        let finished = pump.wait(&[], None).unwrap();
        assert!(matches!(finished, Event::Finished { session: 4 }));
        assert_eq!(peer.until_exit().1, ExitStatus::Code(round));
    }
}
