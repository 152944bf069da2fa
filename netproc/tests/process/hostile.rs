//! A guest that sends the worst that it can think of, into a network that others share.
//!
//! `HULLBOX_TEST_WORST_S` is how long it does, in seconds.

use crate::bed::{self, Container, GATEWAY, HOST, LIMIT, SERVICE};
use crate::jail::private_kib;
use crate::shared::{self, Networks};
use anyhow::{Context, Result, ensure};
use hullbox_host::privileges::more_descriptors;
use hullbox_net::Mac;
use hullbox_net::frame::build::{self, TcpFields};
use hullbox_net::frame::ethernet::Ethernet;
use hullbox_net::frame::ip::IpPacket;
use hullbox_net::frame::tcp::{ACK, FIN, PSH, SYN, TcpSegment};
use hullbox_net::frame::{VNET_BYTES, protocol, vnet::VnetHeader};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

/// Most private memory that the process may ever have.
const MAX_PRIVATE_KIB: u64 = 64 << 10;
/// How long the other flow may wait for an answer, on two busy processors.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// The number of the guest, by which it has its addresses.
const NUMBER: u8 = 9;
/// Takes connections and reads nothing.
const DEAF: u16 = 9000;
/// Says more than anybody reads.
const LOUD: u16 = 9001;
/// Names are all allowed, so that connections are held until they tell one.
const RULES: &str = "*.example.com,198.51.100.0/24:9000-9001/tcp,198.51.100.0/24/udp";

pub fn a_guest_that_sends_the_worst_costs_others_nothing() -> Result<()> {
    more_descriptors();
    let seconds = std::env::var("HULLBOX_TEST_WORST_S").unwrap_or_else(|_| "5".to_owned());
    let until = Instant::now() + Duration::from_secs(seconds.parse().context("seconds")?);
    let networks = Networks::new("hostile");
    let launcher = networks.launcher();
    let other = Container::with(bed::interface_of(2))?;
    let (first, _) = other.join(&launcher, &shared::seat(2, &["a"]))?;
    let (link, member) = bed::packets();
    let mut seat = shared::seat(NUMBER, &["worst"]);
    seat.network.egress = Some(RULES.to_owned());
    seat.network.dns = vec![HOST.into()];
    let (mut second, _) = bed::join(&launcher, &seat, &member)?;
    drop(member);
    let pid = networks.process()?;
    let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let before = private_kib(&proc)?;

    let done = AtomicBool::new(false);
    let mut guest = Guest::new(link);
    let (asked, longest, most) = std::thread::scope(|scope| -> Result<_> {
        let ends = Ends(&done);
        serve(scope, &done)?;
        let talking = scope.spawn(|| talk(&other, &done));
        let measuring = scope.spawn(|| peak(&proc, &done));
        guest.misbehave(until)?;
        drop(ends);
        let (asked, longest) = talking.join().unwrap()?;
        Ok((asked, longest, measuring.join().unwrap()?))
    })?;
    let counts = second.counters(LIMIT)?;
    println!(
        "{} frames; {before} KiB before, {most} KiB at the most; {asked} answers to the other, \
         one after {longest:?} at the latest; {} refused, {} TCP flows begun",
        guest.sent, counts.refused, counts.tcp_begun
    );
    ensure!(most < MAX_PRIVATE_KIB, "{most} KiB");
    ensure!(longest < MAX_WAIT, "the other flow waited for {longest:?}");
    ensure!(networks.process()? == pid, "it was followed by another");
    drop((first, second));
    networks.is_gone(pid)
}

