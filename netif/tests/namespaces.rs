//! What the kernel makes of it, in network namespaces of each test's own.
//!
//! Needs root, /dev/net/tun, unshare(1) and iproute2; says so and passes elsewhere.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests and their helpers fail by panicking"
)]

use anyhow::{Context, Result, ensure};
use hullbox_net::{LinkFd, Mac, MemberConfig, Network, NetworkConfig, Subnet, keep_tap, open_tap};
use hullbox_netif::{
    NetifError, Step, add_beside_first, configure, hand_over, loopback_up, reconfigure, remove,
};
use hullbox_protocol::{Addresses, Interface};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const GATEWAY_MAC: [u8; 6] = [2, 0x48, 0x55, 0x4c, 0x4c, 1];
const MAC: [u8; 6] = [2, 1, 2, 3, 4, 5];
const V4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
const V6: Ipv6Addr = Ipv6Addr::new(0xfd48, 0x554c, 0x4c42, 0, 0, 0, 0, 2);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd48, 0x554c, 0x4c42, 0, 0, 0, 0, 1);
/// Longer than the kernel puts off what it sends because an interface came up: a second at the most
/// (`rtr_solicit_delay`, by which `addrconf_dad_kick` delays as well).
const QUIET: Duration = Duration::from_millis(1500);
/// A virtio-net header.
const VNET_BYTES: usize = 12;

fn interface() -> Interface {
    Interface {
        mac: MAC,
        mtu: 65520,
        ipv4: Some(Addresses {
            address: V4,
            prefix: 24,
            gateway: Some(GATEWAY_V4),
        }),
        ipv6: Some(Addresses {
            address: V6,
            prefix: 64,
            gateway: Some(GATEWAY_V6),
        }),
        gateway_mac: GATEWAY_MAC,
        route_metric: Some(0),
    }
}

/// A network namespace, which a child holds.
struct Namespace {
    holder: Child,
    file: File,
}

