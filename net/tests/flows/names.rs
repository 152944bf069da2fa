//! The gateway's name server.

use crate::bed::{Bed, Carrier, GATEWAY_V4, PATIENCE, Plan, WORLD_V4, is_possible, uninterrupted};
use crate::relay::Weather;
use anyhow::{Result, ensure};
use hullbox_net::Offloads;
use hullbox_net::dns::{DnsConfig, hosts};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, channel};

const A: u16 = 1;
const AAAA: u16 = 28;
const REFUSED: u8 = 5;
const SERVER_FAILURE: u8 = 2;

fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// A response: its code, how many answers it has, and its last bytes.
#[derive(Debug, PartialEq, Eq)]
struct Response {
    code: u8,
    answers: u8,
    tail: Vec<u8>,
}

fn parse(id: u16, bytes: &[u8], tail: usize) -> Result<Response> {
    ensure!(bytes.len() > 12 && bytes[..2] == id.to_be_bytes() && bytes[2] & 0x80 != 0);
    Ok(Response {
        code: bytes[3] & 15,
        answers: bytes[7],
        tail: bytes[bytes.len() - tail..].to_vec(),
    })
}

fn client(bed: &Bed) -> Result<UdpSocket> {
    let client = bed.guest().namespace.run(|| UdpSocket::bind("0.0.0.0:0"))?;
    client.connect((GATEWAY_V4, 53))?;
    client.set_read_timeout(Some(PATIENCE))?;
    Ok(client)
}

fn ask(client: &UdpSocket, name: &str, kind: u16) -> Result<Response> {
    client.send(&query(77, name, kind))?;
    let mut buffer = [0; 2000];
    let length = uninterrupted(|| client.recv(&mut buffer))?;
    parse(77, &buffer[..length], if kind == A { 4 } else { 16 })
}

/// The response of the test's own name server: 192.0.2.99 for every name.
fn answer(query: &[u8]) -> Vec<u8> {
    let mut bytes = query.to_vec();
    bytes[2] |= 0x80;
    bytes[7] = 1;
    bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 99]);
    bytes
}

/// A name server in the world, over UDP and TCP. Tells the first label of each query.
fn upstream(bed: &Bed, port: u16) -> Result<Receiver<String>> {
    let (sender, asked) = channel();
    let socket = bed.world.run(|| UdpSocket::bind((WORLD_V4, port)))?;
    let listener = bed.world.run(|| TcpListener::bind((WORLD_V4, port)))?;
    let label = |query: &[u8]| {
        String::from_utf8_lossy(&query[13..13 + usize::from(query[12])]).into_owned()
    };
    let udp = sender.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((length, from)) = uninterrupted(|| socket.recv_from(&mut buffer)) {
            let query = &buffer[..length];
            let Ok(()) = udp.send(label(query)) else {
                return;
            };
            // A forged answer before the true one: another number.
            let mut forged = answer(query);
            forged[0] ^= 0xff;
            let last = forged.len() - 1;
            forged[last] = 66;
            let _ = socket.send_to(&forged, from);
            let _ = socket.send_to(&answer(query), from);
        }
    });
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut query).unwrap();
            let Ok(()) = sender.send(format!("{} over TCP", label(&query))) else {
                return;
            };
            // More than fits into a datagram.
            let mut answer = answer(&query);
            answer.splice(answer.len() - 16.., [0; 0]);
            answer[7] = 200;
            for _ in 0..200 {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 99]);
            }
            stream
                .write_all(&(answer.len() as u16).to_be_bytes())
                .unwrap();
            stream.write_all(&answer).unwrap();
        }
    });
    Ok(asked)
}

fn plan(config: DnsConfig) -> Plan {
    let mut plan = Plan::default();
    plan.network.dns = Some(config);
    plan
}

