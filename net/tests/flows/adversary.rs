//! A guest whose root does what it can against its policy. Nothing that was not allowed arrives, not even
//! a packet, and each refusal is counted.

use crate::bed::{
    Bed, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, HOST_V4, HOST_V6, Namespace, PATIENCE, Plan,
    WORLD_V4, WORLD_V6, is_possible, uninterrupted,
};
use anyhow::{Context, Result, ensure};
use hullbox_net::dns::DnsConfig;
use hullbox_net::frame::build::{self, TcpFields};
use hullbox_net::frame::fragment::cut;
use hullbox_net::frame::tcp::{ACK, FIN, SYN};
use hullbox_net::frame::{protocol, vnet::VnetHeader};
use hullbox_net::{LinkFd, Mac, MemberConfig, MemberId};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

const MAC: Mac = Mac([2, 0x77, 0, 0, 0, 9]);
const V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);
const V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 9);
/// What the policy allows: one port of a host that is not there, and a name that nobody asks for.
const RULES: &str = "*.example.com,198.51.100.77/32:8080";

/// A member that is played frame by frame on a network with a world behind it.
struct Adversary {
    bed: Bed,
    link: OwnedFd,
    member: MemberId,
    sent: Cell<u64>,
}

impl Adversary {
    fn new() -> Result<Self> {
        let mut plan = Plan::default();
        plan.network.mtu = 1500;
        plan.network.dns = Some(DnsConfig {
            upstreams: vec![SocketAddr::from((WORLD_V4, 53))],
            ..DnsConfig::default()
        });
        let bed = Bed::new(plan)?;
        let kind = SocketType::SEQPACKET;
        let (link, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        let member = bed.control.add_member(MemberConfig {
            ipv4: Some(V4),
            ipv6: Some(V6),
            policy: RULES.parse()?,
            ..MemberConfig::new(MAC, LinkFd::Packets(theirs))
        })?;
        let sent = Cell::new(0);
        Ok(Self {
            bed,
            link,
            member,
            sent,
        })
    }

    /// Sends an Ethernet frame whose transport's checksum is said to be right.
    fn send(&self, ethernet: &[u8]) -> Result<()> {
        let mut frame = VnetHeader::default().encode().to_vec();
        frame[0] = 1;
        frame.extend(ethernet);
        rustix::net::send(&self.link, &frame, SendFlags::NOSIGNAL)?;
        self.sent.set(self.sent.get() + 1);
        // Answers are not looked at, and must not fill the link.
        let mut buffer = vec![0; 1 << 16];
        while rustix::net::recv(&self.link, &mut buffer[..], RecvFlags::DONTWAIT).is_ok() {}
        Ok(())
    }

    /// What was counted when all that was sent has been seen.
    fn counters(&self) -> Result<hullbox_net::MemberCounters> {
        let begin = Instant::now();
        loop {
            let counters = self.bed.control.counters(self.member)?;
            if counters.frames_received == self.sent.get() {
                return Ok(counters);
            }
            ensure!(begin.elapsed() < PATIENCE, "{counters:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Runs an attack: so many refusals are counted, and neither world nor host saw anything.
    fn attack(&self, refusals: u64, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let before = (arrivals(&self.bed.world)?, arrivals(&self.bed.host)?);
        let refused = self.counters()?.refused;
        work()?;
        let counted = self.counters()?.refused - refused;
        ensure!(counted == refusals, "{counted} refusals, not {refusals}");
        // Long enough for a packet to a neighbouring namespace.
        std::thread::sleep(Duration::from_millis(100));
        let after = (arrivals(&self.bed.world)?, arrivals(&self.bed.host)?);
        ensure!(before == after, "{before:?} {after:?}");
        Ok(())
    }
}

/// IPv4 packets, TCP segments and UDP datagrams that a namespace has received, whoever they were for.
fn arrivals(namespace: &Namespace) -> Result<Vec<u64>> {
    let (snmp, snmp6) = namespace.run(|| {
        let read = |name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        (read("snmp"), read("snmp6"))
    });
    let snmp = snmp?;
    let mut found = Vec::new();
    for (kind, field) in [
        ("Ip", "InReceives"),
        ("Tcp", "InSegs"),
        ("Udp", "InDatagrams"),
        ("Udp", "NoPorts"),
    ] {
        let mut lines = snmp
            .lines()
            .filter(|line| line.starts_with(&format!("{kind}:")));
        let (names, values) = (
            lines.next().context("no names")?,
            lines.next().context("none")?,
        );
        let at = names
            .split(' ')
            .position(|name| name == field)
            .context("no field")?;
        found.push(values.split(' ').nth(at).context("no value")?.parse()?);
    }
    for field in ["Udp6InDatagrams", "Udp6NoPorts"] {
        let line = snmp6.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
        let line = line.lines().find(|line| line.starts_with(field));
        let value = line.and_then(|line| line.split_whitespace().nth(1));
        found.push(value.context("no field")?.parse()?);
    }
    Ok(found)
}

/// An Ethernet frame from these addresses with an IP packet in it.
fn ip(mac: Mac, from: IpAddr, to: IpAddr, kind: u8, payload: &[u8]) -> Vec<u8> {
    let header = build::ip_header_bytes(from);
    let mut frame = vec![0; 14 + header];
    build::put_ethernet(&mut frame[..14], GATEWAY_MAC, mac, build::ethertype(from));
    build::put_ip(&mut frame[14..], from, to, kind, payload.len());
    frame.extend(payload);
    frame
}

fn own(to: IpAddr) -> IpAddr {
    if to.is_ipv4() { V4.into() } else { V6.into() }
}

fn tcp(port: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    let fields = TcpFields {
        source_port: 4000,
        destination_port: port,
        sequence: 7,
        acknowledgement: 0,
        flags,
        window: 60_000,
    };
    build::put_tcp(&mut bytes, &fields, &[]);
    bytes.extend(payload);
    bytes
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    build::put_udp(&mut bytes, 4000, port, payload.len());
    bytes.extend(payload);
    bytes
}

/// Addresses that lead to the world, the host, or something in between, and none of them allowed.
fn forbidden() -> Vec<IpAddr> {
    [
        WORLD_V4.to_string().as_str(),
        HOST_V4.to_string().as_str(),
        "198.51.100.76",
        "10.0.0.1",
        "169.254.169.254",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "240.0.0.1",
        "224.0.0.251",
        &WORLD_V6.to_string(),
        &HOST_V6.to_string(),
        "::1",
        "::",
        "::ffff:198.51.100.2",
        "::ffff:198.51.100.77",
        "::ffff:127.0.0.1",
        "::198.51.100.2",
        "64:ff9b::c633:6402",
        "2002:c633:6402::1",
        "2002:7f00:1::1",
        "fe80::1",
        "ff02::1",
        "fd00:ec2::254",
    ]
    .iter()
    .map(|text| text.parse().unwrap())
    .collect()
}

#[test]
fn no_address_leads_out_but_the_allowed_one() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let adversary = Adversary::new()?;
    let targets = forbidden();
    let ports = [22, 53, 80, 443, 8080];
    let count = (targets.len() * ports.len()) as u64;
    adversary.attack(count, || {
        for (&to, port) in targets.iter().flat_map(|to| ports.map(|port| (to, port))) {
            let segment = tcp(port, SYN, b"");
            adversary.send(&ip(MAC, own(to), to, protocol::TCP, &segment))?;
        }
        Ok(())
    })?;
    adversary.attack(count, || {
        for (&to, port) in targets.iter().flat_map(|to| ports.map(|port| (to, port))) {
            let datagram = udp(port, b"data");
            adversary.send(&ip(MAC, own(to), to, protocol::UDP, &datagram))?;
        }
        Ok(())
    })?;
    // Data, ends and answers of connections that never were are nobody's.
    adversary.attack(0, || {
        for flags in [ACK, FIN, SYN | ACK, 0, 0xff] {
            let segment = tcp(443, flags, b"data");
            adversary.send(&ip(
                MAC,
                V4.into(),
                WORLD_V4.into(),
                protocol::TCP,
                &segment,
            ))?;
        }
        Ok(())
    })?;
    let echo = |to: IpAddr| match to {
        IpAddr::V4(_) => (protocol::ICMP, [8, 0, 0, 0, 0, 1, 0, 1]),
        IpAddr::V6(_) => (protocol::ICMPV6, [128, 0, 0, 0, 0, 1, 0, 1]),
    };
    adversary.attack(targets.len() as u64, || {
        for &to in &targets {
            let (kind, message) = echo(to);
            adversary.send(&ip(MAC, own(to), to, kind, &message))?;
        }
        Ok(())
    })?;
    // The one that is allowed is tried, so that it is known that others would have been seen.
    let before = arrivals(&adversary.bed.host)?;
    adversary.bed.host.ip("addr add 198.51.100.77/32 dev lo")?;
    let allowed = IpAddr::from([198, 51, 100, 77]);
    let segment = tcp(8080, SYN, b"");
    adversary.send(&ip(MAC, V4.into(), allowed, protocol::TCP, &segment))?;
    adversary.counters()?;
    std::thread::sleep(Duration::from_millis(100));
    ensure!(arrivals(&adversary.bed.host)? != before);
    Ok(())
}

#[test]
fn neither_the_hosts_loopback_nor_the_gateway_has_an_open_port() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let adversary = Adversary::new()?;
    let ports = || (1..2000u16).filter(|&port| port != 53);
    for gateway in [IpAddr::from(GATEWAY_V4), GATEWAY_V6.into()] {
        let count = 2 * ports().count() as u64;
        adversary.attack(count, || {
            for port in ports() {
                let segment = tcp(port, SYN, b"");
                adversary.send(&ip(MAC, own(gateway), gateway, protocol::TCP, &segment))?;
                let datagram = udp(port, b"data");
                adversary.send(&ip(MAC, own(gateway), gateway, protocol::UDP, &datagram))?;
            }
            Ok(())
        })?;
    }
    // What is remembered of a scan is bounded.
    let counters = adversary.counters()?;
    ensure!(counters.refused_targets.len() == hullbox_net::MAX_REFUSED);
    Ok(())
}

#[test]
fn fragments_lead_nowhere_either() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let adversary = Adversary::new()?;
    /// A fragment of an IPv4 packet.
    fn fragment(id: u16, offset: usize, more: bool, part: &[u8]) -> Vec<u8> {
        let mut frame = ip(MAC, V4.into(), WORLD_V4.into(), protocol::TCP, part);
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        let word = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
        frame[20..22].copy_from_slice(&word.to_be_bytes());
        build::seal_v4(&mut frame[14..34]);
        frame
    }
    let mut segment = tcp(443, SYN, &[7; 60]);
    let check = hullbox_net::frame::checksum::transport(
        V4.into(),
        WORLD_V4.into(),
        protocol::TCP,
        &segment,
    );
    segment[16..18].copy_from_slice(&check.to_be_bytes());
    // In pieces of eight bytes: not even the port and the flags are in one. It is judged as a whole.
    adversary.attack(2, || {
        let parts: Vec<_> = cut(&segment, 28).collect();
        for &(offset, part, more) in &parts {
            adversary.send(&fragment(1, offset, more, part))?;
        }
        for &(offset, part, more) in parts.iter().rev() {
            adversary.send(&fragment(2, offset, more, part))?;
        }
        Ok(())
    })?;
    // Ports that a later fragment would write over, fragments without a beginning, or without an end.
    let malformed = adversary.counters()?.malformed;
    adversary.attack(0, || {
        adversary.send(&fragment(3, 0, true, &segment[..24]))?;
        adversary.send(&fragment(3, 0, true, &tcp(8080, SYN, &[0; 4])))?;
        adversary.send(&fragment(3, 24, false, &segment[24..]))?;
        for id in 4..100 {
            adversary.send(&fragment(id, 8, false, &segment[8..]))?;
            adversary.send(&fragment(id + 100, 0, true, &segment[..24]))?;
        }
        Ok(())
    })?;
    ensure!(adversary.counters()?.malformed > malformed);
    Ok(())
}

#[test]
fn nobody_elses_address_and_no_other_protocol_leads_out() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let adversary = Adversary::new()?;
    let victim = adversary.bed.guest();
    let frames_of_victim = adversary.bed.control.counters(victim.member)?.frames_sent;
    let before = adversary.counters()?;
    let syn = tcp(443, SYN, b"");
    let to: IpAddr = WORLD_V4.into();
    let sources: [IpAddr; 7] = [
        victim.v4.into(),
        GATEWAY_V4.into(),
        WORLD_V4.into(),
        HOST_V4.into(),
        Ipv4Addr::LOCALHOST.into(),
        Ipv4Addr::BROADCAST.into(),
        [10, 77, 0, 200].into(),
    ];
    let sources_v6: [IpAddr; 3] = [
        victim.v6.into(),
        GATEWAY_V6.into(),
        Ipv6Addr::LOCALHOST.into(),
    ];
    let macs = [
        Mac([2, 0x77, 0, 0, 0, 2]),
        GATEWAY_MAC,
        Mac([0xff; 6]),
        Mac([0; 6]),
    ];
    adversary.attack(0, || {
        for from in sources {
            adversary.send(&ip(MAC, from, to, protocol::TCP, &syn))?;
        }
        for from in sources_v6 {
            adversary.send(&ip(MAC, from, WORLD_V6.into(), protocol::TCP, &syn))?;
        }
        for mac in macs {
            adversary.send(&ip(mac, V4.into(), to, protocol::TCP, &syn))?;
        }
        Ok(())
    })?;
    let spoofed = (sources.len() + sources_v6.len() + macs.len()) as u64;
    ensure!(adversary.counters()?.spoofed - before.spoofed == spoofed);
    // Tunnels, SCTP, ICMP that is no request, a tag of a virtual LAN, and nothing known.
    adversary.attack(0, || {
        for kind in [4, 41, 47, 50, 51, 132, 255] {
            adversary.send(&ip(MAC, V4.into(), to, kind, &[0x45; 60]))?;
        }
        for kind in [0, 3, 5, 9, 11, 13, 17] {
            let message = [kind, 0, 0, 0, 0, 1, 0, 1];
            adversary.send(&ip(MAC, V4.into(), to, protocol::ICMP, &message))?;
        }
        let plain = ip(MAC, V4.into(), to, protocol::TCP, &syn);
        let mut tagged = plain[..12].to_vec();
        tagged.extend([0x81, 0, 0, 1]);
        tagged.extend(&plain[12..]);
        adversary.send(&tagged)?;
        let mut unknown = plain;
        unknown[12..14].copy_from_slice(&[0x88, 0x64]);
        adversary.send(&unknown)
    })?;
    ensure!(adversary.counters()?.ignored - before.ignored == 16);
    // Nothing of all this was shown to the other member.
    let shown = adversary.bed.control.counters(victim.member)?.frames_sent;
    ensure!(shown == frames_of_victim, "{shown}");
    Ok(())
}