impl Namespace {
    /// `None` where there are none to be had.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() || File::open("/dev/net/tun").is_err() {
            eprintln!("skipped: needs root and /dev/net/tun");
            return None;
        }
        Some(Self::make().unwrap())
    }

    fn make() -> Result<Self> {
        let mut holder = Command::new("unshare")
            .args(["-n", "sh", "-c", "echo made; read end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = String::new();
        let output = holder.stdout.take().context("no output")?;
        BufReader::new(output).read_line(&mut said)?;
        ensure!(said == "made\n", "no network namespace");
        let file = File::open(format!("/proc/{}/ns/net", holder.id()))?;
        Ok(Self { holder, file })
    }

    /// Does something in there, on a thread of its own.
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.file.as_fd(), kind).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }

    fn tap(&self) -> OwnedFd {
        self.run(|| {
            let tap = open_tap("eth0").unwrap();
            keep_tap(&tap).unwrap();
            tap
        })
    }

    /// What `ip` says to these words.
    fn ip(&self, words: &str) -> String {
        let words: Vec<_> = words.split(' ').collect();
        let output = self.run(|| Command::new("ip").args(&words).output().unwrap());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn set(&self, parameter: &str, value: &str) {
        self.run(|| std::fs::write(format!("/proc/sys/net/{parameter}"), value).unwrap());
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// The next frame of the interface, without its virtio-net header, if there is one in this time.
fn frame(tap: &OwnedFd, patience: Duration) -> Option<Vec<u8>> {
    let time = Timespec {
        tv_sec: patience.as_secs().cast_signed(),
        tv_nsec: patience.subsec_nanos().into(),
    };
    let mut fds = [PollFd::new(tap, PollFlags::IN)];
    if rustix::io::retry_on_intr(|| poll(&mut fds, Some(&time))).unwrap() == 0 {
        return None;
    }
    let mut frame = vec![0; 70_000];
    let length = rustix::io::read(tap, &mut frame).unwrap();
    Some(frame[VNET_BYTES..length].to_vec())
}

fn assert_silent(tap: &OwnedFd) {
    if let Some(frame) = frame(tap, QUIET) {
        panic!("sent: {frame:02x?}");
    }
}

#[test]
fn nothing_is_sent_because_the_interface_came_up() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    let tap = namespace.tap();
    namespace.run(|| configure("eth0", &interface()).unwrap());
    assert_silent(&tap);
    // Nor when it is set up anew.
    namespace.run(|| reconfigure("eth0", Some(&interface())).unwrap());
    assert_silent(&tap);

    // Whoever listens hears: the way of everybody else ends in membership reports.
    let other = Namespace::make().unwrap();
    let tap = other.tap();
    other.ip("link set eth0 addrgenmode none up");
    other.ip(&format!("addr add {V6}/64 dev eth0 nodad"));
    let report = frame(&tap, QUIET).unwrap();
    assert_eq!(report[..6], [0x33, 0x33, 0, 0, 0, 0x16], "{report:02x?}");
}

#[test]
fn the_interface_is_as_it_was_described() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    let _tap = namespace.tap();
    namespace.run(|| configure("eth0", &interface()).unwrap());
    let link = namespace.ip("link show eth0");
    for part in ["BROADCAST,MULTICAST,UP", "mtu 65520", "02:01:02:03:04:05"] {
        assert!(link.contains(part), "{part}: {link}");
    }
    assert!(!link.contains("NOARP"), "{link}");
    let addresses = namespace.ip("-o addr show");
    for part in [
        "lo    inet 127.0.0.1/8",
        "lo    inet6 ::1/128",
        "eth0    inet 10.0.2.2/24 brd 10.0.2.255 scope global eth0",
        "eth0    inet6 fd48:554c:4c42::2/64 scope global nodad",
    ] {
        assert!(addresses.contains(part), "{part}: {addresses}");
    }
    assert!(!addresses.contains("fe80"), "{addresses}");
    assert!(!addresses.contains("tentative"), "{addresses}");
    let routes = namespace.ip("-4 route show") + &namespace.ip("-6 route show");
    for part in [
        "default via 10.0.2.1 dev eth0",
        "10.0.2.0/24 dev eth0 proto kernel scope link src 10.0.2.2",
        "default via fd48:554c:4c42::1 dev eth0",
        "fd48:554c:4c42::/64 dev eth0 proto kernel",
    ] {
        assert!(routes.contains(part), "{part}: {routes}");
    }
    let neighbors = namespace.ip("neigh show");
    for gateway in ["10.0.2.1", "fd48:554c:4c42::1"] {
        let line = format!("{gateway} dev eth0 lladdr 02:48:55:4c:4c:01 PERMANENT");
        assert!(neighbors.contains(&line), "{line}: {neighbors}");
    }
}

#[test]
fn the_first_frame_is_what_a_program_sends() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    let tap = namespace.tap();
    namespace.run(|| configure("eth0", &interface()).unwrap());
    for (to, kind) in [
        (IpAddr::from(GATEWAY_V4), [8, 0]),
        (Ipv4Addr::new(192, 0, 2, 1).into(), [8, 0]),
        (GATEWAY_V6.into(), [0x86, 0xdd]),
        (
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
            [0x86, 0xdd],
        ),
    ] {
        namespace.run(|| {
            let any: IpAddr = match to {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind(SocketAddr::new(any, 0)).unwrap();
            socket.send_to(b"hello", SocketAddr::new(to, 9)).unwrap();
        });
        let frame = frame(&tap, Duration::from_secs(10)).unwrap();
        assert_eq!(frame[..6], GATEWAY_MAC, "{to}");
        assert_eq!(frame[6..12], MAC, "{to}");
        assert_eq!(frame[12..14], kind, "{to}");
        assert!(frame.ends_with(b"hello"), "{to}");
    }
}

