//! What goes through.

use crate::bed::{self, Container, GATEWAY, GATEWAY_V6, HOST, LIMIT};
use anyhow::{Context, Result, ensure};
use hullbox_backend::network::UserNetwork;
use hullbox_netproc::Launcher;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

pub fn a_container_and_its_host_reach_each_other() -> Result<()> {
    let container = Container::new()?;
    let (_process, ports) = container.start(&Launcher::default(), &bed::network())?;
    both_ways(&container, ports[0].host_port)?;
    ensure!(
        ports.len() == 2 && ports[1].host_port == ports[0].host_port,
        "{ports:?}"
    );
    Ok(())
}

/// From the container to servers of the host, and from the host to a server of the container.
pub fn both_ways(container: &Container, published: u16) -> Result<()> {
    let families: [(IpAddr, IpAddr); 2] = [
        (Ipv4Addr::LOCALHOST.into(), GATEWAY.into()),
        (Ipv6Addr::LOCALHOST.into(), GATEWAY_V6.into()),
    ];
    for (host, gateway) in families {
        let listener = TcpListener::bind((host, 0))?;
        let to = SocketAddr::new(gateway, listener.local_addr()?.port());
        let echo = bed::echo_once(listener);
        let stream = container
            .run(|| TcpStream::connect_timeout(&to, LIMIT))
            .with_context(|| format!("to {to}"))?;
        bed::exchange(stream, 8 << 20)?;
        echo.join().unwrap();
    }
    let echo = container.echo()?;
    bed::exchange(TcpStream::connect(("127.0.0.1", published))?, 8 << 20)?;
    echo.join().unwrap();
    Ok(())
}

/// A question for the address of `box.test`, as RFC 1035 has it.
const QUESTION: &[u8] = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x03box\x04test\0\0\x01\0\x01";
/// An address record for the name at the message's beginning.
const ANSWER: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x07";

pub fn names_are_asked_of_the_hosts_resolver() -> Result<()> {
    let container = Container::new()?;
    let resolver = Ipv4Addr::new(127, 0, 0, 53);
    let network = UserNetwork {
        dns: vec![resolver.into()],
        ..UserNetwork::default()
    };
    let server = UdpSocket::bind((resolver, 53))?;
    server.set_read_timeout(Some(LIMIT))?;
    let (_process, _) = container.start(&Launcher::default(), &network)?;
    let streams = TcpListener::bind((resolver, 53))?;
    // One question by each of the container's.
    let resolving = std::thread::spawn(move || -> Result<()> {
        let mut query = [0; 512];
        let (length, from) = bed::uninterrupted(|| server.recv_from(&mut query))?;
        server.send_to(&answer(&query[..length])?, from)?;

        let (mut stream, _) = streams.accept()?;
        stream.set_read_timeout(Some(LIMIT))?;
        let reply = answer(&read_message(&mut stream)?)?;
        Ok(write_message(&mut stream, &reply)?)
    });
    let (datagram, stream) = container.run(|| -> Result<(Vec<u8>, Vec<u8>)> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.send_to(QUESTION, (GATEWAY, 53))?;
        let mut reply = [0; 512];
        let (length, _) = bed::uninterrupted(|| socket.recv_from(&mut reply))?;

        let mut stream = TcpStream::connect((GATEWAY, 53))?;
        stream.set_read_timeout(Some(LIMIT))?;
        write_message(&mut stream, QUESTION)?;
        let long = read_message(&mut stream)?;
        Ok((reply[..length].to_vec(), long))
    })?;
    resolving.join().unwrap()?;
    for reply in [datagram, stream] {
        ensure!(reply.starts_with(&QUESTION[..2]), "{reply:?}");
        let has_address = reply.windows(4).any(|part| part == [192, 0, 2, 7]);
        ensure!(has_address, "{reply:?}");
    }
    Ok(())
}

/// What a resolver says to a question.
fn answer(query: &[u8]) -> Result<Vec<u8>> {
    // What may follow the question is no concern of this one.
    let mut reply = query.get(..QUESTION.len()).context("no question")?.to_vec();
    reply[2..4].copy_from_slice(b"\x81\x80");
    reply[6..8].copy_from_slice(b"\0\x01");
    reply[10..12].copy_from_slice(b"\0\0");
    reply.extend_from_slice(ANSWER);
    Ok(reply)
}

/// Over TCP two bytes of length stand before each message (RFC 1035, 4.2.2).
fn write_message(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let length = message.len() as u16;
    stream.write_all(&[&length.to_be_bytes(), message].concat())
}

fn read_message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

pub fn another_policy_holds_from_then_on() -> Result<()> {
    let container = Container::new()?;
    let (mut process, _) = container.start(&Launcher::default(), &bed::network())?;
    let listener = TcpListener::bind((HOST, 0))?;
    let to = listener.local_addr()?;
    container.run(|| TcpStream::connect_timeout(&to, LIMIT))?;
    let before = process.counters(LIMIT)?;
    ensure!(before.tcp_begun == 1 && before.refused == 0, "{before:?}");
    let error = process.set_policy(Some("nonsense:".to_owned()), LIMIT);
    ensure!(
        error.is_err_and(|error| error.to_string().starts_with("egress: ")),
        "a policy of nonsense"
    );
    process.set_policy(Some("none".to_owned()), LIMIT)?;
    let refused = container.run(|| TcpStream::connect_timeout(&to, LIMIT));
    ensure!(refused.is_err(), "connected against the policy");
    let after = process.counters(LIMIT)?;
    ensure!(after.refused >= 1, "{after:?}");
    process.set_policy(None, LIMIT)?;
    container.run(|| TcpStream::connect_timeout(&to, LIMIT))?;
    Ok(())
}

pub fn what_is_refused_is_told_once() -> Result<()> {
    refusals_are_told(&Launcher::default())
}

/// Its network's process tells what a container is refused without being asked.
pub fn refusals_are_told(launcher: &Launcher) -> Result<()> {
    let container = Container::new()?;
    let network = UserNetwork {
        egress: Some(format!("192.0.2.0/24:1,deny:{HOST},all")),
        ..UserNetwork::default()
    };
    let (mut process, _) = container.start(launcher, &network)?;
    let to = |port| (HOST, port).into();
    for port in [1001, 1001, 1002] {
        let refused = container.run(|| TcpStream::connect_timeout(&to(port), LIMIT));
        ensure!(refused.is_err(), "connected against the policy");
    }
    for port in [1001, 1002] {
        let refusal = bed::hear_refusal(&mut process)?;
        ensure!(
            refusal.target == format!("tcp {HOST}:{port}")
                && refusal.rule == Some(format!("deny:{HOST}"))
                && refusal.reason == "a rule denies it"
                && (refusal.count, refusal.untold) == (1, 0),
            "{refusal:?}"
        );
    }
    let counts = process.counters(LIMIT)?;
    let targets = counts.targets.iter();
    let targets: Vec<_> = targets
        .map(|one| (one.target.as_str(), one.count))
        .collect();
    let wanted = [1001, 1002].map(|port| format!("tcp {HOST}:{port}"));
    // A client asks a second time when it was refused at once, as the case may be.
    ensure!(targets.len() == 2 && counts.refused >= 3, "{counts:?}");
    ensure!(targets[0].0 == wanted[0] && targets[0].1 >= 2, "{counts:?}");
    ensure!(targets[1].0 == wanted[1], "{counts:?}");
    Ok(())
}
