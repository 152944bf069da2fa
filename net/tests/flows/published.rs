//! Ports of the host that lead to a guest.

use crate::bed::{
    Bed, GATEWAY_V4, GATEWAY_V6, HOST_V4, HOST_V6, Namespace, PATIENCE, Plan, WORLD_V4,
    is_possible, uninterrupted,
};
use crate::tcp;
use crate::traffic::exchange;
use anyhow::{Result, ensure};
use hullbox_net::{NetError, PortKind, open_port};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Instant;

/// Publishes a guest's port 80 on the host's port 8080 of an address.
fn publish(bed: &Bed, kind: PortKind, address: &str) -> Result<hullbox_net::PortId> {
    let address: SocketAddr = address.parse()?;
    let socket = bed.host.run(|| open_port(kind, address))?;
    Ok(bed
        .control
        .publish((kind, socket), (bed.guest().member, 80))?)
}

fn patient(stream: TcpStream) -> Result<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

#[test]
fn connections_reach_the_guest_from_everywhere() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = Bed::new(Plan::default())?;
    publish(&bed, PortKind::Tcp, "0.0.0.0:8080")?;
    publish(&bed, PortKind::Tcp, "[::]:8080")?;
    let v4 = bed
        .guest()
        .namespace
        .run(|| TcpListener::bind("0.0.0.0:80"))?;
    let v6 = bed
        .guest()
        .namespace
        .run(|| TcpListener::bind("[fd77::2]:80"))?;
    for (from, to, listener, seen) in [
        (
            &bed.world,
            IpAddr::from(HOST_V4),
            &v4,
            IpAddr::from(WORLD_V4),
        ),
        (&bed.world, HOST_V6.into(), &v6, crate::bed::WORLD_V6.into()),
        (&bed.host, HOST_V4.into(), &v4, HOST_V4.into()),
        // A guest cannot answer to loopback addresses: they are the gateway to it.
        (&bed.host, [127, 0, 0, 1].into(), &v4, GATEWAY_V4.into()),
        (&bed.host, "::1".parse()?, &v6, GATEWAY_V6.into()),
    ] {
        let client = patient(from.run(|| TcpStream::connect((to, 8080)))?)?;
        let (server, peer) = listener.accept()?;
        ensure!(peer.ip() == seen, "{to}: {peer}");
        exchange(&client, &patient(server)?, 5_000_000)?;
    }
    Ok(())
}

#[test]
fn a_port_that_nobody_listens_to_in_the_guest_is_reset() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = Bed::new(Plan::default())?;
    publish(&bed, PortKind::Tcp, "0.0.0.0:8080")?;
    let mut client = patient(bed.world.run(|| TcpStream::connect((HOST_V4, 8080)))?)?;
    let error = client.read(&mut [0]).unwrap_err();
    ensure!(error.kind() == ErrorKind::ConnectionReset, "{error}");
    Ok(())
}

#[test]
fn two_hundred_requests_at_a_time() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = Bed::new(Plan::default())?;
    publish(&bed, PortKind::Tcp, "0.0.0.0:8080")?;
    let listener = bed
        .guest()
        .namespace
        .run(|| TcpListener::bind("0.0.0.0:80"))?;
    // All of them are open at the same time before the first is answered.
    let serve = move || -> Result<()> {
        let streams: Result<Vec<_>, _> = (0..200).map(|_| listener.accept()).collect();
        for (stream, _) in streams? {
            let mut stream = patient(stream)?;
            let mut question = [0; 100];
            stream.read_exact(&mut question)?;
            stream.write_all(&question.repeat(1000))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| -> Result<()> {
        let server = scope.spawn(serve);
        let clients: Vec<_> = (0..200u8)
            .map(|number| {
                let connect = || TcpStream::connect((HOST_V4, 8080));
                let world = &bed.world;
                scope.spawn(move || -> Result<bool> {
                    let mut client = patient(world.run(connect)?)?;
                    client.write_all(&[number; 100])?;
                    let mut answer = Vec::new();
                    client.read_to_end(&mut answer)?;
                    Ok(answer == [number; 100_000])
                })
            })
            .collect();
        for client in clients {
            ensure!(client.join().unwrap()?, "another answer");
        }
        server.join().unwrap()
    })
}

#[test]
fn five_hundred_wait_where_nobody_accepts() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    // More than wait in a queue of 128 before the network looks.
    let host = Namespace::new()?;
    let address = SocketAddr::from(([127, 0, 0, 1], 8080));
    let _port = host.run(|| open_port(PortKind::Tcp, address))?;
    let limit = std::time::Duration::from_secs(5);
    let mut waiting = Vec::new();
    for number in 0..500 {
        let client = host.run(|| TcpStream::connect_timeout(&address, limit));
        waiting.push(client.map_err(|error| anyhow::anyhow!("{number}: {error}"))?);
    }
    Ok(())
}

