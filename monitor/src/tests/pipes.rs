//! Clients whose pipes the monitor writes and reads.

use super::*;
use crate::hub::SETTLED;
use crate::pipes::ClientPipes;
use crate::serve::{linger, send_outcome};
use crate::signals::Signals;
use crate::waiting::{Waited, wait};
use hullbox_backend::backend::VmUsage;
use hullbox_protocol::{Reply, Request};
use hullbox_session::connection::Connection;
use hullbox_session::direct::Descriptors;
use std::io::PipeReader;
use std::sync::mpsc;

/// A client that has passed these and asked for a process; its session.
fn asked(path: &std::path::Path, descriptors: Descriptors, guest: &mut Peer) -> (Peer, u32) {
    let client = Door::say(path, &exec(descriptors.streams()));
    let mut passing = Connection::new(client.stream.try_clone().unwrap().into()).unwrap();
    passing.send_descriptors(0, descriptors).unwrap();
    passing.flush().unwrap();
    client.stream.set_nonblocking(false).unwrap();
    let (session, _) = guest.start_process();
    (client, session)
}

fn non_blocking(descriptors: Descriptors) -> Descriptors {
    let wanted = descriptors.streams();
    let reopened = descriptors.non_blocking();
    assert_eq!(reopened.streams(), wanted);
    reopened
}

#[test]
fn output_goes_to_the_clients_pipe_and_the_end_after_it() {
    const LEN: usize = 3_000_000;
    with_door("piped", |path, mut guest, mut owner| {
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        let (mut read, write) = std::io::pipe().unwrap();
        let descriptors = non_blocking(Descriptors {
            stdout: Some(write.into()),
            ..Descriptors::default()
        });
        let (mut client, session) = asked(path, descriptors, &mut guest);
        let reader = thread::spawn(move || {
            let mut seen = Vec::new();
            read.read_to_end(&mut seen).unwrap();
            seen
        });
        // As a guest does: no more than it has credit for.
        let mut credit = INITIAL_CREDIT as usize;
        let mut sent = 0usize;
        while sent < LEN {
            let len = (LEN - sent).min(MAX_DATA);
            while credit < len {
                match guest.hear() {
                    Some(Frame::Credit {
                        session: s,
                        stream: Stream::Stdout,
                        bytes,
                    }) => {
                        assert_eq!(s, session);
                        credit += bytes as usize;
                    }
                    other => panic!("{other:?}"),
                }
            }
            let bytes: Vec<u8> = (sent..sent + len).map(|n| (n % 251) as u8).collect();
            guest.say(&Frame::Data {
                session,
                stream: Stream::Stdout,
                bytes,
            });
            (sent, credit) = (sent + len, credit - len);
        }
        guest.say(&Frame::Exited {
            session,
            status: ExitStatus::Code(4),
        });
        assert!(matches!(client.hear(), Some(Frame::Started { .. })));
        assert_eq!(client.hear(), Some(exited(4)));
        assert_eq!(client.hear(), None);
        // The pipe has its end when the monitor is done with the client.
        let seen = reader.join().unwrap();
        let expected: Vec<u8> = (0..LEN).map(|n| (n % 251) as u8).collect();
        assert!(seen == expected, "{} bytes", seen.len());
        guest.say(&exited(0));
    });
}

