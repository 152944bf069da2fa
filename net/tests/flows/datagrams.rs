//! UDP and ICMP from a guest to the world.

use crate::bed::{Bed, GATEWAY_V4, PATIENCE, Plan, is_possible, uninterrupted, world};
use anyhow::{Context, Result, ensure};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

fn socket(bed: &Bed, is_v6: bool) -> Result<UdpSocket> {
    let any = if is_v6 { "[::]:0" } else { "0.0.0.0:0" };
    let socket = bed.guest().namespace.run(|| UdpSocket::bind(any))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn server(bed: &Bed, is_v6: bool) -> Result<UdpSocket> {
    let socket = bed.world.run(|| UdpSocket::bind((world(is_v6), 0)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

#[test]
fn datagrams_of_any_length_go_both_ways() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    for mtu in [65520, 1500] {
        let mut plan = Plan::default();
        plan.network.mtu = mtu;
        let bed = Bed::new(plan)?;
        for is_v6 in [false, true] {
            let (client, server) = (socket(&bed, is_v6)?, server(&bed, is_v6)?);
            client.connect(server.local_addr()?)?;
            if mtu > 1500 {
                learn_mtu(&client, is_v6)?;
            }
            let mut buffer = vec![0; 65536];
            let mut lengths = vec![0usize, 1, 1400, 1473, 8000];
            if mtu == 1500 {
                lengths.push(60_000);
            }
            for length in lengths {
                let data: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
                let what = || format!("{length} bytes, IPv6 {is_v6}, MTU {mtu}");
                client.send(&data).with_context(what)?;
                let (got, from) =
                    uninterrupted(|| server.recv_from(&mut buffer)).with_context(what)?;
                ensure!(buffer[..got] == data, "{}", what());
                server.send_to(&data, from)?;
                let got = uninterrupted(|| client.recv(&mut buffer)).with_context(what)?;
                ensure!(buffer[..got] == data, "{}", what());
            }
        }
        ensure!(bed.control.totals()?.udp_flows == 2);
    }
    Ok(())
}

/// Sends a datagram that is too long for the path as a whole, and receives the path's MTU.
fn learn_mtu(client: &UdpSocket, is_v6: bool) -> Result<()> {
    client.send(&[1; 9000])?;
    let error = uninterrupted(|| client.recv(&mut [0; 16])).unwrap_err();
    let expected = rustix::io::Errno::MSGSIZE.raw_os_error();
    ensure!(error.raw_os_error() == Some(expected), "{error}");
    let mtu = if is_v6 {
        sockopt::ipv6_mtu(client)?
    } else {
        sockopt::ip_mtu(client)?
    };
    ensure!(mtu == 1500, "{mtu}");
    Ok(())
}

#[test]
fn a_closed_port_is_told() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = Bed::new(Plan::default())?;
    for (target, is_v6) in [
        (SocketAddr::new(world(false), 9), false),
        (SocketAddr::new(world(true), 9), true),
        (SocketAddr::new(GATEWAY_V4.into(), 9), false),
    ] {
        let client = socket(&bed, is_v6)?;
        client.connect(target)?;
        client.send(b"anybody?")?;
        let error = uninterrupted(|| client.recv(&mut [0; 16])).unwrap_err();
        ensure!(
            error.kind() == ErrorKind::ConnectionRefused,
            "{target}: {error}"
        );
    }
    Ok(())
}

#[test]
fn a_datagram_that_must_not_be_cut_learns_the_paths_mtu() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = Bed::new(Plan::default())?;
    let (client, server) = (socket(&bed, false)?, server(&bed, false)?);
    sockopt::set_ip_mtu_discover(&client, sockopt::Ipv4PathMtuDiscovery::DO)?;
    client.connect(server.local_addr()?)?;
    learn_mtu(&client, false)?;
    client.send(&[2; 1472])?;
    ensure!(uninterrupted(|| server.recv(&mut [0; 9000]))? == 1472);
    Ok(())
}

/// Sends an echo request from the guest and receives the reply.
fn ping(bed: &Bed, target: IpAddr, data: &[u8]) -> Result<Vec<u8>> {
    let namespace = &bed.guest().namespace;
    namespace.set("ipv4/ping_group_range", "0 0")?;
    let (family, protocol, request) = if target.is_ipv4() {
        (AddressFamily::INET, ipproto::ICMP, 8)
    } else {
        (AddressFamily::INET6, ipproto::ICMPV6, 128)
    };
    let flags = SocketFlags::CLOEXEC;
    let open = || socket_with(family, SocketType::DGRAM, flags, Some(protocol));
    let socket: OwnedFd = namespace.run(open)?;
    let timeout = sockopt::Timeout::Recv;
    sockopt::set_socket_timeout(&socket, timeout, Some(PATIENCE))?;
    if target.is_ipv4() {
        sockopt::set_ip_mtu_discover(&socket, sockopt::Ipv4PathMtuDiscovery::DONT)?;
    }
    rustix::net::connect(&socket, &SocketAddr::new(target, 0))?;
    let mut message = vec![request, 0, 0, 0, 0, 0, 0, 7];
    message.extend_from_slice(data);
    rustix::net::send(&socket, &message, rustix::net::SendFlags::empty())?;
    let mut reply = vec![0; 65536];
    let (_, length) = rustix::net::recv(&socket, &mut reply[..], rustix::net::RecvFlags::empty())?;
    ensure!(reply[6..8] == [0, 7], "another sequence number");
    Ok(reply[8..length].to_vec())
}

#[test]
fn echo_requests_are_answered_by_who_is_asked_or_by_nobody() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = Bed::new(Plan::default())?;
    // The host lets nobody have ping sockets: that is said, and no reply is made up.
    bed.host.set("ipv4/ping_group_range", "1 0")?;
    ensure!(ping(&bed, world(false), b"hello").is_err());
    ensure!(ping(&bed, world(true), b"hello").is_err());
    ensure!(bed.control.totals()?.members.refused == 2);
    bed.host.set("ipv4/ping_group_range", "0 0")?;
    ensure!(ping(&bed, world(false), b"hello")? == b"hello");
    ensure!(ping(&bed, world(true), b"hello")? == b"hello");
    ensure!(ping(&bed, world(false), &[5; 4000])? == [5; 4000]);
    ensure!(ping(&bed, GATEWAY_V4.into(), b"gateway")? == b"gateway");
    ensure!(bed.control.totals()?.echo_flows == 3);
    Ok(())
}
