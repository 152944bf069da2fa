//! TCP from a guest to the world.

use crate::bed::{Bed, Carrier, HOST_V4, PATIENCE, Plan, is_possible, uninterrupted, world};
use crate::relay::Weather;
use crate::traffic::{exchange, receive, send};
use anyhow::{Context, Result, ensure};
use hullbox_net::Offloads;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

/// A connection from the guest to the world: (the guest's end, the world's end).
pub fn connection(bed: &Bed, is_v6: bool) -> Result<(TcpStream, TcpStream)> {
    let listener = bed.world.run(|| TcpListener::bind((world(is_v6), 0)))?;
    let address = listener.local_addr()?;
    let client = bed
        .guest()
        .namespace
        .run(|| TcpStream::connect_timeout(&address, PATIENCE))?;
    let server = listener.accept()?.0;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
    }
    Ok((client, server))
}

fn transfers(plan: Plan, length: usize) -> Result<Bed> {
    let bed = Bed::new(plan)?;
    for is_v6 in [false, true] {
        let (client, server) = connection(&bed, is_v6)?;
        send_one_way(&client, &server, length).context("to the world")?;
        let (client, server) = connection(&bed, is_v6)?;
        send_one_way(&server, &client, length).context("from the world")?;
        let (client, server) = connection(&bed, is_v6)?;
        exchange(&client, &server, length).context("both ways")?;
    }
    Ok(bed)
}

fn send_one_way(from: &TcpStream, to: &TcpStream, length: usize) -> Result<()> {
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send(from, 3, length));
        receive(to, 3, length)?;
        sender.join().unwrap()
    })
}

#[test]
fn a_hundred_megabytes_arrive_each_way() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    transfers(Plan::default(), 100_000_000)?;
    Ok(())
}

#[test]
fn without_offloads_and_with_small_frames() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let mut plan = Plan {
        offloads: Offloads::NONE,
        ..Plan::default()
    };
    plan.network.mtu = 1500;
    transfers(plan, 20 * MIB)?;
    Ok(())
}

#[test]
fn on_kernels_that_cannot_peek_at_an_offset() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let mut plan = Plan::default();
    plan.network.use_peek_offset = false;
    transfers(plan, 50 * MIB)?;
    Ok(())
}

#[test]
fn over_packets_and_over_a_stream() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    for carrier in [Carrier::Packets, Carrier::Stream] {
        let plan = Plan {
            carrier,
            ..Plan::default()
        };
        transfers(plan, 50 * MIB).with_context(|| format!("{carrier:?}"))?;
    }
    Ok(())
}

#[test]
fn frames_that_the_link_loses_are_sent_again() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let plan = Plan {
        carrier: Carrier::Packets,
        link_weather: Weather {
            lose_one_of: 50,
            ..Weather::default()
        },
        ..Plan::default()
    };
    let bed = transfers(plan, 4 * MIB)?;
    ensure!(bed.control.totals()?.retransmitted_bytes > 0);
    Ok(())
}

#[test]
fn a_long_way_with_losses_behind_the_host() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let plan = Plan {
        world_weather: Weather {
            delay: Duration::from_millis(25),
            lose_one_of: 1000,
        },
        ..Plan::default()
    };
    transfers(plan, 4 * MIB)?;
    Ok(())
}

#[test]
fn a_hundred_megabytes_over_fifty_milliseconds() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let plan = Plan {
        world_weather: Weather {
            delay: Duration::from_millis(25),
            lose_one_of: 0,
        },
        ..Plan::default()
    };
    let bed = Bed::new(plan)?;
    let (client, server) = connection(&bed, false)?;
    send_one_way(&client, &server, 100_000_000)?;
    let (client, server) = connection(&bed, false)?;
    send_one_way(&server, &client, 100_000_000)
}

/// Longest time in which nothing arrives, on two busy processors.
const STALL: Duration = Duration::from_secs(2);

/// Sends so many bytes and tells the longest time in which none arrived.
fn longest_gap(mut from: &TcpStream, mut to: &TcpStream, length: usize) -> Result<Duration> {
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || -> std::io::Result<()> {
            let chunk = vec![7; 1 << 16];
            for at in (0..length).step_by(chunk.len()) {
                from.write_all(&chunk[..chunk.len().min(length - at)])?;
            }
            from.shutdown(Shutdown::Write)
        });
        let mut buffer = vec![0; 1 << 16];
        let (mut longest, mut got, mut last) = (Duration::ZERO, 0, Instant::now());
        loop {
            let count = to.read(&mut buffer)?;
            longest = longest.max(last.elapsed());
            if count == 0 {
                break;
            }
            got += count;
            last = Instant::now();
        }
        sender.join().unwrap()?;
        ensure!(got == length, "{got} bytes of {length}");
        Ok(longest)
    })
}

fn ten_times_without_a_stall(weather: Weather) -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = Bed::new(Plan {
        world_weather: weather,
        ..Plan::default()
    })?;
    for turn in 0..10 {
        let (client, server) = connection(&bed, false)?;
        let (from, to) = match turn % 2 {
            0 => (&client, &server),
            _ => (&server, &client),
        };
        let gap = longest_gap(from, to, 100_000_000)?;
        ensure!(gap < STALL, "{turn}: nothing came for {gap:?}");
    }
    Ok(())
}

#[test]
fn a_hundred_megabytes_ten_times_without_a_stall() -> Result<()> {
    ten_times_without_a_stall(Weather::default())
}

#[test]
fn a_hundred_megabytes_ten_times_over_fifty_milliseconds_without_a_stall() -> Result<()> {
    ten_times_without_a_stall(Weather {
        delay: Duration::from_millis(25),
        lose_one_of: 0,
    })
}