#[test]
fn connections_pass_both_ways() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    let tap = namespace.tap();
    namespace.run(|| configure("eth0", &interface()).unwrap());
    let mut config = NetworkConfig::new(Mac(GATEWAY_MAC));
    config.ipv4 = Some(Subnet {
        gateway: GATEWAY_V4,
        prefix: 24,
    });
    config.ipv6 = Some(Subnet {
        gateway: GATEWAY_V6,
        prefix: 64,
    });
    let (network, control) = Network::new(config).unwrap();
    let member = MemberConfig {
        ipv4: Some(V4),
        ipv6: Some(V6),
        host_gateway: true,
        ..MemberConfig::new(Mac(MAC), LinkFd::Tap(tap))
    };
    let thread = std::thread::spawn(move || network.run());
    control.add_member(member).unwrap();
    for (own, gateway) in [
        (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(GATEWAY_V4)),
        (Ipv6Addr::LOCALHOST.into(), GATEWAY_V6.into()),
    ] {
        let Ok(listener) = TcpListener::bind(SocketAddr::new(own, 0)) else {
            eprintln!("skipped: this host has no {own}");
            continue;
        };
        let port = listener.local_addr().unwrap().port();
        let echo = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut word = [0; 5];
            stream.read_exact(&mut word).unwrap();
            stream.write_all(&word).unwrap();
        });
        let answer = namespace.run(|| {
            let to = SocketAddr::new(gateway, port);
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(20)).unwrap();
            stream.write_all(b"hello").unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            answer
        });
        assert_eq!(answer, b"hello", "{gateway}");
        echo.join().unwrap();
    }
    control.stop().unwrap();
    thread.join().unwrap().unwrap();
}

#[test]
fn without_ipv6_there_is_ipv4() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    for parameter in ["default", "all"] {
        namespace.set(&format!("ipv6/conf/{parameter}/disable_ipv6"), "1");
    }
    let tap = namespace.tap();
    namespace.run(|| configure("eth0", &interface()).unwrap());
    let addresses = namespace.ip("-o addr show eth0");
    assert!(addresses.contains("10.0.2.2/24"), "{addresses}");
    assert!(!addresses.contains("inet6"), "{addresses}");
    assert!(!namespace.ip("link show eth0").contains("NOARP"));
    assert_silent(&tap);
    // And none is asked for.
    let other = Namespace::make().unwrap();
    let tap = other.tap();
    let interface = Interface {
        ipv6: None,
        ..interface()
    };
    other.run(|| configure("eth0", &interface).unwrap());
    let addresses = other.ip("-o addr show eth0");
    assert!(addresses.contains("10.0.2.2/24"), "{addresses}");
    assert!(!addresses.contains("inet6"), "{addresses}");
    assert_silent(&tap);
}

