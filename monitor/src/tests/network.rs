//! The process that serves a container's network, which is a real one: this test program, told so.

use super::*;
use crate::network::{ContainerNetwork, News, Question};
use hullbox_backend::network::Membership;
use hullbox_backend::network::{Member, PortProtocol, PublishedPort, UserNetwork};
use hullbox_netproc::{Launcher, Seat};
use hullbox_protocol::{Addresses, Interface, NameFiles, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
#[ignore = "the process, as others here start it"]
fn serves() {
    let words = std::env::args_os().skip_while(|word| word != "--").skip(1);
    let words: Vec<_> = words.collect();
    let _ = hullbox_netproc::main(&words);
    std::process::exit(0);
}

fn launcher() -> Launcher {
    let words = [
        "tests::network::serves",
        "--exact",
        "--ignored",
        "--nocapture",
        "--",
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
        route_metric: Some(0),
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
    let network = ContainerNetwork::served_by(
        launcher(),
        PathBuf::new(),
        Seat::alone(user, interface()),
        member,
    );
    (guest, network)
}

/// As the hub does, until that holds. Returns what became of the link.
fn turn_until(
    network: &mut ContainerNetwork,
    done: impl Fn(&ContainerNetwork) -> bool,
) -> Vec<bool> {
    let mut links = Vec::new();
    let deadline = Instant::now() + LIMIT;
    while !done(network) {
        assert!(
            Instant::now() < deadline,
            "it does not come to that: {network:?}"
        );
        let due = network.due().unwrap_or(deadline).min(deadline);
        let left = due.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left + Duration::from_micros(50)).unwrap();
        for news in network.turn(&wait(network, Some(&timeout))) {
            assert!(matches!(news, News::Link(0, _)), "{news:?}");
            links.push(news == News::Link(0, true));
        }
    }
    links
}

/// Waits for the container's one interface, as the hub does.
fn wait(network: &ContainerNetwork, timeout: Option<&Timespec>) -> Vec<PollFlags> {
    let mut fds: Vec<_> = network.interests().flatten().collect();
    rustix::io::retry_on_intr(|| poll(&mut fds, timeout)).unwrap();
    fds.iter().map(PollFd::revents).collect()
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
    assert_eq!(network.turn(&[]), []);
    assert!(network.pid().is_none() && network.due().is_none());
    // The container is gone: nobody waits for a frame any more.
    drop(guest);
    let events = wait(&network, None);
    assert_eq!(network.turn(&events), []);
    assert!(network.interests().next().is_none() && network.pid().is_none());
}

#[test]
fn the_first_frame_starts_a_process_and_a_killed_one_is_followed_by_another() {
    let (guest, mut network) = network(Vec::new());
    assert_eq!(network.open().unwrap(), []);
    guest.ask();
    let links = turn_until(&mut network, |network| network.is_serving());
    assert!(links.is_empty());
    // The frame that woke the monitor was left to it.
    assert_eq!(guest.hear(), interface().gateway_mac);
    guest.is_answered();
    let first = network.pid().unwrap();
    let begun = Instant::now();
    kill(first);
    let links = turn_until(&mut network, |network| network.pid().is_none());
    assert!(!is_alive(first) && links == [false]);
    guest.ask();
    let links = turn_until(&mut network, |network| network.is_serving());
    assert_eq!(links, [true]);
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
    assert!(network.pid().is_none() && network.interests().next().is_none());
}

#[test]
fn another_guest_has_the_same_ports() {
    let (first, mut network) = network(vec![port(0)]);
    let number = network.open().unwrap()[0].host_port;
    let (second, member) = Guest::new();
    network.replace(vec![member]).unwrap();
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

const ID: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn membership() -> Membership {
    Membership {
        id: ID.to_owned(),
        internal: false,
        names: vec!["a".to_owned()],
    }
}

fn networks(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("hullbox-{name}-{}", std::process::id()))
}

/// A container in a network that others share, with the last digit of its addresses.
fn member_of(networks: &Path, number: u8) -> (Guest, ContainerNetwork) {
    let (guest, member) = Guest::new();
    let mut interface = interface();
    // Guests speak with the first one's addresses.
    interface.mac[5] = 3 + number;
    if let Some(ipv4) = &mut interface.ipv4 {
        ipv4.address = [10, 0, 2, number].into();
    }
    let seat = Seat {
        membership: Some(membership()),
        ..Seat::alone(UserNetwork::default(), interface)
    };
    let network = ContainerNetwork::served_by(launcher(), networks.to_owned(), seat, member);
    (guest, network)
}

fn process_of(networks: &Path) -> u32 {
    let text = std::fs::read_to_string(networks.join(format!("{ID}.lock"))).unwrap();
    text.trim().parse().unwrap()
}

#[test]
fn a_shared_network_is_joined_at_the_start_and_again_when_its_process_was_killed() {
    let dir = networks("monitor-shared");
    let (guest, mut first) = member_of(&dir, 2);
    let (_other, mut second) = member_of(&dir, 3);
    assert_eq!(first.open().unwrap(), []);
    assert_eq!(second.open().unwrap(), []);
    assert!(first.is_serving() && second.is_serving());
    // Who joins holds the lock until it was answered: one that was not would join again by itself.
    let lock = std::fs::File::open(dir.join(format!("{ID}.lock"))).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    drop(lock);
    let killed = process_of(&dir);
    kill(killed);
    for network in [&mut first, &mut second] {
        let links = turn_until(network, |network| !network.is_serving());
        assert_eq!(links, [false]);
    }
    for network in [&mut first, &mut second] {
        let links = turn_until(network, ContainerNetwork::is_serving);
        assert_eq!(links, [true]);
    }
    assert_ne!(process_of(&dir), killed);
    guest.is_answered();
    drop(first);
    assert!(dir.join(format!("{ID}.sock")).exists());
    drop(second);
    // Nothing is in it.
    std::fs::remove_dir(dir).unwrap();
}

/// A backend whose networks can be changed; it notes what it is asked.
struct Changeable {
    fake: Fake,
    guests: std::sync::mpsc::Sender<(u8, Guest)>,
    gone: std::sync::mpsc::Sender<u8>,
}

impl Backend for Changeable {
    fn link(&mut self) -> io::Result<Link> {
        self.fake.link()
    }

    fn ended(&self) -> BorrowedFd<'_> {
        self.fake.ended()
    }

    fn kill(&mut self) {
        self.fake.kill();
    }

    fn connect(&mut self, index: u8, _: &Interface) -> Result<Member, String> {
        let (guest, member) = Guest::new();
        self.guests.send((index, guest)).unwrap();
        Ok(member)
    }

    fn disconnect(&mut self, index: u8) -> Result<(), String> {
        self.gone.send(index).unwrap();
        Ok(())
    }

    fn release(self: Box<Self>, orderly: bool) -> String {
        Box::new(self.fake).release(orderly)
    }
}

