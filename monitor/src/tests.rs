mod anew;
mod bounds;
mod clients;
mod credit;
mod direct;
mod ends;
mod entrance;
mod late;
mod network;
mod pipes;
mod saves;

use super::client::{Client, Role};
use super::control::{self, Answer, Command};
use super::hub::{Hub, Outcome, Parts};
use super::network::ContainerNetwork;
use super::record::Nothing;
use super::rules::Ending;
use hullbox_backend::backend::{Backend, Link};
use hullbox_host::timing::{Phase, Timing, Zero};
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

impl Fake {
    fn new(guest: Link) -> Self {
        Self {
            link: Some(guest),
            ended: eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
        }
    }
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

    /// As the agent: takes the request for a process beside the workload, and says that it runs.
    fn start_process(&mut self) -> (u32, Started) {
        let Some(Frame::Exec { session, .. }) = self.hear() else {
            panic!("no Exec");
        };
        let who = Started {
            pid: 7,
            uptime_us: 1,
            ..Started::default()
        };
        let started = who.clone();
        self.say(&Frame::Started { session, started });
        (session, who)
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
    let backend = Fake::new(Link::Connected(guest_fd));
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
    let mut network = ContainerNetwork::default();
    run_with(&mut backend, client, control, opening, &mut network)
}

/// The same, with a network.
fn run_with(
    backend: &mut dyn Backend,
    client: OwnedFd,
    control: Option<&UnixListener>,
    opening: Vec<Frame>,
    network: &mut ContainerNetwork,
) -> Outcome {
    let (_keep, signals) = UnixStream::pair().unwrap();
    let signals = super::signals::Signals::read_from(signals).unwrap();
    let direct = backend.takes_descriptors();
    let mut outcome = Hub::new(Parts {
        backend,
        clients: vec![Client::new(0, client, Role::attached(true)).unwrap()],
        control: control.map(AsFd::as_fd),
        signals: &signals,
        opening,
        timing: &Timing::default(),
        debug: false,
        log: None,
        health: None,
        network,
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

/// The request for a process beside the workload, with streams of its client's own.
fn exec(streams: StreamSet) -> Command {
    Command::Exec {
        spec: Box::default(),
        detach: false,
        timing: Timing::default(),
        streams,
    }
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
        assert!(matches!(answer(&mut peer), Answer::Acknowledged));
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

/// Plays a container that others can connect to: its guest and its owner, until the guest says that
/// its workload exited.
fn with_door(name: &str, play: impl FnOnce(&std::path::Path, Peer, Peer) + Send) {
    with_door_of(|fake| fake, name, play);
}

/// The same in front of another backend.
fn with_door_of<B: Backend>(
    backend: impl FnOnce(Fake) -> B,
    name: &str,
    play: impl FnOnce(&std::path::Path, Peer, Peer) + Send,
) {
    let door = Door::new(name);
    let (guest, guest_fd) = Peer::pair();
    let (owner, owner_fd) = Peer::pair();
    let backend = backend(Fake::new(Link::Connected(guest_fd)));
    let path = door.path.clone();
    thread::scope(|scope| {
        scope.spawn(move || play(&path, guest, owner));
        let ending = run(backend, owner_fd, Some(&door.listener), Vec::new()).ending;
        assert!(matches!(ending, Ending::Exited(_)), "{ending:?}");
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