#[test]
fn what_was_there_before_is_gone() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    let tap = namespace.tap();
    namespace.run(|| configure("eth0", &interface()).unwrap());
    // A workload with privileges did this.
    let _other = namespace.run(|| open_tap("other").unwrap());
    namespace.set("ipv6/conf/eth0/keep_addr_on_down", "1");
    for words in [
        "addr add 10.0.2.77/24 dev eth0",
        "addr add 192.0.2.9/32 dev eth0",
        "addr add 2001:db8::9/64 dev eth0 nodad",
        "route add 198.51.100.0/24 via 10.0.2.1",
        "neigh add 10.0.2.9 lladdr 02:00:00:00:00:09 nud permanent dev eth0",
        "addr add 203.0.113.1/24 dev other",
    ] {
        namespace.ip(words);
    }
    while frame(&tap, Duration::from_millis(100)).is_some() {}
    let mac = [2, 9, 8, 7, 6, 5];
    let anew = Interface {
        mac,
        mtu: 1500,
        ipv4: Some(Addresses {
            address: Ipv4Addr::new(10, 0, 9, 2),
            prefix: 30,
            gateway: None,
        }),
        ..interface()
    };
    namespace.run(|| reconfigure("eth0", Some(&anew)).unwrap());
    let link = namespace.ip("link show eth0");
    assert!(
        link.contains("02:09:08:07:06:05") && link.contains("mtu 1500"),
        "{link}"
    );
    let addresses = namespace.ip("-o addr show eth0");
    assert_eq!(addresses.lines().count(), 2, "{addresses}");
    for part in [
        "inet 10.0.9.2/30 brd 10.0.9.3 ",
        "inet6 fd48:554c:4c42::2/64",
    ] {
        assert!(addresses.contains(part), "{part}: {addresses}");
    }
    let routes = namespace.ip("-4 route show");
    assert_eq!(
        routes.trim(),
        "10.0.9.0/30 dev eth0 proto kernel scope link src 10.0.9.2"
    );
    let neighbors = namespace.ip("neigh show nud permanent");
    assert_eq!(neighbors.lines().count(), 1, "{neighbors}");
    let others = namespace.ip("-o addr show other");
    assert!(others.contains("203.0.113.1/24"), "{others}");
    assert_silent(&tap);

    namespace.run(|| reconfigure("eth0", None).unwrap());
    let link = namespace.ip("link show eth0");
    assert!(!link.contains(",UP"), "{link}");
    assert_eq!(namespace.ip("-o addr show eth0"), "");
}

/// Another interface's configuration, in another network.
fn second() -> Interface {
    Interface {
        mac: [2, 9, 8, 7, 6, 5],
        ipv4: Some(Addresses {
            address: Ipv4Addr::new(10, 0, 3, 2),
            prefix: 24,
            gateway: Some(Ipv4Addr::new(10, 0, 3, 1)),
        }),
        ipv6: Some(Addresses {
            address: "fd48:554c:4c43::2".parse().unwrap(),
            prefix: 64,
            gateway: Some("fd48:554c:4c43::1".parse().unwrap()),
        }),
        route_metric: Some(1),
        ..interface()
    }
}

fn default_routes(namespace: &Namespace) -> Vec<String> {
    let routes = namespace.ip("-4 route show default") + &namespace.ip("-6 route show default");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    routes.lines().map(words).collect()
}

#[test]
fn an_interface_beside_the_first_has_its_own_addresses_and_a_route_for_when_that_is_gone() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    let tap = namespace.tap();
    namespace.run(|| configure("eth0", &interface()).unwrap());
    match namespace.run(|| add_beside_first("eth1", &second())) {
        Err(NetifError::Step {
            step: Step::Add,
            source: rustix::io::Errno::OPNOTSUPP,
        }) => {
            eprintln!("skipped: the kernel has no macvlan");
            return;
        }
        other => other.unwrap(),
    }
    let link = namespace.ip("link show eth1");
    for part in ["BROADCAST,MULTICAST,UP", "mtu 65520", "02:09:08:07:06:05"] {
        assert!(link.contains(part), "{part}: {link}");
    }
    assert_silent(&tap);
    let routes = default_routes(&namespace);
    assert!(
        routes[0].starts_with("default via 10.0.2.1 dev eth0"),
        "{routes:?}"
    );
    assert!(
        routes[1].starts_with("default via 10.0.3.1 dev eth1 metric 1"),
        "{routes:?}"
    );
    assert!(routes[2].contains("dev eth0 metric 1024"), "{routes:?}");
    assert!(routes[3].contains("dev eth1 metric 1025"), "{routes:?}");
    // Each network's frames are of its interface.
    let sender_of = |target: [u8; 4]| {
        namespace.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"x", (Ipv4Addr::from(target), 9)).unwrap();
        });
        let frame = frame(&tap, QUIET).unwrap();
        <[u8; 6]>::try_from(&frame[6..12]).unwrap()
    };
    assert_eq!(sender_of([10, 0, 3, 1]), second().mac);
    assert_eq!(sender_of([10, 0, 2, 1]), MAC);
    assert_eq!(sender_of([192, 0, 2, 1]), MAC);
    // The first one is in no network any more, and carries the other's frames.
    let unused = Interface {
        ipv4: None,
        ipv6: None,
        ..interface()
    };
    namespace.run(|| reconfigure("eth0", Some(&unused)).unwrap());
    assert_eq!(sender_of([192, 0, 2, 1]), second().mac);
    namespace.run(|| remove("eth1").unwrap());
    let error = namespace.run(|| remove("eth1").unwrap_err());
    assert!(
        matches!(error, NetifError::Missing(ref name) if name == "eth1"),
        "{error:?}"
    );
    assert_eq!(default_routes(&namespace), [""; 0]);
    assert_silent(&tap);
    // The kernel lets none on a card have a larger MTU than the card.
    let narrow = Interface {
        mtu: 1400,
        ..interface()
    };
    namespace.run(|| reconfigure("eth0", Some(&narrow)).unwrap());
    namespace.run(|| add_beside_first("eth1", &second()).unwrap());
    let link = namespace.ip("link show eth1");
    assert!(link.contains("mtu 1400"), "{link}");
}