/// Files that tell the container's address.
fn names(address: &str) -> Box<NameFiles> {
    Box::new(NameFiles {
        hosts: format!("{address}\tbox\n"),
        resolv_conf: String::new(),
    })
}

/// As the agent: takes the request for a change, and grants it.
fn grant(agent: &mut Peer) -> Request {
    let Some(Frame::Request { number, request }) = agent.hear() else {
        panic!("no request");
    };
    let reply = hullbox_protocol::Reply::Done;
    agent.say(&Frame::Reply { number, reply });
    request
}

#[test]
fn a_running_container_is_put_into_a_network_and_taken_out_of_it() {
    let dir = networks("monitor-change");
    let (_guest, mut network) = network(Vec::new());
    network.use_networks_in(&dir);
    let door = Door::new("change");
    let (mut agent, agent_fd) = Peer::pair();
    let (mut owner, owner_fd) = Peer::pair();
    let (guests, guest_of) = std::sync::mpsc::channel();
    let (gone, gone_of) = std::sync::mpsc::channel();
    let mut backend = Changeable {
        fake: Fake::new(Link::Connected(agent_fd)),
        guests,
        gone,
    };
    let path = door.path.clone();
    let in_dir = dir.clone();
    thread::scope(|scope| {
        scope.spawn(move || {
            agent.say(&hello());
            agent.say(&started());
            assert_eq!(owner.hear(), Some(started()));
            let connect = || Command::Connect {
                membership: Some(Box::new(membership())),
                interface: Box::new(interface()),
                names: names("172.18.0.2"),
            };
            let disconnect = Command::Disconnect {
                network: Some(ID.to_owned()),
                names: names("127.0.1.1"),
            };
            let mut client = Door::say(&path, &connect());
            let Request::Connect {
                index,
                interface,
                names: known,
            } = grant(&mut agent)
            else {
                panic!("another request");
            };
            assert_eq!(known, names("172.18.0.2"));
            // The other interface's default route stays.
            assert_eq!((index, interface.route_metric), (1, Some(1)));
            assert!(matches!(answer(&mut client), Answer::Done));
            let (index, guest) = guest_of.recv().unwrap();
            assert_eq!(index, 1);
            guest.is_answered();
            // Twice in one network it cannot be.
            let mut client = Door::say(&path, &connect());
            let Answer::Failed(why) = answer(&mut client) else {
                panic!("it is in there twice");
            };
            assert_eq!(why, "the container is in this network already");
            let mut client = Door::say(&path, &disconnect);
            let request = grant(&mut agent);
            let gone = Request::Disconnect {
                index: 1,
                names: names("127.0.1.1"),
            };
            assert_eq!(request, gone);
            assert!(matches!(answer(&mut client), Answer::Done));
            assert_eq!(gone_of.recv().unwrap(), 1);
            std::fs::remove_dir(&in_dir).unwrap();
            let mut client = Door::say(&path, &disconnect);
            assert!(matches!(answer(&mut client), Answer::Failed(_)));
            agent.say(&exited(0));
            while agent.hear().is_some() {}
            drop(owner);
        });
        let listener = Some(&door.listener);
        let outcome = run_with(&mut backend, owner_fd, listener, Vec::new(), &mut network);
        assert!(matches!(outcome.ending, Ending::Exited(_)));
    });
}

