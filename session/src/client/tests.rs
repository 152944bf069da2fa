use super::*;
use hullbox_protocol::{Decoder, FailureKind, INITIAL_CREDIT, encode_into};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

/// Signals and the one raw terminal belong to the whole process: such tests take turns.
static ALONE: Mutex<()> = Mutex::new(());

const OPTIONS: AttachOptions = AttachOptions {
    session: 0,
    stdin: false,
    input_credit: INITIAL_CREDIT,
    tty: false,
    sig_proxy: false,
    detach: None,
};

struct Peer {
    socket: UnixStream,
    decoder: Decoder,
}

impl Peer {
    fn send(&mut self, frame: &Frame) {
        let mut wire = Vec::new();
        encode_into(frame, &mut wire).unwrap();
        let _ = self.socket.write_all(&wire);
    }

    fn output(&mut self, bytes: &[u8]) {
        for bytes in bytes.chunks(MAX_DATA) {
            self.send(&Frame::Data {
                session: 0,
                stream: Stream::Stdout,
                bytes: bytes.to_vec(),
            });
        }
    }

    fn exit(&mut self, code: u8) {
        self.send(&Frame::Exited {
            session: 0,
            status: ExitStatus::Code(code),
        });
    }

    fn next(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return frame;
            }
            let mut chunk = [0; 4096];
            let read = self.socket.read(&mut chunk).unwrap();
            assert!(read > 0, "the client left");
            self.decoder.push(&chunk[..read]);
        }
    }
}

fn pair() -> (OwnedFd, Peer) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let peer = Peer {
        socket: theirs,
        decoder: Decoder::new(),
    };
    (ours.into(), peer)
}

/// Attaches with /dev/null as input and a pipe as output.
fn collect(connection: OwnedFd, options: AttachOptions) -> (Result<Outcome, AttachError>, Vec<u8>) {
    let null = std::fs::File::open("/dev/null").unwrap();
    let (mut out, stdout) = std::io::pipe().unwrap();
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        out.read_to_end(&mut all).unwrap();
        all
    });
    let streams = Streams {
        stdin: null.as_fd(),
        stdout: stdout.as_fd(),
        stderr: stdout.as_fd(),
    };
    let outcome = attach_streams(connection, &[], options, streams, &mut |_| {});
    drop(stdout);
    (outcome, reader.join().unwrap())
}

/// Joined with this as standard output, and nothing else.
fn attach_to(connection: OwnedFd, stdout: &impl AsFd) -> Result<Outcome, AttachError> {
    let null = std::fs::File::open("/dev/null").unwrap();
    let streams = Streams {
        stdin: null.as_fd(),
        stdout: stdout.as_fd(),
        stderr: null.as_fd(),
    };
    attach_streams(connection, &[], OPTIONS, streams, &mut |_| {})
}

#[test]
fn output_is_complete_before_the_outcome() {
    let (connection, mut peer) = pair();
    let peer = thread::spawn(move || {
        peer.output(&[5; 900_000]);
        peer.exit(3);
    });
    let (outcome, out) = collect(connection, OPTIONS);
    assert_eq!(outcome.unwrap(), Outcome::Exited(ExitStatus::Code(3)));
    assert_eq!(out.len(), 900_000);
    peer.join().unwrap();
}

#[test]
fn failures_and_disconnections_are_outcomes() {
    let (connection, mut peer) = pair();
    let failure = Failure {
        kind: FailureKind::NotFound,
        message: "no".into(),
    };
    peer.send(&Frame::Failed {
        session: 0,
        failure: failure.clone(),
    });
    let (outcome, _) = collect(connection, OPTIONS);
    assert_eq!(outcome.unwrap(), Outcome::Failed(failure));

    let (connection, mut peer) = pair();
    peer.output(b"last words");
    drop(peer);
    let (outcome, out) = collect(connection, OPTIONS);
    assert_eq!(outcome.unwrap(), Outcome::Disconnected);
    assert_eq!(out, b"last words");
}

#[test]
fn an_exit_that_arrived_counts_although_the_peer_is_gone() {
    let (connection, mut peer) = pair();
    peer.output(b"x");
    peer.exit(4);
    drop(peer);
    let options = AttachOptions {
        stdin: true,
        ..OPTIONS
    };
    let (outcome, out) = collect(connection, options);
    assert_eq!(outcome.unwrap(), Outcome::Exited(ExitStatus::Code(4)));
    assert_eq!(out, b"x");
}

