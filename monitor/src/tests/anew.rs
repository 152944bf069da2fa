//! Another guest takes the place of one that a template let down.

use super::*;
use hullbox_protocol::{ProcessSpec, Setup};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A backend with a second guest.
struct Twice {
    dir: PathBuf,
    ended: OwnedFd,
    spare: bool,
    warning: Option<String>,
}

impl Twice {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir =
            std::env::temp_dir().join(format!("hullbox-anew-{}-{number}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        // Guests may dial before anybody asks for them.
        let backend = Self {
            dir,
            ended: eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
            spare: true,
            warning: None,
        };
        backend.listen("first");
        backend
    }

    fn listen(&self, name: &str) -> UnixListener {
        let path = self.dir.join(name);
        let _ = std::fs::remove_file(&path);
        UnixListener::bind(path).unwrap()
    }
}

impl Drop for Twice {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Backend for Twice {
    fn link(&mut self) -> io::Result<Link> {
        Ok(Link::Awaited(self.listen("first")))
    }

    fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    fn kill(&mut self) {
        rustix::io::write(&self.ended, &1u64.to_ne_bytes()).unwrap();
    }

    fn can_begin_anew(&self) -> bool {
        self.spare
    }

    fn begin_anew(
        &mut self,
        setup: &mut Setup,
        why: Option<&str>,
    ) -> Option<Result<Link, Failure>> {
        if !std::mem::take(&mut self.spare) {
            return None;
        }
        self.ended = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        self.warning = Some(format!("it was {}", why.unwrap_or("short")));
        setup.resumed = false;
        Some(Ok(Link::Awaited(self.listen("second"))))
    }

    fn warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    fn release(self: Box<Self>, _orderly: bool) -> String {
        String::new()
    }
}

/// A guest that dials, as soon as somebody listens.
fn dial(path: &std::path::Path) -> Peer {
    let begun = Instant::now();
    let stream = loop {
        match UnixStream::connect(path) {
            Ok(stream) => break stream,
            Err(_) if begun.elapsed() < Duration::from_secs(20) => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    };
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    Peer {
        stream,
        decoder: Decoder::new(),
    }
}

fn opening(resumed: bool) -> Vec<Frame> {
    let setup = Setup {
        resumed,
        ..Setup::default()
    };
    vec![
        Frame::Setup(Box::new(setup)),
        Frame::Exec {
            session: 0,
            spec: Box::<ProcessSpec>::default(),
        },
    ]
}

/// Runs a hub with the guests that `guests` plays, given where they dial.
fn between(
    guests: impl FnOnce(PathBuf) + Send,
    client: impl FnOnce(Peer) + Send,
) -> (Ending, bool) {
    let mut backend = Twice::new();
    let dir = backend.dir.clone();
    let (client_peer, client_fd) = Peer::pair();
    let (_keep, signals) = UnixStream::pair().unwrap();
    let signals = crate::signals::Signals::read_from(signals).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| guests(dir));
        scope.spawn(|| client(client_peer));
        let outcome = Hub::new(Parts {
            backend: &mut backend,
            clients: vec![Client::new(0, client_fd, Role::attached(true)).unwrap()],
            control: None,
            signals: &signals,
            opening: opening(true),
            timing: &Timing::default(),
            debug: false,
            log: None,
            health: None,
            network: &mut ContainerNetwork::default(),
            stdin_once: true,
            writes: true,
            direct: false,
            stop_signal: 15,
            stop_timeout: None,
            observer: &mut Nothing,
        })
        .unwrap()
        .run();
        (outcome.ending, backend.spare)
    })
}

fn hears(peer: &mut Peer, frames: Vec<Frame>) {
    for frame in frames {
        assert_eq!(peer.hear(), Some(frame));
    }
}

#[test]
fn nothing_that_was_said_to_the_first_is_lost() {
    let eof = || Frame::Eof {
        session: 0,
        stream: Stream::Stdin,
    };
    let signal = || Frame::Signal {
        session: 0,
        signal: 10,
    };
    let typed = || vec![data(Stream::Stdin, b"typed"), eof()];
    let guests = |dir: PathBuf| {
        let mut first = dial(&dir.join("first"));
        hears(&mut first, opening(true));
        hears(&mut first, typed());
        drop(first);
        let mut second = dial(&dir.join("second"));
        hears(&mut second, opening(false));
        hears(&mut second, typed());
        second.say(&hello());
        second.say(&started());
        assert_eq!(second.hear(), Some(signal()));
        second.say(&exited(3));
    };
    let client = |mut peer: Peer| {
        for frame in typed() {
            peer.say(&frame);
        }
        assert_eq!(peer.hear(), Some(Frame::Log("it was short".to_owned())));
        assert_eq!(peer.hear(), Some(started()));
        peer.say(&signal());
        assert_eq!(peer.hear(), None);
    };
    let (ending, spare) = between(guests, client);
    assert!(!spare);
    assert!(
        matches!(ending, Ending::Exited(ExitStatus::Code(3))),
        "{ending:?}"
    );
}

#[test]
fn nonsense_as_a_first_word_is_no_word() {
    let guests = |dir: PathBuf| {
        let mut first = dial(&dir.join("first"));
        first.stream.write_all(&[0xff; 64]).unwrap();
        let mut second = dial(&dir.join("second"));
        hears(&mut second, opening(false));
        second.say(&hello());
        // Now there is one that counts, and none after it.
        drop(second);
    };
    let client = |mut peer: Peer| {
        let Some(Frame::Log(warning)) = peer.hear() else {
            panic!("no warning");
        };
        assert!(warning.contains("protocol"), "{warning}");
        assert_eq!(peer.hear(), None);
    };
    let (ending, _) = between(guests, client);
    assert!(matches!(ending, Ending::Died(None)), "{ending:?}");
}

#[test]
fn a_guest_that_spoke_or_that_nobody_wants_has_no_second() {
    let spoke = |dir: PathBuf| {
        let mut first = dial(&dir.join("first"));
        first.say(&hello());
    };
    let (ending, spare) = between(spoke, |mut peer| assert_eq!(peer.hear(), None));
    assert!(spare);
    assert!(matches!(ending, Ending::Died(None)), "{ending:?}");

    let interrupt = |mut peer: Peer| {
        peer.say(&Frame::Signal {
            session: 0,
            signal: 2,
        });
        assert_eq!(peer.hear(), None);
    };
    let (ending, spare) = between(|_| {}, interrupt);
    assert!(spare);
    assert!(matches!(ending, Ending::Exited(_)), "{ending:?}");
}
