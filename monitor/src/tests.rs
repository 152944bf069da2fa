mod anew;
mod bounds;
mod direct;
mod late;
mod saves;

use super::backend::{Backend, Link};
use super::client::{Client, Role};
use super::control::{self, Answer, Command};
use super::hub::{Hub, Outcome, Parts};
use super::record::Nothing;
use super::rules::Ending;
use crate::timing::{Phase, Timing, Zero};
use hullbox_protocol::{
    Decoder, ExitStatus, Failure, FailureKind, Frame, Hello, INITIAL_CREDIT, MAX_DATA,
    PROTOCOL_VERSION, Started, Stream, StreamSet, encode_into,
};
use rustix::event::{EventfdFlags, eventfd};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

/// A backend that is only a socket pair; killing it closes nothing but says that it ended.
struct Fake {
    link: Option<Link>,
    ended: OwnedFd,
}

impl Backend for Fake {
    fn link(&mut self) -> io::Result<Link> {
        self.link
            .take()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    }

    fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    fn kill(&mut self) {
        rustix::io::write(&self.ended, &1u64.to_ne_bytes()).unwrap();
    }

    fn release(self: Box<Self>, _orderly: bool) -> String {
        "it was killed".to_owned()
    }
}

/// One end of a conversation.
struct Peer {
    stream: UnixStream,
    decoder: Decoder,
}

impl Peer {
    fn pair() -> (Self, OwnedFd) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let peer = Self {
            stream: ours,
            decoder: Decoder::new(),
        };
        (peer, theirs.into())
    }

    fn say(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        encode_into(frame, &mut bytes).unwrap();
        self.stream.write_all(&bytes).unwrap();
    }

    fn hear(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            let mut chunk = [0; 70_000];
            match self.stream.read(&mut chunk).unwrap() {
                0 => return None,
                n => self.decoder.push(&chunk[..n]),
            }
        }
    }
}

/// Runs a hub between two peers that the closures play; returns how it ended.
fn between(
    guest: impl FnOnce(Peer) + Send,
    client: impl FnOnce(Peer) + Send,
) -> (Ending, Duration) {
    let (guest_peer, guest_fd) = Peer::pair();
    let (client_peer, client_fd) = Peer::pair();
    let backend = Fake {
        link: Some(Link::Connected(guest_fd)),
        ended: eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
    };
    let begun = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| guest(guest_peer));
        scope.spawn(|| client(client_peer));
        let ending = run(backend, client_fd, None, vec![Frame::Shutdown]).ending;
        (ending, begun.elapsed())
    })
}

/// Runs a hub with a client that owns the container.
fn run(
    mut backend: impl Backend,
    client: OwnedFd,
    control: Option<&UnixListener>,
    opening: Vec<Frame>,
) -> Outcome {
    let (_keep, signals) = UnixStream::pair().unwrap();
    let signals = super::signals::Signals::read_from(signals).unwrap();
    let direct = backend.takes_descriptors();
    let mut outcome = Hub::new(Parts {
        backend: &mut backend,
        clients: vec![Client::new(0, client, Role::attached(true)).unwrap()],
        control: control.map(AsFd::as_fd),
        signals: &signals,
        opening,
        timing: &Timing::default(),
        debug: false,
        log: None,
        health: None,
        stdin_once: true,
        writes: true,
        direct,
        stop_signal: 15,
        stop_timeout: None,
        observer: &mut Nothing,
    })
    .unwrap()
    .run();
    outcome.clients.clear();
    outcome
}

fn hello() -> Frame {
    Frame::Hello(Hello {
        version: PROTOCOL_VERSION,
        uptime_us: 1,
    })
}

fn started() -> Frame {
    let started = Started {
        pid: 1,
        uptime_us: 2,
        ..Started::default()
    };
    Frame::Started {
        session: 0,
        started,
    }
}

fn data(stream: Stream, bytes: &[u8]) -> Frame {
    Frame::Data {
        session: 0,
        stream,
        bytes: bytes.to_vec(),
    }
}

fn exited(code: u8) -> Frame {
    Frame::Exited {
        session: 0,
        status: ExitStatus::Code(code),
    }
}

