//! The process that serves a container's network, which is a real one: this test program, told so.

use super::*;
use crate::network::ContainerNetwork;
use hullbox_backend::network::{Member, PortProtocol, PublishedPort, UserNetwork};
use hullbox_netproc::Launcher;
use hullbox_protocol::{Addresses, Interface};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::net::{TcpListener, TcpStream};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
#[ignore = "the process, as others here start it"]
fn serves() {
    let _ = hullbox_netproc::main(&[]);
    std::process::exit(0);
}

fn launcher() -> Launcher {
    let words = [
        "tests::network::serves",
        "--exact",
        "--ignored",
        "--nocapture",
    ];
    let program = std::env::current_exe().unwrap();
    Launcher::of(program, words.map(Into::into).to_vec())
}

fn interface() -> Interface {
    Interface {
        mac: [2, 1, 2, 3, 4, 5],
        mtu: 65520,
        ipv4: Some(Addresses {
            address: "10.0.2.2".parse().unwrap(),
            prefix: 24,
            gateway: Some("10.0.2.1".parse().unwrap()),
        }),
        ipv6: None,
        gateway_mac: [2, 0x48, 0x55, 0x4c, 0x4c, 1],
    }
}

/// The container's end of its frames' way.
struct Guest(OwnedFd);

impl Guest {
    fn new() -> (Self, Member) {
        let flags = SocketFlags::CLOEXEC;
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None).unwrap();
        (Self(ours), Member::Packets(theirs))
    }

    /// Asks who has the gateway's address (RFC 826).
    fn ask(&self) {
        let mut frame = vec![0; 12];
        frame.extend_from_slice(&[0xff; 6]);
        frame.extend_from_slice(&interface().mac);
        frame.extend_from_slice(b"\x08\x06\0\x01\x08\0\x06\x04\0\x01");
        frame.extend_from_slice(&interface().mac);
        frame.extend_from_slice(&[10, 0, 2, 2, 0, 0, 0, 0, 0, 0, 10, 0, 2, 1]);
        rustix::net::send(&self.0, &frame, SendFlags::NOSIGNAL).unwrap();
    }

    /// Waits for a frame, and returns where it comes from.
    fn hear(&self) -> [u8; 6] {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let limit = Timespec::try_from(LIMIT).unwrap();
        assert_eq!(poll(&mut fds, Some(&limit)).unwrap(), 1, "no frame");
        let mut frame = [0; 2048];
        let (length, _) = rustix::net::recv(&self.0, &mut frame, RecvFlags::empty()).unwrap();
        frame[..length][18..24].try_into().unwrap()
    }

    fn is_answered(&self) {
        self.ask();
        assert_eq!(self.hear(), interface().gateway_mac);
    }
}

fn port(number: u16) -> PublishedPort {
    PublishedPort {
        protocol: PortProtocol::Tcp,
        host_ip: Some("127.0.0.1".parse().unwrap()),
        host_ports: (number, number),
        container_port: 80,
    }
}

fn network(ports: Vec<PublishedPort>) -> (Guest, ContainerNetwork) {
    let (guest, member) = Guest::new();
    let user = UserNetwork {
        ports,
        ..UserNetwork::default()
    };
    let network = ContainerNetwork::served_by(launcher(), user, interface(), member);
    (guest, network)
}

/// As the hub does, until that holds.
fn turn_until(network: &mut ContainerNetwork, done: impl Fn(&ContainerNetwork) -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done(network) {
        assert!(
            Instant::now() < deadline,
            "it does not come to that: {network:?}"
        );
        let due = network.due().unwrap_or(deadline).min(deadline);
        let left = due.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left + Duration::from_micros(50)).unwrap();
        let mut fds: Vec<_> = network.interest().into_iter().collect();
        rustix::io::retry_on_intr(|| poll(&mut fds, Some(&timeout))).unwrap();
        let events = fds.first().map_or(PollFlags::empty(), PollFd::revents);
        drop(fds);
        assert_eq!(network.turn(events), None);
    }
}

