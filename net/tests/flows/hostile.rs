//! A member that keeps to no rule, and what TCP does about frames that are lost.

use crate::bed::{GATEWAY_V4, uninterrupted};
use crate::raw::{ADDRESS, Got, MAC, Raw, ip_frame};
use crate::traffic::Bytes;
use anyhow::{Context, Result, ensure};
use hullbox_net::frame::tcp::{ACK, FIN, PSH, RST, SYN};
use hullbox_net::frame::{build, checksum, protocol};
use hullbox_net::{MAX_REFUSED, Mac, Offloads};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

const OURS: u16 = 4000;

fn segment(sequence: u32, acknowledgement: u32, flags: u8, payload: &[u8]) -> Got {
    Got {
        sequence,
        acknowledgement,
        flags,
        window: 60_000,
        payload: payload.to_vec(),
    }
}

/// A connection of the member's to the host's loopback.
struct Connection {
    raw: Raw,
    server: TcpStream,
    port: u16,
    /// The first sequence number of the network's data.
    theirs: u32,
}

const FIRST: u32 = u32::MAX - 5;

fn connect(offloads: Offloads) -> Result<Connection> {
    let raw = Raw::new(offloads)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    raw.send_tcp((OURS, port), segment(FIRST, 0, SYN, b""))?;
    let answer = raw.receive_tcp(OURS)?;
    ensure!(answer.flags == SYN | ACK && answer.acknowledgement == FIRST.wrapping_add(1));
    let theirs = answer.sequence.wrapping_add(1);
    raw.send_tcp(
        (OURS, port),
        segment(FIRST.wrapping_add(1), theirs, ACK, b""),
    )?;
    let server = listener.accept()?.0;
    server.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(Connection {
        raw,
        server,
        port,
        theirs,
    })
}

impl Connection {
    fn send(&self, offset: u32, acknowledged: u32, flags: u8, payload: &[u8]) -> Result<()> {
        let sequence = FIRST.wrapping_add(1).wrapping_add(offset);
        let acknowledgement = self.theirs.wrapping_add(acknowledged);
        let fields = segment(sequence, acknowledgement, flags, payload);
        self.raw.send_tcp((OURS, self.port), fields)
    }

    fn receive(&self) -> Result<Got> {
        let mut got = self.raw.receive_tcp(OURS)?;
        got.sequence = got.sequence.wrapping_sub(self.theirs);
        got.acknowledgement = got.acknowledgement.wrapping_sub(FIRST.wrapping_add(1));
        Ok(got)
    }
}

#[test]
fn segments_that_come_late_twice_or_overlapping_are_put_right() -> Result<()> {
    let mut connection = connect(Offloads::NONE)?;
    connection.send(6, 0, ACK | PSH, b"world")?;
    let answer = connection.receive()?;
    ensure!(
        (answer.acknowledgement, answer.flags) == (0, ACK),
        "{answer:?}"
    );
    connection.send(0, 0, ACK, b"hello")?;
    ensure!(connection.receive()?.acknowledgement == 5);
    connection.send(0, 0, ACK, b"hello")?;
    ensure!(connection.receive()?.acknowledgement == 5);
    // With what fills the gap all that came behind it is acknowledged, and not the end, which has not come.
    connection.send(3, 0, ACK, b"lo ")?;
    ensure!(connection.receive()?.acknowledgement == 11);
    connection.send(3, 0, ACK | FIN, b"lo world")?;
    ensure!(connection.receive()?.acknowledgement == 12);
    let mut text = String::new();
    connection.server.read_to_string(&mut text)?;
    ensure!(text == "hello world", "{text}");
    Ok(())
}

#[test]
fn three_equal_acknowledgements_bring_what_was_lost() -> Result<()> {
    let mut connection = connect(Offloads::NONE)?;
    let mut data = vec![0; 5 * 536];
    Bytes::new(9).fill(&mut data);
    connection.server.write_all(&data)?;
    let mut count = 0;
    while count < data.len() {
        let got = connection.receive()?;
        ensure!(got.sequence as usize == count && !got.payload.is_empty());
        count += got.payload.len();
    }
    // The second segment is said to be lost.
    for _ in 0..4 {
        connection.send(0, 536, ACK, b"")?;
    }
    let again = connection.receive()?;
    ensure!(again.sequence == 536, "{}", again.sequence);
    ensure!(again.payload == data[536..536 + again.payload.len()]);
    ensure!(connection.raw.control.totals()?.retransmitted_bytes == 536);
    // What is acknowledged in part tells of the next gap, and of no other.
    connection.send(0, 1072, ACK, b"")?;
    ensure!(connection.receive()?.sequence == 1072);
    connection.send(0, 5 * 536, ACK, b"")?;
    ensure!(connection.raw.control.totals()?.retransmitted_bytes == 2 * 536);
    Ok(())
}