#[test]
fn frames_go_both_ways_until_the_end() {
    let guest = |mut peer: Peer| {
        assert_eq!(
            peer.hear(),
            Some(Frame::Shutdown),
            "the opening comes first"
        );
        for frame in [hello(), started(), data(Stream::Stdout, b"prompt")] {
            peer.say(&frame);
        }
        assert_eq!(peer.hear(), Some(data(Stream::Stdin, b"typed")));
        peer.say(&exited(7));
    };
    let client = |mut peer: Peer| {
        assert_eq!(peer.hear(), Some(started()));
        assert_eq!(peer.hear(), Some(data(Stream::Stdout, b"prompt")));
        peer.say(&data(Stream::Stdin, b"typed"));
        assert_eq!(peer.hear(), None, "the end is told by whoever ran the hub");
    };
    let (ending, _) = between(guest, client);
    assert!(
        matches!(ending, Ending::Exited(ExitStatus::Code(7))),
        "{ending:?}"
    );
}

#[test]
fn a_guest_that_lies_is_cut_off() {
    let long = || {
        let mut bytes = Vec::new();
        encode_into(&hello(), &mut bytes).unwrap();
        bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        bytes
    };
    let version = Frame::Hello(Hello {
        version: 99,
        uptime_us: 0,
    });
    let encoded = |frames: &[Frame]| {
        let mut bytes = Vec::new();
        for frame in frames {
            encode_into(frame, &mut bytes).unwrap();
        }
        bytes
    };
    let cases = [
        long(),
        encoded(&[version]),
        encoded(&[exited(0)]),
        encoded(&[started(), started()]),
        encoded(&[data(Stream::Stdin, b"x")]),
        encoded(&[Frame::Shutdown]),
        encoded(&[Frame::Signal {
            session: 0,
            signal: 9,
        }]),
        encoded(&[Frame::Exited {
            session: 5,
            status: ExitStatus::Code(0),
        }]),
    ];
    for bytes in cases {
        let guest = |mut peer: Peer| {
            peer.stream.write_all(&bytes).unwrap();
            while let Ok(Some(_)) = peer.decoder.next_frame() {}
            let _ = peer.stream.read_to_end(&mut Vec::new());
        };
        let (ending, _) = between(guest, |mut peer| while peer.hear().is_some() {});
        assert!(matches!(ending, Ending::Died(Some(_))), "{ending:?}");
    }
}