#[test]
fn an_end_waits_for_output_that_a_slow_reader_has_not_taken() {
    with_door("slow", |path, mut guest, mut owner| {
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        let (mut read, write) = std::io::pipe().unwrap();
        let descriptors = non_blocking(Descriptors {
            stdout: Some(write.into()),
            ..Descriptors::default()
        });
        let (mut client, session) = asked(path, descriptors, &mut guest);
        for _ in 0..4 {
            let bytes = vec![b'x'; 100_000];
            guest.say(&Frame::Data {
                session,
                stream: Stream::Stdout,
                bytes,
            });
        }
        guest.say(&Frame::Exited {
            session,
            status: ExitStatus::Code(0),
        });
        assert!(matches!(client.hear(), Some(Frame::Started { .. })));
        // What another client is answered, the monitor has come to since.
        let other = Command::Signal(10);
        assert!(matches!(answer(&mut Door::say(path, &other)), Answer::Done));
        client.stream.set_nonblocking(true).unwrap();
        let early = client.stream.read(&mut [0; 64]);
        assert_eq!(early.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        client.stream.set_nonblocking(false).unwrap();
        let mut seen = vec![0; 400_000];
        read.read_exact(&mut seen).unwrap();
        assert_eq!(client.hear(), Some(exited(0)));
        guest.say(&exited(0));
    });
}

#[test]
fn input_comes_from_the_clients_pipe_as_far_as_there_is_credit() {
    with_door("fed", |path, mut guest, mut owner| {
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        let (read, mut write) = std::io::pipe().unwrap();
        let descriptors = non_blocking(Descriptors {
            stdin: Some(read.into()),
            ..Descriptors::default()
        });
        let (_client, session) = asked(path, descriptors, &mut guest);
        let most = INITIAL_CREDIT as usize;
        let feeder = thread::spawn(move || write.write_all(&vec![7; most + 100_000]));
        let mut got = 0;
        let mut granted = most;
        let stream = Stream::Stdin;
        loop {
            match guest.hear() {
                Some(Frame::Data {
                    session: s, bytes, ..
                }) => {
                    assert_eq!(s, session);
                    got += bytes.len();
                    assert!(got <= granted, "more than it has credit for");
                    if got == most {
                        // A byte more than there is: as with frames, an end is looked for with credit.
                        granted += 100_001;
                        guest.say(&Frame::Credit {
                            session,
                            stream,
                            bytes: 100_001,
                        });
                    }
                }
                Some(Frame::Eof {
                    stream: Stream::Stdin,
                    ..
                }) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(got, most + 100_000);
        feeder.join().unwrap().unwrap();
        guest.say(&exited(0));
    });
}

#[test]
fn a_reader_who_leaves_closes_the_stream() {
    with_door("left", |path, mut guest, mut owner| {
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        let (read, write) = std::io::pipe().unwrap();
        let descriptors = non_blocking(Descriptors {
            stderr: Some(write.into()),
            ..Descriptors::default()
        });
        assert!(descriptors.streams() == StreamSet::default().with(Stream::Stderr));
        let (_client, session) = asked(path, descriptors, &mut guest);
        drop(read);
        let stream = Stream::Stderr;
        assert_eq!(guest.hear(), Some(Frame::Eof { session, stream }));
        guest.say(&exited(0));
    });
}

/// A backend that empties a pipe when it is asked for its usage: between the wait of the hub and its
/// writing to that pipe.
struct Draining(Fake, PipeReader);

impl Backend for Draining {
    fn link(&mut self) -> io::Result<Link> {
        self.0.link()
    }

    fn ended(&self) -> BorrowedFd<'_> {
        self.0.ended()
    }

    fn kill(&mut self) {
        self.0.kill();
    }

    fn release(self: Box<Self>, orderly: bool) -> String {
        Box::new(self.0).release(orderly)
    }

    fn usage(&self) -> Option<VmUsage> {
        let mut room = vec![0; 1 << 20];
        assert_eq!((&self.1).read(&mut room).unwrap(), PIPE_LEN);
        None
    }
}

/// What its pipe holds: as much as is worth a frame of credit.
const PIPE_LEN: usize = MAX_DATA;

#[test]
fn what_a_pipe_took_at_the_last_moment_gives_credit_at_once() {
    let (read, write) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&write, PIPE_LEN).unwrap();
    let backend = |fake| Draining(fake, read);
    with_door_of(backend, "last-moment", |path, mut guest, mut owner| {
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        let descriptors = non_blocking(Descriptors {
            stdout: Some(write.into()),
            ..Descriptors::default()
        });
        let (_client, session) = asked(path, descriptors, &mut guest);
        // No timer of the hub's is to come to the credit's help.
        thread::sleep(SETTLED + Duration::from_millis(200));
        let stream = Stream::Stdout;
        for _ in 0..2 {
            guest.say(&Frame::Data {
                session,
                stream,
                bytes: vec![7; PIPE_LEN],
            });
        }
        let credit = Frame::Credit {
            session,
            stream,
            bytes: u32::try_from(PIPE_LEN).unwrap(),
        };
        assert_eq!(guest.hear(), Some(credit.clone()));
        let _asking = Door::say(path, &Command::Ask(Request::Usage));
        let Some(Frame::Request { number, .. }) = guest.hear() else {
            panic!("no request");
        };
        let reply = Reply::Usage(Box::default());
        guest.say(&Frame::Reply { number, reply });
        assert_eq!(guest.hear(), Some(credit));
        guest.say(&exited(0));
    });
}

/// A client whose pipe is full, with output and an end behind that, and its peer.
fn behind_a_full_pipe() -> (Vec<Client>, PipeReader, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (read, write) = std::io::pipe().unwrap();
    let mut client = Client::new(0, theirs.into(), Role::attached(true)).unwrap();
    client.pipes = ClientPipes::of(non_blocking(Descriptors {
        stdout: Some(write.into()),
        ..Descriptors::default()
    }));
    let bytes = vec![7; MAX_DATA];
    while !client.pipes.is_waiting() {
        client.send_output(Stream::Stdout, &bytes).unwrap();
    }
    let late = send_outcome(vec![client], &exited(0), 0, &Timing::default());
    assert_eq!(late.len(), 1);
    (late, read, ours)
}

#[test]
fn frames_that_wait_for_a_pipe_hold_nobody_up_when_their_command_is_gone() {
    let (late, _read, ours) = behind_a_full_pipe();
    let (_keep, signals) = UnixStream::pair().unwrap();
    let signals = Signals::read_from(signals).unwrap();
    let (ended, is_over) = mpsc::channel();
    thread::spawn(move || {
        linger(late, &signals);
        ended.send(()).unwrap();
    });
    let early = is_over.recv_timeout(Duration::from_millis(50));
    assert!(early.is_err(), "the reader has not read");
    drop(ours);
    is_over.recv_timeout(Duration::from_secs(10)).unwrap();
}

#[test]
fn output_for_a_pipe_is_passed_on_while_a_restart_is_waited_for() {
    let (mut late, mut read, ours) = behind_a_full_pipe();
    let (_keep, signals) = UnixStream::pair().unwrap();
    let signals = Signals::read_from(signals).unwrap();
    let door = Door::new("between-runs");
    let (done, is_done) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut seen = Vec::new();
        read.read_to_end(&mut seen).unwrap();
        done.send(seen.len()).unwrap();
    });
    let mut peer = Peer {
        stream: ours,
        decoder: Decoder::new(),
    };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let pause = Duration::from_secs(5);
            let control = door.listener.as_fd();
            wait(pause, control, &signals, &mut late, &mut Nothing)
        });
        assert_eq!(peer.hear(), Some(exited(0)));
        assert_eq!(peer.hear(), None);
        let seen = is_done.recv_timeout(Duration::from_secs(2));
        assert!(seen.unwrap() >= MAX_DATA);
        assert!(!waiting.is_finished(), "not at its end alone");
        assert_eq!(waiting.join().unwrap(), Waited::Over);
    });
    reader.join().unwrap();
}