#[test]
fn without_any_acknowledgement_data_and_end_are_sent_again() -> Result<()> {
    let mut connection = connect(Offloads::NONE)?;
    connection.server.write_all(b"data")?;
    drop(connection.server);
    let mut seen = [0; 2];
    while seen.iter().any(|&count| count < 3) {
        let raw = connection.raw.receive_tcp(OURS)?;
        let sequence = raw.sequence.wrapping_sub(connection.theirs);
        if raw.payload == b"data" {
            ensure!(sequence == 0);
            seen[0] += 1;
        }
        if raw.flags & FIN != 0 {
            ensure!(sequence as usize + raw.payload.len() == 4);
            seen[1] += 1;
        }
    }
    Ok(())
}

#[test]
fn a_closed_window_is_probed_until_it_opens() -> Result<()> {
    let mut connection = connect(Offloads::NONE)?;
    let port = connection.port;
    let mut closed = segment(FIRST.wrapping_add(1), connection.theirs, ACK, b"");
    closed.window = 0;
    connection.raw.send_tcp((OURS, port), closed.clone())?;
    connection.raw.control.totals()?;
    connection.server.write_all(b"patience")?;
    // Each probe lies before the window and is answered with the window.
    for _ in 0..2 {
        let probe = connection.receive()?;
        ensure!(
            probe.payload.is_empty() && probe.sequence == u32::MAX,
            "{probe:?}"
        );
        connection.raw.send_tcp((OURS, port), closed.clone())?;
    }
    connection.send(0, 0, ACK, b"")?;
    loop {
        let got = connection.receive()?;
        if !got.payload.is_empty() {
            ensure!(got.payload == b"patience");
            return Ok(());
        }
    }
}

#[test]
fn a_probe_of_the_members_is_answered() -> Result<()> {
    let connection = connect(Offloads::ALL)?;
    connection.send(u32::MAX, 0, ACK, b"")?;
    ensure!(connection.receive()?.acknowledgement == 0);
    Ok(())
}

#[test]
fn numbers_that_were_never_sent_are_answered_and_do_no_harm() -> Result<()> {
    let mut connection = connect(Offloads::NONE)?;
    connection.send(0, 1_000_000, ACK, b"nonsense")?;
    ensure!(connection.receive()?.acknowledgement == 0);
    // A reset outside of the window is nobody's.
    connection.send(1 << 30, 0, RST, b"")?;
    connection.send(0, 0, ACK, b"sense")?;
    let mut bytes = [0; 5];
    connection.server.read_exact(&mut bytes)?;
    ensure!(&bytes == b"sense");
    Ok(())
}

#[test]
fn a_segment_without_a_connection_is_reset() -> Result<()> {
    let raw = Raw::new(Offloads::NONE)?;
    raw.send_tcp((OURS, 9), segment(7, 99, ACK, b"data"))?;
    let answer = raw.receive_tcp(OURS)?;
    ensure!((answer.flags, answer.sequence) == (RST, 99));
    raw.send_tcp((OURS, 9), segment(7, 0, FIN, b"data"))?;
    let answer = raw.receive_tcp(OURS)?;
    ensure!((answer.flags, answer.acknowledgement) == (RST | ACK, 12));
    raw.send_tcp((OURS, 9), segment(7, 0, RST, b""))?;
    raw.control.totals()?;
    ensure!(raw.control.totals()?.members.frames_sent == 2);
    Ok(())
}

#[test]
fn foreign_addresses_are_dropped_and_counted() -> Result<()> {
    let raw = Raw::new(Offloads::NONE)?;
    let server = UdpSocket::bind("127.0.0.1:0")?;
    let port = server.local_addr()?.port();
    let datagram = |from: Ipv4Addr| {
        let mut bytes = vec![0; 8];
        build::put_udp(&mut bytes, OURS, port, 4);
        bytes.extend_from_slice(b"data");
        let check = checksum::transport(from.into(), GATEWAY_V4.into(), protocol::UDP, &bytes);
        bytes[6..8].copy_from_slice(&check.to_be_bytes());
        bytes
    };
    let other = Ipv4Addr::new(10, 77, 0, 8);
    let outside = Ipv4Addr::new(192, 0, 2, 1);
    for source in [other, outside, GATEWAY_V4, Ipv4Addr::LOCALHOST] {
        raw.send_ip(source, GATEWAY_V4, protocol::UDP, &datagram(source))?;
    }
    let own = datagram(ADDRESS);
    let foreign_mac = Mac([2, 0x77, 0, 0, 0, 8]);
    raw.send(&ip_frame(
        foreign_mac,
        ADDRESS,
        GATEWAY_V4,
        protocol::UDP,
        &own,
    ))?;
    let mut arp = vec![0; 12];
    arp.extend(raw_arp(MAC, other));
    raw.send(&arp)?;
    raw.send_ip(ADDRESS, GATEWAY_V4, protocol::UDP, &own)?;
    let mut buffer = [0; 16];
    let (_, from) = uninterrupted(|| server.recv_from(&mut buffer))?;
    server.set_nonblocking(true)?;
    ensure!(
        uninterrupted(|| server.recv(&mut buffer)).is_err(),
        "a second datagram"
    );
    ensure!(from.ip().is_loopback());
    ensure!(
        raw.control.totals()?.members.spoofed == 6,
        "{:?}",
        raw.control.totals()?
    );
    Ok(())
}