#[test]
fn an_interface_goes_to_another_namespace() {
    let (Some(from), Some(to)) = (Namespace::new(), Namespace::new()) else {
        return;
    };
    let tap = from.tap();
    from.run(|| hand_over(to.file.as_fd()).unwrap());
    let error = from.run(|| configure("eth0", &interface()).unwrap_err());
    assert!(
        matches!(error, NetifError::Missing(ref name) if name == "eth0"),
        "{error:?}"
    );
    to.run(|| configure("eth0", &interface()).unwrap());
    assert!(to.ip("-o addr show eth0").contains("10.0.2.2/24"));
    assert_silent(&tap);
}

#[test]
fn a_refusal_names_the_step() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    let _tap = namespace.tap();
    let mut wrong = interface();
    wrong.ipv4 = wrong.ipv4.map(|addresses| Addresses {
        prefix: 33,
        ..addresses
    });
    let error = namespace.run(|| configure("eth0", &wrong).unwrap_err());
    let NetifError::Step { step, source } = error else {
        panic!("{error:?}");
    };
    assert_eq!(step, Step::Ipv4Address);
    assert_eq!(source, rustix::io::Errno::INVAL);
    let mut wrong = interface();
    wrong.ipv6 = wrong.ipv6.map(|addresses| Addresses {
        gateway: Some(Ipv6Addr::LOCALHOST),
        ..addresses
    });
    wrong.ipv4 = None;
    let error = namespace.run(|| reconfigure("eth0", Some(&wrong)).unwrap_err());
    assert!(
        matches!(
            error,
            NetifError::Step {
                step: Step::Ipv6Route,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn the_loopback_comes_up() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    namespace.run(|| {
        let anywhere = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let listener = TcpListener::bind(anywhere);
        // Addresses come with the interface.
        let reached = |listener: TcpListener| TcpStream::connect(listener.local_addr().unwrap());
        assert!(listener.and_then(reached).is_err());
        loopback_up().unwrap();
        TcpListener::bind(anywhere).and_then(reached).unwrap();
    });
}

/// How long it takes, for who wants to know: `cargo test -- --ignored --nocapture cost`.
#[test]
#[ignore = "prints a measurement"]
fn cost() {
    let mut times = Vec::new();
    for _ in 0..20 {
        let namespace = Namespace::new().unwrap();
        let tap = namespace.tap();
        times.push(namespace.run(|| {
            let begun = Instant::now();
            configure("eth0", &interface()).unwrap();
            begun.elapsed()
        }));
        drop(tap);
    }
    times.sort();
    println!("median {:?}, all {times:?}", times[times.len() / 2]);
}