/// Has a connection to the published port carry bytes each way, all of which have to arrive.
fn carry(from: &Namespace, to: IpAddr, listener: &TcpListener) -> Result<()> {
    const BYTES: usize = 64 << 20;
    let client = patient(from.run(|| TcpStream::connect((to, 8080)))?)?;
    let server = patient(listener.accept()?.0)?;
    for (mut sender, mut receiver) in [(&client, &server), (&server, &client)] {
        std::thread::scope(|scope| -> Result<()> {
            let sending = scope.spawn(move || -> std::io::Result<()> {
                let chunk = vec![7; 1 << 16];
                (0..BYTES / chunk.len()).try_for_each(|_| sender.write_all(&chunk))
            });
            let mut buffer = vec![0; 1 << 16];
            let mut left = BYTES;
            while left > 0 {
                let most = left.min(buffer.len());
                let read = receiver.read(&mut buffer[..most])?;
                ensure!(read > 0, "it ended {left} bytes early");
                ensure!(buffer[..read].iter().all(|byte| *byte == 7));
                left -= read;
            }
            Ok(sending.join().unwrap()?)
        })?;
    }
    Ok(())
}

/// How fast is for `bench-net` to say.
#[test]
fn a_published_port_carries_all_from_elsewhere_as_over_the_loopback() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = Bed::new(Plan::default())?;
    publish(&bed, PortKind::Tcp, "0.0.0.0:8080")?;
    let listener = bed
        .guest()
        .namespace
        .run(|| TcpListener::bind("0.0.0.0:80"))?;
    carry(&bed.host, [127, 0, 0, 1].into(), &listener)?;
    carry(&bed.world, HOST_V4.into(), &listener)
}

#[test]
fn datagrams_are_answered_to_whoever_sent_them() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = Bed::new(Plan::default())?;
    publish(&bed, PortKind::Udp, "0.0.0.0:8080")?;
    let server = bed
        .guest()
        .namespace
        .run(|| UdpSocket::bind("0.0.0.0:80"))?;
    server.set_read_timeout(Some(PATIENCE))?;
    // Two peers with one port, which are the gateway both.
    let peers = [
        ("127.0.0.1:5000", "127.0.0.1"),
        ("127.0.0.2:5000", "127.0.0.1"),
    ];
    let mut sockets = Vec::new();
    for (own, target) in peers {
        let socket = bed.host.run(|| UdpSocket::bind(own))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(own.as_bytes(), (target, 8080))?;
        sockets.push((socket, own));
    }
    let mut buffer = [0; 100];
    let mut seen = Vec::new();
    for _ in peers {
        let (length, from) = uninterrupted(|| server.recv_from(&mut buffer))?;
        ensure!(from.ip() == GATEWAY_V4 && !seen.contains(&from), "{from}");
        seen.push(from);
        server.send_to(&buffer[..length], from)?;
    }
    for (socket, own) in sockets {
        let (length, _) = uninterrupted(|| socket.recv_from(&mut buffer))?;
        ensure!(&buffer[..length] == own.as_bytes());
    }
    Ok(())
}

#[test]
fn a_taken_port_is_named_and_a_closed_one_is_free() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = Bed::new(Plan::default())?;
    let port = publish(&bed, PortKind::Tcp, "0.0.0.0:8080")?;
    let again = bed
        .host
        .run(|| open_port(PortKind::Tcp, ([127, 0, 0, 1], 8080).into()));
    let error = again.unwrap_err();
    ensure!(matches!(error, NetError::Publish { .. }));
    ensure!(error.to_string() == "port 127.0.0.1:8080 cannot be published");
    ensure!(bed.control.unpublish(port)?);
    ensure!(!bed.control.unpublish(port)?);
    becomes_free(|| publish(&bed, PortKind::Tcp, "0.0.0.0:8080"))
}

/// A socket that is closed may be open still in a child of another test, until that runs its program.
fn becomes_free<T>(mut open: impl FnMut() -> Result<T>) -> Result<()> {
    let begun = Instant::now();
    while let Err(error) = open() {
        ensure!(begun.elapsed() < PATIENCE, "{error:#}");
        std::thread::yield_now();
    }
    Ok(())
}

#[test]
fn a_member_that_leaves_resets_its_peers_and_frees_its_ports() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = Bed::new(Plan::default())?;
    publish(&bed, PortKind::Tcp, "0.0.0.0:8080")?;
    let (_client, mut server) = tcp::connection(&bed, false)?;
    bed.control.remove_member(bed.guest().member)?;
    let error = server.read(&mut [0]).unwrap_err();
    ensure!(error.kind() == ErrorKind::ConnectionReset, "{error}");
    becomes_free(|| {
        let open = || open_port(PortKind::Tcp, ([0, 0, 0, 0], 8080).into());
        Ok(bed.host.run(open)?)
    })?;
    ensure!(bed.control.totals()?.tcp_flows == 0);
    let gone = bed.control.remove_member(bed.guest().member);
    ensure!(matches!(gone, Err(NetError::NoMember)));
    Ok(())
}