#[test]
fn a_network_that_cannot_be_joined_leaves_no_interface() {
    let dir = networks("monitor-refused");
    let (_guest, mut network) = network(Vec::new());
    network.use_networks_in(&dir);
    let door = Door::new("refused");
    let (mut agent, agent_fd) = Peer::pair();
    let (owner, owner_fd) = Peer::pair();
    let (guests, _guest_of) = std::sync::mpsc::channel();
    let (gone, gone_of) = std::sync::mpsc::channel();
    let mut backend = Changeable {
        fake: Fake::new(Link::Connected(agent_fd)),
        guests,
        gone,
    };
    let path = door.path.clone();
    thread::scope(|scope| {
        scope.spawn(move || {
            agent.say(&hello());
            agent.say(&started());
            // The gateway's own address.
            let mut interface = interface();
            interface.mac = interface.gateway_mac;
            let connect = Command::Connect {
                membership: Some(Box::new(membership())),
                interface: Box::new(interface),
                names: names("172.18.0.2"),
            };
            let mut client = Door::say(&path, &connect);
            grant(&mut agent);
            assert!(matches!(answer(&mut client), Answer::Failed(_)));
            let request = grant(&mut agent);
            // It knows what it knew before.
            let gone = Request::Disconnect {
                index: 1,
                names: Box::default(),
            };
            assert_eq!(request, gone);
            assert_eq!(gone_of.recv().unwrap(), 1);
            agent.say(&exited(0));
            while agent.hear().is_some() {}
            drop(owner);
        });
        let listener = Some(&door.listener);
        let outcome = run_with(&mut backend, owner_fd, listener, Vec::new(), &mut network);
        assert!(matches!(outcome.ending, Ending::Exited(_)));
    });
    let _ = std::fs::remove_dir_all(dir);
}

/// Sends a TCP segment that begins a connection to an address (RFC 9293), from the member with that number.
fn begin_connection(guest: &Guest, number: u8, to: [u8; 4], port: u16) {
    let sum = |bytes: &[u8]| {
        let words = bytes
            .chunks(2)
            .map(|pair| u32::from_be_bytes([0, 0, pair[0], pair[1]]));
        let mut sum: u32 = words.sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    };
    let from = [10, 0, 2, number];
    let mut segment = vec![0xc3, 0x50];
    segment.extend(port.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let check = sum(&[&from[..], &to, &[0, 6, 0, 20], &segment].concat());
    segment[16..18].copy_from_slice(&check);
    let mut packet = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0];
    packet.extend([from, to].concat());
    let check = sum(&packet);
    packet[10..12].copy_from_slice(&check);
    let mut frame = vec![0; 12];
    frame.extend(interface().gateway_mac);
    let mut mac = interface().mac;
    if number != 2 {
        mac[5] = 3 + number;
    }
    frame.extend(mac);
    frame.extend([8, 0]);
    frame.extend([packet, segment].concat());
    rustix::net::send(&guest.0, &frame, SendFlags::NOSIGNAL).unwrap();
}

/// The news, until that is among them.
fn news_until(network: &mut ContainerNetwork, is_it: impl Fn(&News) -> bool) -> Vec<News> {
    let deadline = Instant::now() + LIMIT;
    let mut all = Vec::new();
    while !all.iter().any(&is_it) {
        assert!(Instant::now() < deadline, "{all:?}");
        let due = network.due().unwrap_or(deadline).min(deadline);
        let left = due.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left + Duration::from_micros(50)).unwrap();
        let events = wait(network, Some(&timeout));
        all.extend(network.turn(&events));
    }
    all
}