#[test]
fn it_goes_on_when_the_host_has_another_address() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = Bed::new(Plan::default())?;
    let listener = bed.world.run(|| TcpListener::bind((world(false), 80)))?;
    let server = bed.world.run(|| UdpSocket::bind((world(false), 80)))?;
    server.set_read_timeout(Some(PATIENCE))?;
    let guest = &bed.guest().namespace;
    let datagrams = guest.run(|| UdpSocket::bind("0.0.0.0:0"))?;
    let mut seen = Vec::new();
    for (old, new) in [
        (format!("{HOST_V4}/24"), "198.51.100.8/24"),
        ("198.51.100.8/24".to_owned(), "198.51.100.9/24"),
    ] {
        let target = SocketAddr::from((world(false), 80));
        let client = guest.run(|| TcpStream::connect_timeout(&target, PATIENCE))?;
        let (accepted, peer) = listener.accept()?;
        for stream in [&client, &accepted] {
            stream.set_read_timeout(Some(PATIENCE))?;
        }
        exchange(&client, &accepted, MIB).with_context(|| format!("instead of {old}"))?;
        // A flow of datagrams goes on, too: its next one has the new address.
        datagrams.send_to(b"still here", target)?;
        let (_, from) = uninterrupted(|| server.recv_from(&mut [0; 100]))?;
        ensure!(from.ip() == peer.ip(), "{from} {peer}");
        seen.push(peer.ip().to_string());
        bed.host.ip(&format!("addr add {new} dev up0"))?;
        bed.host.ip(&format!("addr del {old} dev up0"))?;
        // Linux removes the other addresses of a subnet with its first one, unless it is told to promote them.
        let _ = bed.host.ip(&format!("addr add {new} dev up0"));
    }
    ensure!(
        seen == [HOST_V4.to_string().as_str(), "198.51.100.8"],
        "{seen:?}"
    );
    Ok(())
}

#[test]
fn either_end_may_end_first_and_go_on_receiving() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = Bed::new(Plan::default())?;
    for is_v6 in [false, true] {
        let (client, server) = connection(&bed, is_v6)?;
        question_and_answer(&client, &server)?;
        let (client, server) = connection(&bed, is_v6)?;
        question_and_answer(&server, &client)?;
    }
    Ok(())
}

fn question_and_answer(mut first: &TcpStream, mut second: &TcpStream) -> Result<()> {
    first.write_all(b"question")?;
    first.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    second.read_to_string(&mut text)?;
    ensure!(text == "question");
    for part in [&b"an "[..], b"answer"] {
        second.write_all(part)?;
    }
    second.shutdown(Shutdown::Write)?;
    text.clear();
    first.read_to_string(&mut text)?;
    ensure!(text == "an answer");
    Ok(())
}

#[test]
fn resets_pass_both_ways() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = Bed::new(Plan::default())?;
    for turn in 0..4 {
        let (client, server) = connection(&bed, turn % 2 == 0)?;
        let (gone, mut left) = if turn < 2 {
            (client, server)
        } else {
            (server, client)
        };
        rustix::net::sockopt::set_socket_linger(&gone, Some(Duration::ZERO))?;
        drop(gone);
        let error = left.read(&mut [0]).unwrap_err();
        ensure!(
            error.kind() == ErrorKind::ConnectionReset,
            "{turn}: {error}"
        );
    }
    Ok(())
}

#[test]
fn what_is_refused_is_refused_and_what_is_unreachable_is_unreachable() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = Bed::new(Plan::default())?;
    bed.host.ip("route add unreachable 203.0.113.0/24")?;
    bed.host.ip("-6 route add unreachable 2001:db8:2::/48")?;
    for (target, expected) in [
        ("198.51.100.2:9", ErrorKind::ConnectionRefused),
        ("[2001:db8:1::2]:9", ErrorKind::ConnectionRefused),
        // The gateway has no ports of its own, and it does not lead to the host's loopback.
        ("10.77.0.1:9", ErrorKind::ConnectionRefused),
        ("203.0.113.1:9", ErrorKind::HostUnreachable),
        ("[2001:db8:2::1]:9", ErrorKind::HostUnreachable),
        // The host learns from its neighbours that nobody has the address.
        ("198.51.100.77:9", ErrorKind::HostUnreachable),
    ] {
        let address: SocketAddr = target.parse()?;
        let namespace = &bed.guest().namespace;
        let error = namespace
            .run(|| TcpStream::connect_timeout(&address, PATIENCE))
            .unwrap_err();
        ensure!(error.kind() == expected, "{target}: {error}");
    }
    ensure!(bed.control.totals()?.tcp_flows == 0);
    Ok(())
}

#[test]
fn a_reader_that_rests_stops_the_writer_and_loses_nothing() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = Bed::new(Plan::default())?;
    for turn in 0..2 {
        let (client, server) = connection(&bed, false)?;
        let (writer, reader) = if turn == 0 {
            (&client, &server)
        } else {
            (&server, &client)
        };
        writer.set_nonblocking(true)?;
        let mut written = 0;
        let mut bytes = crate::traffic::Bytes::new(3);
        let mut rest: Vec<u8> = Vec::new();
        // Until nothing is taken for longer than the first probes of a closed window need.
        loop {
            if rest.is_empty() {
                rest.resize(1 << 16, 0);
                bytes.fill(&mut rest);
            }
            match (&*writer).write(&rest) {
                Ok(length) => {
                    written += length;
                    drop(rest.drain(..length));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(writer, PollFlags::OUT)];
                    let wait = Timespec {
                        tv_sec: 2,
                        tv_nsec: 0,
                    };
                    if rustix::event::poll(&mut fds, Some(&wait))? == 0 {
                        break;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        writer.shutdown(Shutdown::Write)?;
        receive(reader, 3, written)?;
    }
    Ok(())
}