#[test]
fn members_and_hosts_are_found_as_long_as_they_are_there() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let mut bed = Bed::new(plan(DnsConfig {
        hosts: hosts("192.0.2.7 Printer\n"),
        ..DnsConfig::default()
    }))?;
    bed.add_guest(Carrier::Tap, Offloads::ALL, Weather::default())?;
    let client = client(&bed)?;
    let found = |tail: &[u8]| Response {
        code: 0,
        answers: 1,
        tail: tail.to_vec(),
    };
    ensure!(ask(&client, "printer", A)? == found(&[192, 0, 2, 7]));
    ensure!(ask(&client, "GUEST3", A)? == found(&bed.guests[1].v4.octets()));
    ensure!(ask(&client, "guest3", AAAA)? == found(&bed.guests[1].v6.octets()));
    ensure!(ask(&client, "guest3", 15)?.answers == 0);
    bed.control.remove_member(bed.guests[1].member)?;
    // Nobody else can be asked.
    ensure!(ask(&client, "guest3", A)?.code == SERVER_FAILURE);
    Ok(())
}

#[test]
fn forbidden_names_are_refused_and_nobody_hears_of_them() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let mut plan = plan(DnsConfig {
        upstreams: vec![SocketAddr::from((WORLD_V4, 53))],
        ..DnsConfig::default()
    });
    plan.policy = "deny:secret.example.com,*.example.com".parse()?;
    let bed = Bed::new(plan)?;
    let asked = upstream(&bed, 53)?;
    let client = client(&bed)?;
    for name in [
        "evil.net",
        "secret.example.com",
        "data-that-leaves.evil.net",
    ] {
        ensure!(ask(&client, name, A)?.code == REFUSED, "{name}");
    }
    let response = ask(&client, "www.example.com", A)?;
    ensure!(
        response.code == 0 && response.tail == [192, 0, 2, 99],
        "{response:?}"
    );
    ensure!(bed.control.totals()?.members.refused_names == 3);
    let names: Vec<String> = asked.try_iter().collect();
    ensure!(names == ["www"], "{names:?}");
    Ok(())
}

#[test]
fn forbidden_names_are_refused_over_tcp_too() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let mut plan = plan(DnsConfig {
        upstreams: vec![SocketAddr::from((WORLD_V4, 53))],
        ..DnsConfig::default()
    });
    plan.policy = "*.example.com".parse()?;
    let bed = Bed::new(plan)?;
    let asked = upstream(&bed, 53)?;
    let connect = |to| {
        let guest = &bed.guest().namespace;
        guest.run(|| TcpStream::connect_timeout(&SocketAddr::from((to, 53)), PATIENCE))
    };
    let mut stream = connect(GATEWAY_V4)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    for (name, code, answers) in [
        ("data-that-leaves.evil.net", REFUSED, 0),
        ("example.com", REFUSED, 0),
        ("www.example.com", 0, 200),
    ] {
        let question = query(9, name, A);
        stream.write_all(&(question.len() as u16).to_be_bytes())?;
        stream.write_all(&question)?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut bytes)?;
        let response = parse(9, &bytes, 4)?;
        ensure!(
            (response.code, response.answers) == (code, answers),
            "{name}: {response:?}"
        );
    }
    // Nor does another server take the question.
    let error = connect(WORLD_V4).unwrap_err();
    ensure!(
        error.kind() == std::io::ErrorKind::ConnectionRefused,
        "{error}"
    );
    let counters = bed.control.totals()?.members;
    ensure!(
        (counters.refused_names, counters.refused) == (2, 1),
        "{counters:?}"
    );
    let names: Vec<String> = asked.try_iter().collect();
    ensure!(names == ["www over TCP"], "{names:?}");
    Ok(())
}

#[test]
fn names_are_answered_where_somebody_has_the_hosts_port() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = Bed::new(plan(DnsConfig {
        upstreams: vec![SocketAddr::from((WORLD_V4, 53))],
        hosts: hosts("192.0.2.7 printer\n"),
    }))?;
    let _taken = bed.host.run(|| -> std::io::Result<_> {
        Ok((
            UdpSocket::bind("0.0.0.0:53")?,
            UdpSocket::bind("[::]:53").ok(),
            TcpListener::bind("0.0.0.0:53")?,
        ))
    })?;
    let _asked = upstream(&bed, 53)?;
    let client = client(&bed)?;
    ensure!(ask(&client, "printer", A)?.tail == [192, 0, 2, 7]);
    ensure!(ask(&client, "www.example.com", A)?.tail == [192, 0, 2, 99]);
    let connect = || TcpStream::connect_timeout(&SocketAddr::from((GATEWAY_V4, 53)), PATIENCE);
    bed.guest().namespace.run(connect)?;
    Ok(())
}