#[test]
fn what_a_network_refuses_is_news_and_counted_over_the_lives_of_its_processes() {
    let (guest, member) = Guest::new();
    let user = UserNetwork {
        egress: Some("deny:192.0.2.0/24".to_owned()),
        ..UserNetwork::default()
    };
    let seat = Seat::alone(user, interface());
    let mut network = ContainerNetwork::served_by(launcher(), PathBuf::new(), seat, member);
    for port in [80, 80, 81] {
        begin_connection(&guest, 2, [192, 0, 2, 1], port);
    }
    let is_last =
        |news: &News| matches!(news, News::Denied(None, one) if one.target.ends_with(":81"));
    let news = news_until(&mut network, is_last);
    let told: Vec<_> = news
        .iter()
        .map(|news| match news {
            News::Denied(None, one) => (one.target.as_str(), one.rule.as_deref()),
            other => panic!("{other:?}"),
        })
        .collect();
    let rule = Some("deny:192.0.2.0/24");
    assert_eq!(
        told,
        [("tcp 192.0.2.1:80", rule), ("tcp 192.0.2.1:81", rule)]
    );
    let counted = |network: &mut ContainerNetwork| {
        network.ask_for_counts(7);
        let answered = News::Answered(vec![(7, Question::Refused)]);
        news_until(network, |news| *news == answered);
        let refused = network.refused();
        let targets = refused.targets.iter();
        let targets: Vec<_> = targets.map(|one| (one.target.clone(), one.count)).collect();
        (refused.connections, targets)
    };
    let [first, second] = [80, 81].map(|port| format!("tcp 192.0.2.1:{port}"));
    let wanted = (3, vec![(first.clone(), 2), (second.clone(), 1)]);
    assert_eq!(counted(&mut network), wanted);
    kill(network.pid().unwrap());
    news_until(&mut network, |news| *news == News::Link(0, false));
    // Nobody is there to be asked.
    assert_eq!(counted(&mut network), wanted);
    begin_connection(&guest, 2, [192, 0, 2, 1], 80);
    turn_until(&mut network, ContainerNetwork::is_serving);
    // What the process before has told is not told again.
    begin_connection(&guest, 2, [192, 0, 2, 1], 82);
    let is_third =
        |news: &News| matches!(news, News::Denied(None, one) if one.target.ends_with(":82"));
    assert_eq!(news_until(&mut network, is_third).len(), 1);
    let (count, targets) = counted(&mut network);
    assert_eq!((count, &targets[..2]), (5, &[(first, 3), (second, 1)][..]));
    let refused = network.refused_in_all();
    assert_eq!((refused.connections, refused.targets.len()), (5, 3));
}

#[test]
fn who_leaves_a_network_whose_process_stands_still_holds_nobody_up() {
    let dir = networks("monitor-stopped");
    let (_guest, mut network) = member_of(&dir, 2);
    network.open().unwrap();
    let process = Pid::from_raw(process_of(&dir).cast_signed()).unwrap();
    kill_process(process, Signal::STOP).unwrap();
    let begun = Instant::now();
    assert_eq!(network.disconnect(0, 7, NameFiles::default()), None);
    assert!(network.find(Some(ID)).is_none() && begun.elapsed() < Duration::from_secs(8));
    // Its number is taken until it has gone.
    assert_eq!(network.place_for(None), Ok(1));
    news_until(&mut network, |news| *news == News::Left(7, 0));
    assert_eq!(network.place_for(None), Ok(0));
    drop(network);
    assert!(begun.elapsed() < Duration::from_secs(8));
    kill_process(process, Signal::KILL).unwrap();
    let _ = std::fs::remove_dir_all(dir);
}

#[test]
fn another_name_reaches_the_process_whenever_it_comes() {
    let dir = networks("monitor-renamed");
    let (_guest, mut network) = member_of(&dir, 2);
    let rename = |network: &mut ContainerNetwork, name: &str| {
        network.rename(7, &[(ID.to_owned(), vec![name.to_owned()])]);
        let answered = News::Answered(vec![(7, Question::Names)]);
        assert_eq!(news_until(network, |news| *news == answered), [answered]);
    };
    network.open().unwrap();
    rename(&mut network, "b");
    // One that is in no such network.
    network.rename(8, &[("other".to_owned(), vec!["c".to_owned()])]);
    assert_eq!(
        network.turn(&[]),
        [News::Answered(vec![(8, Question::Names)])]
    );
    kill(process_of(&dir));
    news_until(&mut network, |news| *news == News::Link(0, false));
    rename(&mut network, "c");
    turn_until(&mut network, ContainerNetwork::is_serving);
    drop(network);
    // Nothing is in it.
    std::fs::remove_dir(dir).unwrap();
}