#[test]
fn without_interactive_not_a_byte_of_input_is_read() {
    let (connection, mut peer) = pair();
    let (mut stdin, mut feed) = std::io::pipe().unwrap();
    feed.write_all(b"for the next program").unwrap();
    drop(feed);
    peer.exit(0);
    let sink = std::fs::File::create("/dev/null").unwrap();
    let streams = Streams {
        stdin: stdin.as_fd(),
        stdout: sink.as_fd(),
        stderr: sink.as_fd(),
    };
    attach_streams(connection, &[], OPTIONS, streams, &mut |_| {}).unwrap();
    let mut rest = String::new();
    stdin.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "for the next program");
}

#[test]
fn a_reader_who_leaves_is_told_on_and_is_no_error() {
    let (connection, mut peer) = pair();
    let (out, stdout) = std::io::pipe().unwrap();
    drop(out);
    let peer = thread::spawn(move || {
        peer.output(b"nobody hears");
        let told = peer.next();
        peer.output(&[0; 100]);
        peer.exit(1);
        told
    });
    let null = std::fs::File::open("/dev/null").unwrap();
    let streams = Streams {
        stdin: null.as_fd(),
        stdout: stdout.as_fd(),
        stderr: stdout.as_fd(),
    };
    let outcome = attach_streams(connection, &[], OPTIONS, streams, &mut |_| {}).unwrap();
    assert_eq!(outcome, Outcome::Exited(ExitStatus::Code(1)));
    let told = peer.join().unwrap();
    assert!(matches!(
        told,
        Frame::Eof {
            stream: Stream::Stdout | Stream::Stderr,
            ..
        }
    ));
}