#[test]
fn a_failure_to_start_is_passed_on_without_tricks() {
    let failure = Failure {
        kind: FailureKind::NotFound,
        message: "no\x1b[2Jsuch\nfile".to_owned(),
    };
    let guest = |mut peer: Peer| {
        peer.say(&hello());
        peer.say(&Frame::Failed {
            session: 0,
            failure,
        });
    };
    let (ending, _) = between(guest, |_| {});
    match ending {
        Ending::Failed(failure) => {
            assert_eq!(failure.message, "no [2Jsuch file");
            assert_eq!(failure.exit_code(), 127);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_that_dies_takes_the_workload_along() {
    let guest = |mut peer: Peer| {
        peer.say(&started());
        while let Some(frame) = peer.hear() {
            if let Frame::Signal { signal, .. } = frame {
                assert_eq!(signal, 9);
                peer.say(&Frame::Exited {
                    session: 0,
                    status: ExitStatus::Signal {
                        signal: 9,
                        oom: false,
                    },
                });
                return;
            }
        }
    };
    let client = |mut peer: Peer| assert_eq!(peer.hear(), Some(started()));
    let (ending, _) = between(guest, client);
    assert!(matches!(
        ending,
        Ending::Exited(ExitStatus::Signal { signal: 9, .. })
    ));
}

#[test]
fn a_guest_that_ignores_its_death_is_ended_all_the_same() {
    let guest = |mut peer: Peer| {
        peer.say(&started());
        while peer.hear().is_some() {}
    };
    let client = |mut peer: Peer| drop(peer.hear());
    let (ending, took) = between(guest, client);
    let killed = ExitStatus::Signal {
        signal: 9,
        oom: false,
    };
    assert!(
        matches!(ending, Ending::Exited(status) if status == killed),
        "{ending:?}"
    );
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[test]
fn a_broken_guest_connection_is_asked_about() {
    let guest = |mut peer: Peer| peer.say(&started());
    let (ending, _) = between(guest, |mut peer| while peer.hear().is_some() {});
    assert!(matches!(ending, Ending::Died(None)), "{ending:?}");
    assert_eq!(
        ending.words("the virtual machine burst").as_deref(),
        Some("the virtual machine burst")
    );
}

#[test]
fn a_client_that_does_not_read_stops_the_guest_and_not_the_monitor() {
    const TOTAL: usize = 8 << 20;
    let guest = |mut peer: Peer| {
        peer.say(&started());
        // Beyond all credit: a hostile guest. The hub holds it back instead of buffering it.
        let frame = data(Stream::Stdout, &[7; 32 * 1024]);
        let mut bytes = Vec::new();
        encode_into(&frame, &mut bytes).unwrap();
        peer.stream
            .set_write_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let mut sent = 0;
        while sent < TOTAL && peer.stream.write_all(&bytes).is_ok() {
            sent += bytes.len();
        }
        assert!(
            sent < TOTAL,
            "the hub took {sent} bytes for a client that reads none"
        );
    };
    let client = |peer: Peer| {
        thread::sleep(Duration::from_secs(2));
        drop(peer);
    };
    let (ending, _) = between(guest, client);
    assert!(!matches!(ending, Ending::Exited(_)), "{ending:?}");
}

#[test]
fn a_guest_that_boots_for_ever_can_be_interrupted() {
    let path = std::env::temp_dir().join(format!("hullbox-hub-{}", std::process::id()));
    let (mut client, client_fd) = Peer::pair();
    let listener = UnixListener::bind(&path).unwrap();
    let backend = Fake {
        link: Some(Link::Awaited(listener)),
        ended: eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
    };
    client.say(&data(Stream::Stdin, b"typed ahead"));
    client.say(&Frame::Signal {
        session: 0,
        signal: 2,
    });
    let ending = run(backend, client_fd, None, Vec::new()).ending;
    std::fs::remove_file(path).unwrap();
    let interrupted = ExitStatus::Signal {
        signal: 2,
        oom: false,
    };
    assert!(
        matches!(ending, Ending::Exited(status) if status == interrupted),
        "{ending:?}"
    );
}

/// A control socket and a way to connect to it.
struct Door {
    path: std::path::PathBuf,
    listener: UnixListener,
}

impl Door {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hullbox-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { path, listener }
    }

    fn say(path: &std::path::Path, command: &Command) -> Peer {
        let stream = UnixStream::connect(path).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut peer = Peer {
            stream,
            decoder: Decoder::new(),
        };
        peer.say(&control::to_frame(command).unwrap());
        assert!(matches!(answer(&mut peer), Answer::Heard));
        peer
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn answer(peer: &mut Peer) -> Answer {
    control::from_frame(&peer.hear().unwrap()).unwrap()
}

#[test]
fn several_clients_see_the_output_and_one_writes_the_input() {
    let door = Door::new("several");
    let (mut guest, guest_fd) = Peer::pair();
    let (mut owner, owner_fd) = Peer::pair();
    let backend = Fake {
        link: Some(Link::Connected(guest_fd)),
        ended: eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
    };
    let path = door.path.clone();
    thread::scope(|scope| {
        scope.spawn(move || {
            guest.say(&hello());
            guest.say(&started());
            assert_eq!(owner.hear(), Some(started()));
            let mut second = Door::say(&path, &Command::Attach { stdin: true });
            // The input is the owner's.
            let eof = Frame::Eof {
                session: 0,
                stream: Stream::Stdin,
            };
            assert_eq!(second.hear(), Some(eof));
            guest.say(&data(Stream::Stdout, b"for all"));
            assert_eq!(owner.hear(), Some(data(Stream::Stdout, b"for all")));
            assert_eq!(second.hear(), Some(data(Stream::Stdout, b"for all")));
            drop(second);

            // A process beside it, a question, and a stop.
            let spec = hullbox_protocol::ProcessSpec::default();
            let exec = Command::Exec {
                spec: Box::new(spec.clone()),
                detach: false,
                timing: Timing::since(Zero::now()),
                streams: StreamSet::default(),
            };
            let mut third = Door::say(&path, &exec);
            let Some(Frame::Exec { session, .. }) = guest.hear() else {
                panic!("no Exec");
            };
            assert_ne!(session, 0);
            let who = Started {
                pid: 7,
                uptime_us: 1,
                ..Started::default()
            };
            guest.say(&Frame::Started {
                session,
                started: who.clone(),
            });
            let there = Frame::Started {
                session: 0,
                started: who,
            };
            assert_eq!(third.hear(), Some(there));
            guest.say(&Frame::Exited {
                session,
                status: ExitStatus::Code(4),
            });
            // It wanted to know.
            let Answer::Timing(marks) = answer(&mut third) else {
                panic!("no account");
            };
            let phases: Vec<_> = marks.marks.iter().map(|mark| mark.phase).collect();
            assert_eq!(phases, [Phase::Monitor, Phase::Exec, Phase::Exit]);
            assert_eq!(third.hear(), Some(exited(4)));
            assert_eq!(third.hear(), None);

            let ask = Command::Ask(hullbox_protocol::Request::Freeze);
            let mut fourth = Door::say(&path, &ask);
            let Some(Frame::Request { number, .. }) = guest.hear() else {
                panic!("no Request");
            };
            let reply = hullbox_protocol::Reply::Done;
            guest.say(&Frame::Reply { number, reply });
            assert!(matches!(answer(&mut fourth), Answer::Done));

            let stop = Command::Stop {
                signal: 15,
                timeout_ms: Some(0),
            };
            let _fifth = Door::say(&path, &stop);
            let signal = |signal| Frame::Signal { session: 0, signal };
            assert_eq!(guest.hear(), Some(signal(15)));
            // It is frozen: a signal alone would not reach it.
            assert!(matches!(guest.hear(), Some(Frame::Request { .. })));
            assert_eq!(guest.hear(), Some(signal(9)));
            guest.say(&exited(137));
        });
        let outcome = run(backend, owner_fd, Some(&door.listener), Vec::new());
        assert!(outcome.manual);
        assert!(matches!(outcome.ending, Ending::Exited(status) if status.exit_code() == 137));
    });
}

#[test]
fn a_container_without_a_client_is_never_held_up() {
    let door = Door::new("alone");
    let (mut guest, guest_fd) = Peer::pair();
    let (mut owner, owner_fd) = Peer::pair();
    let backend = Fake {
        link: Some(Link::Connected(guest_fd)),
        ended: eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
    };
    thread::scope(|scope| {
        scope.spawn(move || {
            guest.say(&hello());
            guest.say(&started());
            assert_eq!(owner.hear(), Some(started()));
            owner.say(&control::to_frame(&Command::Detach).unwrap());
            assert_eq!(owner.hear(), None);
            // Nobody listens: all of it is taken, and credit comes back.
            let mut credit = u64::from(INITIAL_CREDIT);
            for _ in 0..64 {
                while credit < 60_000 {
                    match guest.hear() {
                        Some(Frame::Credit { bytes, .. }) => credit += u64::from(bytes),
                        other => panic!("{other:?}"),
                    }
                }
                guest.say(&data(Stream::Stdout, &[b'x'; 60_000]));
                credit -= 60_000;
            }
            guest.say(&exited(0));
        });
        let outcome = run(backend, owner_fd, Some(&door.listener), Vec::new());
        assert!(matches!(outcome.ending, Ending::Exited(_)));
    });
}

#[test]
fn a_guest_that_sends_more_than_it_has_credit_for_is_cut_off() {
    let guest = |mut peer: Peer| {
        peer.say(&hello());
        peer.say(&started());
        let mut bytes = Vec::new();
        encode_into(&data(Stream::Stdout, &[b'y'; 60_000]), &mut bytes).unwrap();
        while peer.stream.write_all(&bytes).is_ok() {}
    };
    // It reads, and never says so.
    let client = |mut peer: Peer| while peer.hear().is_some() {};
    let (ending, _) = between(guest, client);
    assert!(
        matches!(&ending, Ending::Died(Some(why)) if why.contains("credit")),
        "{ending:?}"
    );
}

/// Plays a container that others can connect to: its guest and its owner, until the guest says that
/// its workload exited.
fn with_door(name: &str, play: impl FnOnce(&std::path::Path, Peer, Peer) + Send) {
    let door = Door::new(name);
    let (guest, guest_fd) = Peer::pair();
    let (owner, owner_fd) = Peer::pair();
    let backend = Fake {
        link: Some(Link::Connected(guest_fd)),
        ended: eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
    };
    let path = door.path.clone();
    thread::scope(|scope| {
        scope.spawn(move || play(&path, guest, owner));
        let ending = run(backend, owner_fd, Some(&door.listener), Vec::new()).ending;
        assert!(matches!(ending, Ending::Exited(_)), "{ending:?}");
    });
}

/// What a client says while its process ends comes too late, and must not cost it the rest.
#[test]
fn late_words_of_a_client_cost_it_nothing() {
    const LEN: usize = 600_000;
    with_door("late", |path, mut guest, mut owner| {
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        // Both must be there at one look of the hub's: tried until it is likely.
        for _ in 0..60 {
            let exec = Command::Exec {
                spec: Box::default(),
                detach: false,
                timing: Timing::default(),
                streams: StreamSet::default(),
            };
            let mut client = Door::say(path, &exec);
            let Some(Frame::Exec { session, .. }) = guest.hear() else {
                panic!("no Exec");
            };
            let credit = Frame::Credit {
                session: 0,
                stream: Stream::Stdout,
                bytes: 1,
            };
            let who = Started {
                pid: 7,
                uptime_us: 1,
                ..Started::default()
            };
            guest.say(&Frame::Started {
                session,
                started: who,
            });
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mut late = Vec::new();
                    encode_into(&credit, &mut late).unwrap();
                    for _ in 0..20 {
                        // The hub may have told all there is, and be gone.
                        let _ = client.stream.write_all(&late);
                    }
                });
                for chunk in vec![7u8; LEN].chunks(60_000) {
                    guest.say(&Frame::Data {
                        session,
                        stream: Stream::Stdout,
                        bytes: chunk.to_vec(),
                    });
                }
                guest.say(&Frame::Exited {
                    session,
                    status: ExitStatus::Code(0),
                });
            });
            let mut got = 0;
            let end = loop {
                match client.hear() {
                    Some(Frame::Data { bytes, .. }) => got += bytes.len(),
                    Some(Frame::Started { .. }) => {}
                    other => break other,
                }
            };
            assert_eq!((got, end), (LEN, Some(exited(0))));
            // The credit that came in time.
            guest.stream.set_nonblocking(true).unwrap();
            while guest.stream.read(&mut [0; 4096]).is_ok() {}
            guest.stream.set_nonblocking(false).unwrap();
        }
        guest.say(&exited(0));
    });
}

#[test]
fn a_container_is_frozen_no_longer_than_who_holds_it_lives() {
    with_door("held", |path, mut guest, mut owner| {
        let request = |guest: &mut Peer, wanted: hullbox_protocol::Request| {
            let Some(Frame::Request { number, request }) = guest.hear() else {
                panic!("no Request");
            };
            assert_eq!(request, wanted);
            number
        };
        let done = |guest: &mut Peer, number| {
            let reply = hullbox_protocol::Reply::Done;
            guest.say(&Frame::Reply { number, reply });
        };
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        // Killed while it holds, and killed before it knew that it does.
        for answered in [true, false] {
            let mut holder = Door::say(path, &Command::Hold);
            let number = request(&mut guest, hullbox_protocol::Request::Freeze);
            if answered {
                done(&mut guest, number);
                assert!(matches!(answer(&mut holder), Answer::Done));
                drop(holder);
            } else {
                drop(holder);
                thread::sleep(Duration::from_millis(50));
                done(&mut guest, number);
            }
            let number = request(&mut guest, hullbox_protocol::Request::Thaw);
            done(&mut guest, number);
        }
        guest.say(&exited(0));
    });
}

/// The bytes of `stream` that come until `done` of them are there, beside the credit for another.
fn hear_all(peer: &mut Peer, stream: Stream, done: usize) -> u32 {
    let (mut got, mut credit) = (0, 0);
    while got < done {
        match peer.hear() {
            Some(Frame::Data {
                stream: of, bytes, ..
            }) if of == stream => got += bytes.len(),
            Some(Frame::Credit { bytes, .. }) => credit += bytes,
            other => panic!("{other:?} after {got} bytes"),
        }
    }
    assert_eq!(got, done);
    credit
}

/// A workload such as `cat`, that reads no more because its output is not taken, and a client that
/// has sent all the input it may before it says that it took the output: its word must be heard.
#[test]
fn credit_for_output_is_not_held_up_by_input_that_nobody_reads() {
    let all = INITIAL_CREDIT as usize;
    let chunk = vec![b'z'; MAX_DATA];
    let guest = |mut peer: Peer| {
        assert_eq!(peer.hear(), Some(Frame::Shutdown), "the opening");
        peer.say(&hello());
        peer.say(&started());
        for _ in 0..all / MAX_DATA {
            peer.say(&data(Stream::Stdout, &chunk));
        }
        // It is in the middle of writing: it gives no credit for input and waits for its own.
        let mut credit = hear_all(&mut peer, Stream::Stdin, all);
        while credit < INITIAL_CREDIT {
            match peer.hear() {
                Some(Frame::Credit {
                    stream: Stream::Stdout,
                    bytes,
                    ..
                }) => credit += bytes,
                other => panic!("{other:?}"),
            }
        }
        peer.say(&exited(0));
    };
    let client = |mut peer: Peer| {
        let time = Some(Duration::from_secs(20));
        peer.stream.set_write_timeout(time).unwrap();
        assert_eq!(peer.hear(), Some(started()));
        for _ in 0..all / MAX_DATA {
            peer.say(&data(Stream::Stdin, &chunk));
        }
        hear_all(&mut peer, Stream::Stdout, all);
        peer.say(&Frame::Credit {
            session: 0,
            stream: Stream::Stdout,
            bytes: INITIAL_CREDIT,
        });
        assert_eq!(peer.hear(), None);
    };
    let (ending, _) = between(guest, client);
    assert!(matches!(ending, Ending::Exited(_)), "{ending:?}");
}

#[test]
fn a_second_writer_is_told_what_the_first_one_left() {
    with_door("writers", |path, mut guest, mut owner| {
        let credit = |bytes| Frame::Credit {
            session: 0,
            stream: Stream::Stdin,
            bytes,
        };
        guest.say(&hello());
        guest.say(&started());
        assert_eq!(owner.hear(), Some(started()));
        owner.say(&data(Stream::Stdin, &[1; 50_000]));
        owner.say(&control::to_frame(&Command::Detach).unwrap());
        assert_eq!(owner.hear(), None);
        hear_all(&mut guest, Stream::Stdin, 50_000);
        guest.say(&credit(20_000));
        // Without a writer nobody is told, and it is not forgotten: said before the exec below, it
        // has been heard when that is there.
        let exec = Command::Exec {
            spec: Box::default(),
            detach: true,
            timing: Timing::default(),
            streams: StreamSet::default(),
        };
        let mut other = Door::say(path, &exec);
        let Some(Frame::Exec { session, .. }) = guest.hear() else {
            panic!("no Exec");
        };
        let who = Started {
            pid: 7,
            uptime_us: 1,
            ..Started::default()
        };
        guest.say(&Frame::Started {
            session,
            started: who,
        });
        assert!(matches!(other.hear(), Some(Frame::Started { .. })));

        let mut second = Door::say(path, &Command::Attach { stdin: true });
        assert_eq!(second.hear(), Some(credit(INITIAL_CREDIT - 30_000)));
        guest.say(&credit(30_000));
        assert_eq!(second.hear(), Some(credit(30_000)));
        second.say(&data(Stream::Stdin, b"more"));
        hear_all(&mut guest, Stream::Stdin, 4);
        // Input beyond that costs it its place, and the container nothing.
        let chunk = data(Stream::Stdin, &[2; 60_000]);
        let mut bytes = Vec::new();
        encode_into(&chunk, &mut bytes).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| while second.stream.write_all(&bytes).is_ok() {});
            let most = INITIAL_CREDIT as usize - 4;
            hear_all(&mut guest, Stream::Stdin, most / 60_000 * 60_000);
        });
        guest.say(&exited(0));
    });
}