#[test]
fn names_carry_nothing_out() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let adversary = Adversary::new()?;
    // It would be asked.
    let upstream = adversary
        .bed
        .world
        .run(|| UdpSocket::bind((WORLD_V4, 53)))?;
    let question = |name: &str, kind: u16| {
        let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            bytes.push(label.len() as u8);
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes
    };
    let ask = |bytes: &[u8]| {
        let datagram = udp(53, bytes);
        adversary.send(&ip(
            MAC,
            V4.into(),
            GATEWAY_V4.into(),
            protocol::UDP,
            &datagram,
        ))
    };
    let secret = ["x".repeat(63), "y".repeat(63), "z".repeat(63)].join(".");
    adversary.attack(0, || {
        for n in 0..500 {
            ask(&question(
                &format!("{n}.{secret}.evil.example.org"),
                [1, 16, 28, 255][n % 4],
            ))?;
        }
        // Names that look allowed to some.
        for name in [
            "example.com",
            "www.example.com.evil",
            "evil-example.com",
            "xn--.evil",
            "com",
        ] {
            ask(&question(name, 1))?;
        }
        // Two questions, a name with a dot in a label, compression, other classes and operations.
        let mut two = question("www.example.com", 1);
        two[5] = 2;
        two.extend(&question(&secret, 1)[12..]);
        ask(&two)?;
        let mut dotted = question("evilxx.example.com", 1);
        dotted[17] = b'.';
        ask(&dotted)?;
        let mut pointer = question("www.example.com", 1);
        pointer[12] = 0xc0;
        ask(&pointer)?;
        let mut update = question("www.example.com", 1);
        update[2] = 0x28;
        ask(&update)?;
        let mut long = question("www.example.com", 1);
        long.extend(vec![7; 1200]);
        ask(&long)
    })?;
    let counters = adversary.counters()?;
    ensure!(counters.refused_names == 505, "{counters:?}");
    ensure!(counters.refused_targets.len() == hullbox_net::MAX_REFUSED);
    upstream.set_nonblocking(true)?;
    ensure!(uninterrupted(|| upstream.recv(&mut [0; 2000])).is_err());
    // A name that is allowed is passed on, and nothing beside its question and how long an answer may be.
    let option = |data: &[u8]| {
        let mut bytes = question("www.example.com", 1);
        bytes[11] = 1;
        bytes.extend([0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, data.len() as u8]);
        bytes.extend(data);
        bytes
    };
    ask(&option(&[7; 200]))?;
    upstream.set_nonblocking(false)?;
    upstream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut buffer = [0; 2000];
    let length = uninterrupted(|| upstream.recv(&mut buffer))?;
    ensure!(
        buffer[2..length] == option(&[])[2..],
        "{:?}",
        &buffer[..length]
    );
    Ok(())
}