#[test]
fn whoever_may_connect_nowhere_has_nobody_asked() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let mut plan = plan(DnsConfig {
        upstreams: vec![SocketAddr::from((WORLD_V4, 53))],
        hosts: hosts("192.0.2.7 printer\n"),
    });
    plan.policy = "none".parse()?;
    let bed = Bed::new(plan)?;
    let asked = upstream(&bed, 53)?;
    let client = client(&bed)?;
    ensure!(ask(&client, "data-that-leaves.evil.net", A)?.code == REFUSED);
    ensure!(ask(&client, "printer", A)?.tail == [192, 0, 2, 7]);
    ensure!(bed.control.totals()?.members.refused_names == 1);
    // Under any other policy that comes later they are asked for.
    bed.control
        .set_policy(bed.guest().member, "192.0.2.99:443".parse()?)?;
    ensure!(ask(&client, "www.example.com", A)?.code == 0);
    let names: Vec<String> = asked.try_iter().collect();
    ensure!(names == ["www"], "{names:?}");
    Ok(())
}

#[test]
fn long_answers_come_over_tcp() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = Bed::new(plan(DnsConfig {
        upstreams: vec![SocketAddr::from((WORLD_V4, 53))],
        hosts: hosts("192.0.2.7 printer\n"),
    }))?;
    let asked = upstream(&bed, 53)?;
    let connect = || TcpStream::connect((GATEWAY_V4, 53));
    let mut stream = bed.guest().namespace.run(connect)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // Many questions at once, answered one after the other.
    let mut questions = Vec::new();
    for id in 0..500u16 {
        let name = if id % 100 == 0 {
            "far.example"
        } else {
            "printer"
        };
        let question = query(id, name, A);
        questions.extend((question.len() as u16).to_be_bytes());
        questions.extend(question);
    }
    stream.write_all(&questions)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    for id in 0..500u16 {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut bytes)?;
        let response = parse(id, &bytes, 4)?;
        let expected = if id % 100 == 0 { 200 } else { 1 };
        ensure!(response.answers == expected, "{id}: {response:?}");
    }
    ensure!(stream.read(&mut [0])? == 0);
    ensure!(asked.try_iter().all(|name| name == "far over TCP"));
    Ok(())
}

#[test]
fn a_dead_upstream_is_asked_once() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    // The first does not answer, the second has nobody who listens, the third answers.
    let silent = SocketAddr::from((WORLD_V4, 54));
    let closed = SocketAddr::from((WORLD_V4, 55));
    let bed = Bed::new(plan(DnsConfig {
        upstreams: vec![silent, closed, SocketAddr::from((WORLD_V4, 53))],
        ..DnsConfig::default()
    }))?;
    let socket = bed.world.run(|| UdpSocket::bind(silent))?;
    let asked = upstream(&bed, 53)?;
    let client = client(&bed)?;
    for _ in 0..150 {
        let response = ask(&client, "www.example.com", A)?;
        ensure!(response.tail == [192, 0, 2, 99], "{response:?}");
    }
    ensure!(asked.try_iter().count() == 150);
    socket.set_nonblocking(true)?;
    let mut count = 0;
    while uninterrupted(|| socket.recv(&mut [0; 2000])).is_ok() {
        count += 1;
    }
    ensure!(count == 1, "the silent one was asked {count} times");
    Ok(())
}

#[test]
fn nobody_is_left_to_ask() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let bed = Bed::new(plan(DnsConfig {
        upstreams: vec![SocketAddr::from((WORLD_V4, 55))],
        ..DnsConfig::default()
    }))?;
    let client = client(&bed)?;
    ensure!(ask(&client, "www.example.com", A)?.code == SERVER_FAILURE);
    // Without a name server the gateway's port is closed.
    let bed = Bed::new(Plan::default())?;
    let client = self::client(&bed)?;
    client.send(&query(1, "x", A))?;
    let error = uninterrupted(|| client.recv(&mut [0; 100])).unwrap_err();
    ensure!(
        error.kind() == std::io::ErrorKind::ConnectionRefused,
        "{error}"
    );
    Ok(())
}