fn is_alive(pid: u32) -> bool {
    test_kill_process(Pid::from_raw(pid.cast_signed()).unwrap()).is_ok()
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn nothing_is_started_for_who_neither_publishes_nor_sends() {
    let (guest, mut network) = network(Vec::new());
    assert_eq!(network.open().unwrap(), []);
    // Its turn comes for other reasons.
    assert_eq!(network.turn(PollFlags::empty()), None);
    assert!(network.pid().is_none() && network.due().is_none());
    // The container is gone: nobody waits for a frame any more.
    drop(guest);
    let mut fds: Vec<_> = network.interest().into_iter().collect();
    rustix::io::retry_on_intr(|| poll(&mut fds, None)).unwrap();
    let events = fds[0].revents();
    drop(fds);
    assert_eq!(network.turn(events), None);
    assert!(network.interest().is_none() && network.pid().is_none());
}

#[test]
fn the_first_frame_starts_a_process_and_a_killed_one_is_followed_by_another() {
    let (guest, mut network) = network(Vec::new());
    assert_eq!(network.open().unwrap(), []);
    guest.ask();
    turn_until(&mut network, |network| network.is_serving());
    // The frame that woke the monitor was left to it.
    assert_eq!(guest.hear(), interface().gateway_mac);
    guest.is_answered();
    let first = network.pid().unwrap();
    let begun = Instant::now();
    kill(first);
    turn_until(&mut network, |network| network.pid().is_none());
    assert!(!is_alive(first));
    guest.ask();
    turn_until(&mut network, |network| network.is_serving());
    assert_eq!(guest.hear(), interface().gateway_mac);
    assert_ne!(network.pid(), Some(first));
    assert!(
        begun.elapsed() > Duration::from_millis(500),
        "it would spin"
    );
    let second = network.pid().unwrap();
    drop(network);
    assert!(!is_alive(second));
}

#[test]
fn published_ports_are_open_before_the_workload_starts_and_again_after_a_crash() {
    let (guest, mut network) = network(vec![port(0)]);
    let ports = network.open().unwrap();
    let number = ports[0].host_port;
    assert!(network.is_serving() && number > 0);
    TcpStream::connect(("127.0.0.1", number)).unwrap();
    let first = network.pid().unwrap();
    kill(first);
    turn_until(&mut network, |network| {
        network.is_serving() && network.pid() != Some(first)
    });
    // The same port, and nothing had to be sent for it.
    TcpStream::connect(("127.0.0.1", number)).unwrap();
    guest.is_answered();
    network.close();
    drop(network);
    TcpListener::bind(("127.0.0.1", number)).unwrap();
}

#[test]
fn a_port_that_is_taken_fails_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = taken.local_addr().unwrap().port();
    let (_guest, mut network) = network(vec![port(number)]);
    let failure = network.open().unwrap_err();
    assert_eq!(
        failure.message,
        format!("cannot publish 127.0.0.1:{number}/tcp: port is already allocated")
    );
    assert_eq!(failure.exit_code(), 125);
    assert!(network.pid().is_none() && network.interest().is_none());
}

#[test]
fn another_guest_has_the_same_ports() {
    let (first, mut network) = network(vec![port(0)]);
    let number = network.open().unwrap()[0].host_port;
    let (second, member) = Guest::new();
    network.replace(Some(member)).unwrap();
    drop(first);
    assert!(network.is_serving());
    second.is_answered();
    TcpStream::connect(("127.0.0.1", number)).unwrap();
}

#[test]
fn a_hub_serves_the_network_of_its_run() {
    let (guest, mut network) = network(Vec::new());
    let (mut agent, agent_fd) = Peer::pair();
    let (mut owner, owner_fd) = Peer::pair();
    thread::scope(|scope| {
        scope.spawn(move || {
            agent.say(&hello());
            agent.say(&started());
            assert_eq!(owner.hear(), Some(started()));
            guest.is_answered();
            agent.say(&exited(0));
            // It has to be there until the hub has seen the exit.
            while agent.hear().is_some() {}
            drop(owner);
        });
        let mut backend = Fake::new(Link::Connected(agent_fd));
        let outcome = run_with(&mut backend, owner_fd, None, Vec::new(), &mut network);
        assert!(matches!(
            outcome.ending,
            Ending::Exited(ExitStatus::Code(0))
        ));
        // Whether the hub has heard that it serves is a matter of chance.
        let pid = network.pid().unwrap();
        network.close();
        drop(network);
        assert!(!is_alive(pid));
    });
}
