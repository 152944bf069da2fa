//! A policy holds from the first frame to the last: after each start, in each network that the container is put
//! into, and after its network's process was killed.

use crate::life::Kept;
use crate::networks_traffic::Net;
use hullbox_tests::{Done, both_modes, hullbox, on_the_machine};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A server at an address of this host's that leads here from everywhere, if there is one. It counts who comes,
/// and closes.
pub(crate) struct Outside {
    at: SocketAddr,
    came: Arc<AtomicUsize>,
}

impl Outside {
    pub(crate) fn new() -> Option<Self> {
        // Nothing is sent: the kernel says from where it would be.
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect("192.0.2.1:9").ok()?;
        let address = socket.local_addr().ok()?.ip();
        let listener = TcpListener::bind((address, 0)).ok()?;
        let at = listener.local_addr().ok()?;
        let came = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&came);
        thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                drop(stream);
            }
        });
        Some(Self { at, came })
    }

    /// A rule that allows it.
    pub(crate) fn rule(&self) -> String {
        self.at.to_string()
    }

    /// It can be connected to from there.
    #[track_caller]
    pub(crate) fn is_reached(&self, from: &Kept) {
        let before = self.came.load(Ordering::SeqCst);
        let tried = self.connect(from);
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.came.load(Ordering::SeqCst) == before {
            assert!(Instant::now() < deadline, "nobody came: {tried:?}");
        }
    }

    /// It cannot: that is refused at once, and nobody comes.
    #[track_caller]
    pub(crate) fn is_refused(&self, from: &Kept, when: &str) {
        let before = self.came.load(Ordering::SeqCst);
        let tried = self.connect(from);
        assert!(
            tried.code != 0 && tried.stderr.contains("refused"),
            "{when}: {tried:?}"
        );
        assert_eq!(self.came.load(Ordering::SeqCst), before, "{when}");
    }

    fn connect(&self, from: &Kept) -> Done {
        let (address, port) = (self.at.ip(), self.at.port());
        let script = format!("nc -w 20 {address} {port} < /dev/null");
        from.exec(&["sh", "-c", &script])
    }
}

both_modes! {
    fn rules_hold_after_every_start_and_in_every_network(mode) {
        let Some(outside) = Outside::new() else {
            eprintln!("skipped: this host has no address but the loopback's");
            return;
        };
        let nets = ["rules-a", "rules-b"].map(|name| Net::new(name, mode, &[]));
        let box_ = Kept::new("rules", mode);
        // The same without rules, so that it is known that somebody would have come.
        let free = Kept::new("rules-none", mode);
        free.run(&["--network", &nets[0].0, "busybox", "sleep", "1000"]);
        outside.is_reached(&free);
        box_.run(&["--network", &nets[0].0, "--egress", "192.0.2.7:80", "busybox", "sleep", "1000"]);
        let holds = |when: &str| outside.is_refused(&box_, when);
        holds("at the start");
        let _ = hullbox(["restart", "-t", "0", &box_.name]).exits(0);
        holds("after a restart");
        let _ = hullbox(["stop", "-t", "0", &box_.name]).exits(0);
        let _ = hullbox(["start", &box_.name]).exits(0);
        holds("after a stop and a start");
        let _ = nets[1].connect(&box_, &[]).exits(0);
        holds("in a second network");
        let _ = nets[0].disconnect(&box_).exits(0);
        holds("in the second network alone");
        let _ = hullbox(["network", "connect", "bridge", &box_.name]).exits(0);
        let _ = nets[1].disconnect(&box_).exits(0);
        holds("in a network of its own");
        // Where the containers are: through the helper machine these are relays.
        let script = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q '[_]_net' && kill -9 ${p#/proc/}; done; true";
        let _ = on_the_machine(script).exits(0);
        // The next one is started no sooner than a second after the first, by the first frame.
        holds("after the network's process was killed");
        assert_eq!(box_.inspect("{{.Egress}}"), "192.0.2.7:80");
    }
}