/// An ARP request for the gateway.
fn raw_arp(mac: Mac, sender: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac.0);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac.0);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(GATEWAY_V4.octets());
    frame
}

#[test]
fn a_wrong_checksum_is_dropped_unless_it_is_offloaded() -> Result<()> {
    let raw = Raw::new(Offloads::NONE)?;
    let syn = crate::raw::tcp_bytes((OURS, 9), &segment(7, 99, ACK, b""), &[]);
    let mut wrong = syn.clone();
    wrong[17] ^= 1;
    raw.send_ip(ADDRESS, GATEWAY_V4, protocol::TCP, &wrong)?;
    ensure!(raw.control.totals()?.members.malformed <= 1);
    let mut frame = ip_frame(MAC, ADDRESS, GATEWAY_V4, protocol::TCP, &wrong);
    frame[0] = 1;
    raw.send(&frame)?;
    ensure!(raw.receive_tcp(OURS)?.flags == RST);
    ensure!(raw.control.totals()?.members.malformed == 1);
    Ok(())
}

/// Memory of this process that is its own, in bytes.
fn private_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text
        .lines()
        .find(|line| line.starts_with("Private_Dirty"))
        .context("no line")?;
    let kib: u64 = line
        .split_whitespace()
        .nth(1)
        .context("no number")?
        .parse()?;
    Ok(kib * 1024)
}

#[test]
fn garbage_grows_nothing_and_stops_no_other_flow() -> Result<()> {
    let mut connection = connect(Offloads::NONE)?;
    let before = private_bytes()?;
    let mut bytes = Bytes::new(77);
    let mut data = vec![0; 2048];
    let mut sent = 0u32;
    for round in 0..200_000u32 {
        bytes.fill(&mut data[..64]);
        let length = usize::from(u16::from_le_bytes([data[0], data[1]])) % 1600;
        let frame = match round % 4 {
            // Anything at all.
            0 => {
                let mut all = vec![0; length];
                bytes.fill(&mut all);
                all
            }
            // Something with valid outer headers.
            1 => {
                bytes.fill(&mut data);
                let kind = [6, 17, 1, 44][usize::from(data[2]) % 4];
                let to = Ipv4Addr::new(10, 77, 0, data[3] % 4);
                ip_frame(MAC, ADDRESS, to, kind, &data[4..4 + length % 1400])
            }
            // A segment of the flow that is alive, with one byte changed and its sum offloaded.
            2 => {
                let fields = segment(u32::from(data[5]), u32::from(data[6]), ACK | data[7], b"x");
                let mut tcp = crate::raw::tcp_bytes((data[8].into(), 9), &fields, &[]);
                tcp[usize::from(data[9]) % 20] = data[10];
                // Ports stay other ones than the flow's.
                tcp[..2].copy_from_slice(&u16::from(data[8]).to_be_bytes());
                let mut frame = ip_frame(MAC, ADDRESS, GATEWAY_V4, 6, &tcp);
                frame[0] = 1;
                frame
            }
            // Fragments that never become a datagram.
            _ => {
                let mut frame = ip_frame(MAC, ADDRESS, GATEWAY_V4, 17, &data[..1400]);
                frame[30..32].copy_from_slice(&data[11..13]);
                frame[32..34].copy_from_slice(&[0x3f, data[13]]);
                build::seal_v4(&mut frame[26..46]);
                frame
            }
        };
        if frame.len() > 1 {
            connection.raw.send(&frame)?;
        }
        if round % 64 == 0 {
            connection.raw.drain()?;
        }
        if round % 20_000 == 0 {
            connection.send(sent, 0, ACK, b"alive")?;
            sent += 5;
            let mut alive = [0; 5];
            connection.server.read_exact(&mut alive)?;
            ensure!(&alive == b"alive");
        }
    }
    let counters = connection.raw.control.counters(connection.raw.member)?;
    ensure!(counters.malformed > 10_000);
    ensure!(counters.refused_targets.len() <= MAX_REFUSED);
    let after = private_bytes()?;
    ensure!(
        after < before + (64 << 20),
        "{before} before, {after} after"
    );
    Ok(())
}

#[test]
fn a_link_that_closes_takes_its_flows_along() -> Result<()> {
    let mut connection = connect(Offloads::NONE)?;
    connection.raw.close();
    let error = connection.server.read(&mut [0]).unwrap_err();
    ensure!(
        error.kind() == std::io::ErrorKind::ConnectionReset,
        "{error}"
    );
    ensure!(connection.raw.control.totals()?.tcp_flows == 0);
    Ok(())
}