/// Ends all threads, however this one ends.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The host's servers, which end when all is done.
fn serve<'a>(scope: &'a Scope<'a, '_>, done: &'a AtomicBool) -> Result<()> {
    let pause = Duration::from_millis(50);
    let deaf = TcpListener::bind((HOST, DEAF))?;
    let loud = TcpListener::bind((HOST, LOUD))?;
    let echo = TcpListener::bind((HOST, SERVICE))?;
    let names = UdpSocket::bind((HOST, 53))?;
    names.set_read_timeout(Some(pause))?;
    for listener in [&deaf, &loud, &echo] {
        listener.set_nonblocking(true)?;
    }
    scope.spawn(move || {
        let mut kept = Vec::new();
        let noise = vec![b'!'; 1 << 16];
        while !done.load(Ordering::Relaxed) {
            kept.extend(deaf.accept());
            while let Ok((mut stream, peer)) = loud.accept() {
                let _ = stream.set_nonblocking(true);
                let _ = stream.write(&noise);
                kept.push((stream, peer));
            }
            // What is not accepted waits in the backlog.
            kept.truncate(1000);
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    scope.spawn(move || {
        // One connection; its end is the other side's.
        let mut stream = loop {
            match echo.accept() {
                Ok((stream, _)) => break stream,
                Err(_) if done.load(Ordering::Relaxed) => return,
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length) = stream.read(&mut buffer)
            && length > 0
            && stream.write_all(&buffer[..length]).is_ok()
        {}
    });
    scope.spawn(move || {
        let mut question = [0; 1500];
        while !done.load(Ordering::Relaxed) {
            let Ok((length, from)) = names.recv_from(&mut question) else {
                continue;
            };
            // Half of them are never answered.
            if question[0] & 1 == 0 && length > 12 {
                let mut answer = question[..length].to_vec();
                answer[2] |= 0x80;
                answer[7] = 1;
                answer[11] = 0;
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend(HOST.octets());
                let _ = names.send_to(&answer, from);
            }
        }
    });
    Ok(())
}

/// Asks over one connection again and again: how often it was answered, and the longest wait.
fn talk(other: &Container, done: &AtomicBool) -> Result<(u64, Duration)> {
    let to = (HOST, SERVICE).into();
    let mut stream = other.run(|| TcpStream::connect_timeout(&to, LIMIT))?;
    stream.set_read_timeout(Some(LIMIT))?;
    let (mut asked, mut longest) = (0u64, Duration::ZERO);
    while !done.load(Ordering::Relaxed) {
        let question: Vec<u8> = (0..10_000).map(|n| (asked + n) as u8).collect();
        let mut answer = vec![0; question.len()];
        let begun = Instant::now();
        stream.write_all(&question)?;
        stream.read_exact(&mut answer)?;
        ensure!(answer == question, "another answer to question {asked}");
        longest = longest.max(begun.elapsed());
        asked += 1;
    }
    Ok((asked, longest))
}

/// The most private memory that the process has until all is done, in KiB.
fn peak(proc: &Path, done: &AtomicBool) -> Result<u64> {
    let mut most = 0;
    while !done.load(Ordering::Relaxed) {
        most = most.max(private_kib(proc)?);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(most)
}

/// What the worst is, in turns.
#[derive(Clone, Copy)]
enum Evil {
    /// Anything at all.
    Garbage,
    /// Something behind valid headers.
    Nonsense,
    /// A connection to this port of the host's.
    Connection(u16),
    /// To a port of the host's that nobody has.
    Datagram,
    /// A fragment of what is never whole.
    Fragment,
    /// A name nobody has asked for before.
    Question,
    /// To everybody.
    Broadcast,
}

const TURNS: [Evil; 10] = [
    Evil::Garbage,
    Evil::Nonsense,
    Evil::Connection(DEAF),
    Evil::Datagram,
    Evil::Fragment,
    Evil::Connection(LOUD),
    Evil::Question,
    Evil::Connection(443),
    Evil::Connection(80),
    Evil::Broadcast,
];

/// A guest that keeps to no rule.
struct Guest {
    link: OwnedFd,
    mac: Mac,
    address: Ipv4Addr,
    state: u64,
    sent: u64,
}

impl Guest {
    fn new(link: OwnedFd) -> Self {
        let interface = bed::interface_of(NUMBER);
        Self {
            link,
            mac: Mac(interface.mac),
            address: Ipv4Addr::new(10, 0, 2, NUMBER),
            state: 0x9e37_79b9_7f4a_7c15,
            sent: 0,
        }
    }

    /// Numbers without a period that matters.
    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state >> 8
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend(self.random().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    fn misbehave(&mut self, until: Instant) -> Result<()> {
        while Instant::now() < until {
            for evil in TURNS {
                // Of some kinds, more at a time than there is room for.
                for _ in 0..8 {
                    self.commit(evil)?;
                }
                self.answer()?;
            }
        }
        Ok(())
    }

    fn commit(&mut self, evil: Evil) -> Result<()> {
        let number = self.random();
        let port = 1024 + (number % 60_000) as u16;
        match evil {
            Evil::Garbage => {
                let bytes = self.bytes(1 + (number % 1600) as usize);
                self.send(&bytes)
            }
            Evil::Nonsense => {
                let kind = [1, 2, 6, 17, 41, 44, 58, 132][(number % 8) as usize];
                let payload = self.bytes((number >> 8) as usize % 1400);
                let to = [HOST, GATEWAY, Ipv4Addr::new(10, 0, 2, 2)][(number % 3) as usize];
                self.send_ip(to, kind, &payload)
            }
            Evil::Connection(to) => {
                let mut fields = fields(port, to, SYN);
                fields.sequence = number as u32;
                self.send_tcp(HOST, &fields, b"")
            }
            Evil::Datagram => {
                let mut bytes = vec![0; 8 + (number % 1000) as usize];
                let length = bytes.len() - 8;
                build::put_udp(&mut bytes, port, !port, length);
                self.send_ip(HOST, protocol::UDP, &bytes)
            }
            Evil::Fragment => {
                let payload = self.bytes(1400);
                let mut frame = self.frame(HOST, protocol::UDP, &payload);
                frame[VNET_BYTES + 18..VNET_BYTES + 20].copy_from_slice(&port.to_be_bytes());
                frame[VNET_BYTES + 20..VNET_BYTES + 22]
                    .copy_from_slice(&(0x2000 | ((number % 40) as u16 * 175)).to_be_bytes());
                build::seal_v4(&mut frame[VNET_BYTES + 14..VNET_BYTES + 34]);
                self.send(&frame)
            }
            Evil::Question => {
                let mut bytes = vec![0; 8];
                let name = format!("{number:020}");
                bytes.extend(number.to_le_bytes()[..2].iter());
                bytes.extend(b"\x01\0\0\x01\0\0\0\0\0\0\x14");
                bytes.extend(name.as_bytes());
                bytes.extend(b"\x07example\x03com\0\0\x01\0\x01");
                let length = bytes.len() - 8;
                build::put_udp(&mut bytes, port, 53, length);
                self.send_ip(GATEWAY, protocol::UDP, &bytes)
            }
            Evil::Broadcast => {
                let mut frame = self.frame(Ipv4Addr::BROADCAST, protocol::UDP, &[0xee; 1200]);
                frame[VNET_BYTES..VNET_BYTES + 6].fill(0xff);
                self.send(&frame)
            }
        }
    }

    /// Looks at what has come. Who took a connection gets data behind a gap, or a beginning of a name that
    /// never ends, and what it says is never acknowledged.
    fn answer(&mut self) -> Result<()> {
        let mut buffer = vec![0; 1 << 17];
        loop {
            let length = match rustix::net::recv(&self.link, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => anyhow::bail!("the network has gone"),
                Ok((_, length)) => length,
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            };
            let packet = buffer
                .get(VNET_BYTES..length)
                .and_then(Ethernet::parse)
                .and_then(|(_, bytes)| IpPacket::parse_v4(bytes))
                .filter(|packet| packet.protocol == protocol::TCP);
            let Some(segment) = packet.and_then(|packet| TcpSegment::parse(packet.payload)) else {
                continue;
            };
            if !segment.has(SYN) {
                continue;
            }
            let mut fields = fields(segment.destination_port, segment.source_port, ACK);
            fields.sequence = segment.acknowledgement;
            fields.acknowledgement = segment.sequence.wrapping_add(1);
            self.go_on(fields)?;
        }
    }

    fn go_on(&mut self, mut fields: TcpFields) -> Result<()> {
        self.send_tcp(HOST, &fields, b"")?;
        fields.flags = ACK | PSH;
        let begin = fields.sequence;
        let is_by_name = matches!(fields.destination_port, 80 | 443);
        let head: &[u8] = match fields.destination_port {
            80 => b"GET / HTTP/1.1\r\nX: ",
            443 => b"\x16\x03\x01\x40\0\x01\0\x3f\xfc\x03\x03",
            _ => b"",
        };
        if is_by_name {
            self.send_tcp(HOST, &fields, head)?;
        }
        for part in 0..11u32 {
            let gap = if is_by_name { head.len() as u32 } else { 7 };
            fields.sequence = begin.wrapping_add(gap).wrapping_add(part * 1400);
            self.send_tcp(HOST, &fields, &[b'x'; 1400])?;
        }
        fields.flags = ACK | FIN;
        fields.sequence = begin.wrapping_add(60_000);
        self.send_tcp(HOST, &fields, b"")
    }

    fn send_tcp(&mut self, to: Ipv4Addr, fields: &TcpFields, payload: &[u8]) -> Result<()> {
        let mut bytes = vec![0; 20];
        build::put_tcp(&mut bytes, fields, &[]);
        bytes.extend(payload);
        self.send_ip(to, protocol::TCP, &bytes)
    }

    fn send_ip(&mut self, to: Ipv4Addr, kind: u8, payload: &[u8]) -> Result<()> {
        let frame = self.frame(to, kind, payload);
        self.send(&frame)
    }

    /// Its transport's checksum is said to be right.
    fn frame(&self, to: Ipv4Addr, kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = VnetHeader::default().encode().to_vec();
        frame[0] = 1;
        frame.resize(VNET_BYTES + 34, 0);
        let gateway = Mac(bed::interface().gateway_mac);
        build::put_ethernet(
            &mut frame[VNET_BYTES..VNET_BYTES + 14],
            gateway,
            self.mac,
            0x0800,
        );
        build::put_ip(
            &mut frame[VNET_BYTES + 14..],
            self.address.into(),
            to.into(),
            kind,
            payload.len(),
        );
        frame.extend(payload);
        frame
    }

    /// As fast as they are taken.
    fn send(&mut self, frame: &[u8]) -> Result<()> {
        loop {
            match rustix::net::send(&self.link, frame, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(_) => {
                    self.sent += 1;
                    return Ok(());
                }
                // It may be the other direction that is full.
                Err(Errno::AGAIN) => self.drain()?,
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn drain(&self) -> Result<()> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut buffer = [0; 1 << 10];
        while rustix::net::recv(&self.link, &mut buffer[..], RecvFlags::DONTWAIT).is_ok() {}
        let mut fds = [PollFd::new(&self.link, PollFlags::IN | PollFlags::OUT)];
        let limit = Timespec::try_from(LIMIT)?;
        ensure!(poll(&mut fds, Some(&limit))? == 1, "nothing is taken");
        Ok(())
    }
}

fn fields(from: u16, to: u16, flags: u8) -> TcpFields {
    TcpFields {
        source_port: from,
        destination_port: to,
        sequence: 0,
        acknowledgement: 0,
        flags,
        window: 60_000,
    }
}
