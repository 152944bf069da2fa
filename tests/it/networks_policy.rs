//! A policy holds from the first frame to the last: after each start, in each network that the container is put
//! into, and after its network's process was killed.

use crate::life::Kept;
use crate::networks_traffic::Net;
use hullbox_tests::{both_modes, hullbox, on_the_machine};
use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

/// A server at an address of this host's that leads here from everywhere, if there is one.
pub(crate) struct Outside {
    listener: TcpListener,
    address: IpAddr,
}

impl Outside {
    pub(crate) fn new() -> Option<Self> {
        // Nothing is sent: the kernel says from where it would be.
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect("192.0.2.1:9").ok()?;
        let address = socket.local_addr().ok()?.ip();
        let listener = TcpListener::bind((address, 0)).ok()?;
        listener.set_nonblocking(true).ok()?;
        Some(Self { listener, address })
    }

    /// A rule that allows it.
    pub(crate) fn rule(&self) -> String {
        format!("{}:{}", self.address, self.port())
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// A script that connects, and fails where that cannot be.
    pub(crate) fn connect(&self) -> String {
        format!("nc -w 20 {} {} < /dev/null", self.address, self.port())
    }

    /// Somebody comes, or has come.
    pub(crate) fn sees_one(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(error) = self.listener.accept() {
            assert!(Instant::now() < deadline, "{error}");
        }
    }

    /// Nobody has.
    #[track_caller]
    pub(crate) fn sees_nobody(&self) {
        let error = self.listener.accept().expect_err("somebody came");
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
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
        let reached = free.exec(&["sh", "-c", &outside.connect()]);
        // What is connected to closes at once, which is no error of nc's.
        outside.sees_one();
        drop(reached);
        box_.run(&["--network", &nets[0].0, "--egress", "192.0.2.7:80", "busybox", "sleep", "1000"]);
        let holds = |when: &str| {
            let tried = box_.exec(&["sh", "-c", &outside.connect()]);
            assert!(tried.code != 0 && tried.stderr.contains("refused"), "{when}: {tried:?}");
            outside.sees_nobody();
        };
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