#[test]
fn a_socket_that_was_closed_is_a_reader_who_left() {
    let (connection, mut peer) = pair();
    let (stdout, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let peer = thread::spawn(move || {
        let told = peer.next();
        peer.exit(2);
        told
    });
    attach_to(connection, &stdout).unwrap();
    let told = Frame::Eof {
        session: 0,
        stream: Stream::Stdout,
    };
    assert_eq!(peer.join().unwrap(), told);
}

#[test]
fn a_full_disk_is_an_error_with_the_outcome() {
    let (connection, mut peer) = pair();
    peer.output(b"too much");
    peer.exit(0);
    let full = std::fs::File::create("/dev/full").unwrap();
    let error = attach_to(connection, &full).unwrap_err();
    let AttachError::Output { outcome, source } = error else {
        panic!("{error:?}");
    };
    assert_eq!(*outcome, Outcome::Exited(ExitStatus::Code(0)));
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
}

#[test]
fn output_beyond_its_credit_is_refused() {
    let (connection, mut peer) = pair();
    let (_out, stdout) = std::io::pipe().unwrap();
    let peer = thread::spawn(move || {
        peer.output(&vec![0; 3 * INITIAL_CREDIT as usize]);
    });
    let error = attach_to(connection, &stdout).unwrap_err();
    assert!(matches!(
        error,
        AttachError::Connection(ConnectionError::Violation(_))
    ));
    peer.join().unwrap();
}

#[test]
fn shared_output_stays_blocking_for_others() {
    let (connection, mut peer) = pair();
    peer.output(b"x");
    peer.exit(0);
    let (_out, stdout) = std::io::pipe().unwrap();
    attach_to(connection, &stdout).unwrap();
    let flags = rustix::fs::fcntl_getfl(&stdout).unwrap();
    assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
}

#[test]
fn signals_are_sent_on() {
    let _alone = ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let (connection, mut peer) = pair();
    let peer = thread::spawn(move || {
        peer.send(&Frame::Log("ready".into()));
        let first = peer.next();
        peer.exit(0);
        first
    });
    let null = std::fs::File::open("/dev/null").unwrap();
    let streams = Streams {
        stdin: null.as_fd(),
        stdout: null.as_fd(),
        stderr: null.as_fd(),
    };
    let options = AttachOptions {
        sig_proxy: true,
        detach: None,
        ..OPTIONS
    };
    let mut raise = |_: &Frame| {
        let _ = signal_hook::low_level::raise(signal_hook::consts::SIGUSR1);
    };
    attach_streams(connection, &[], options, streams, &mut raise).unwrap();
    let expected = Frame::Signal {
        session: 0,
        signal: 10,
    };
    assert_eq!(peer.join().unwrap(), expected);
}

fn terminal() -> (OwnedFd, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let master = openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
    (master, slave)
}

fn is_raw(fd: &OwnedFd) -> bool {
    let modes = rustix::termios::tcgetattr(fd).unwrap();
    !modes
        .local_modes
        .intersects(rustix::termios::LocalModes::ICANON | rustix::termios::LocalModes::ISIG)
}

#[test]
fn a_terminal_is_raw_meanwhile_and_restored_on_every_end() {
    let _alone = ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let (master, slave) = terminal();
    let options = AttachOptions {
        stdin: true,
        tty: true,
        ..OPTIONS
    };
    let streams = Streams {
        stdin: slave.as_fd(),
        stdout: slave.as_fd(),
        stderr: slave.as_fd(),
    };
    let size = rustix::termios::Winsize {
        ws_row: 40,
        ws_col: 132,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&master, size).unwrap();

    // Its size comes first, Ctrl-C is a byte, and the end of the process restores it.
    let (connection, mut peer) = pair();
    let typist = thread::spawn(move || {
        assert!(matches!(
            peer.next(),
            Frame::Resize { size, .. } if (size.rows, size.columns) == (40, 132)
        ));
        peer.send(&Frame::Log("type now".into()));
        let typed = peer.next();
        peer.exit(0);
        typed
    });
    let mut type_ctrl_c = |_: &Frame| {
        assert!(is_raw(&slave));
        rustix::io::write(&master, b"\x03").unwrap();
    };
    let outcome =
        attach_streams(connection, &[], options.clone(), streams, &mut type_ctrl_c).unwrap();
    assert_eq!(outcome, Outcome::Exited(ExitStatus::Code(0)));
    let Frame::Data { bytes, .. } = typist.join().unwrap() else {
        panic!("Ctrl-C is no data");
    };
    assert_eq!(bytes, b"\x03");
    assert!(!is_raw(&slave));

    // A signal for ourselves.
    let (connection, mut peer) = pair();
    peer.send(&Frame::Log("kill now".into()));
    let mut terminate = |_: &Frame| {
        let _ = signal_hook::low_level::raise(signal_hook::consts::SIGTERM);
    };
    let outcome =
        attach_streams(connection, &[], options.clone(), streams, &mut terminate).unwrap();
    assert_eq!(outcome, Outcome::Interrupted(15));
    assert!(!is_raw(&slave));

    // A violation, and a panic whose hook must do it.
    let (connection, mut peer) = pair();
    peer.socket.write_all(&[0xff; 32]).unwrap();
    attach_streams(connection, &[], options.clone(), streams, &mut |_| {}).unwrap_err();
    assert!(!is_raw(&slave));
    let (connection, mut peer) = pair();
    peer.send(&Frame::Log("panic now".into()));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        attach_streams(connection, &[], options, streams, &mut |_| {
            panic!("on purpose")
        })
    }));
    assert!(panicked.is_err());
    assert!(!is_raw(&slave));
}

#[test]
fn a_resized_terminal_is_reported() {
    let _alone = ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let (master, slave) = terminal();
    let (connection, mut peer) = pair();
    let peer = thread::spawn(move || {
        peer.send(&Frame::Log("resize now".into()));
        peer.socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let resized = peer.next();
        peer.exit(0);
        resized
    });
    let options = AttachOptions {
        tty: true,
        ..OPTIONS
    };
    let streams = Streams {
        stdin: slave.as_fd(),
        stdout: slave.as_fd(),
        stderr: slave.as_fd(),
    };
    let mut resize = |_: &Frame| {
        let size = rustix::termios::Winsize {
            ws_row: 10,
            ws_col: 20,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&master, size).unwrap();
        let _ = signal_hook::low_level::raise(signal_hook::consts::SIGWINCH);
    };
    attach_streams(connection, &[], options, streams, &mut resize).unwrap();
    assert!(!is_raw(&slave));
    assert!(matches!(
        peer.join().unwrap(),
        Frame::Resize { size, .. } if (size.rows, size.columns) == (10, 20)
    ));
}
