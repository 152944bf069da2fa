//! Where a guest may connect to by name.

use crate::bed::{Bed, GATEWAY_V4, PATIENCE, Plan, WORLD_V4, is_possible, uninterrupted};
use crate::traffic::exchange;
use anyhow::{Result, ensure};
use hullbox_net::dns::DnsConfig;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A second host of the world's.
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
/// How long a name may take here.
const NAME_LIMIT: Duration = Duration::from_millis(300);
const REFUSED: u8 = 5;

/// The addresses of the world's names: what stands before the first dot says which.
fn addresses(label: &str) -> Vec<IpAddr> {
    let parse = |text: &str| text.parse().unwrap();
    match label {
        "www" | "api" => vec![WORLD_V4.into()],
        "other" => vec![OTHER.into()],
        "both" => vec![WORLD_V4.into(), OTHER.into()],
        // The host has no way to the first, and nobody has the second.
        "dead" => vec![
            parse("2001:db8:99::1"),
            parse("198.51.100.99"),
            OTHER.into(),
        ],
        "private" => vec![parse("10.1.2.3")],
        "loopback" => vec![parse("127.0.0.1")],
        "metadata" => vec![parse("169.254.169.254")],
        "gateway" => vec![GATEWAY_V4.into()],
        "mixed" => vec![WORLD_V4.into(), parse("192.168.1.1")],
        "mapped" => vec![parse("::ffff:10.1.2.3")],
        "local6" => vec![parse("fe80::1")],
        "unique6" => vec![parse("fd00:ec2::254")],
        "nat64" => vec![parse("64:ff9b::a01:203")],
        _ => Vec::new(),
    }
}

fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = vec![0, 77, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// A name server in the world. Tells each name that it is asked for.
fn name_server(bed: &Bed) -> Result<Receiver<String>> {
    let (sender, asked) = channel();
    let socket = bed.world.run(|| UdpSocket::bind((WORLD_V4, 53)))?;
    std::thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((length, from)) = uninterrupted(|| socket.recv_from(&mut buffer)) {
            let mut answer = buffer[..length].to_vec();
            let label = String::from_utf8_lossy(&answer[13..13 + usize::from(answer[12])]);
            let found = addresses(&label);
            if sender.send(label.into_owned()).is_err() {
                return;
            }
            answer[2] |= 0x80;
            answer[7] = found.len() as u8;
            for address in found {
                let (kind, data) = match address {
                    IpAddr::V4(address) => (1, address.octets().to_vec()),
                    IpAddr::V6(address) => (28, address.octets().to_vec()),
                };
                answer.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
                answer.extend(data);
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    Ok(asked)
}

/// A network under these rules, with the world's name server.
fn bed(rules: &str) -> Result<(Bed, Receiver<String>)> {
    let mut plan = Plan {
        policy: rules.parse()?,
        ..Plan::default()
    };
    plan.network.limits.name_wait = NAME_LIMIT;
    plan.network.dns = Some(DnsConfig {
        upstreams: vec![SocketAddr::from((WORLD_V4, 53))],
        ..DnsConfig::default()
    });
    let bed = Bed::new(plan)?;
    bed.world.ip(&format!("addr add {OTHER}/24 dev up0"))?;
    let asked = name_server(&bed)?;
    Ok((bed, asked))
}

/// The guest asks for a name's addresses. The response's code, and how many answers it has.
fn ask(bed: &Bed, name: &str, kind: u16) -> Result<(u8, u8)> {
    let client = bed.guest().namespace.run(|| UdpSocket::bind("0.0.0.0:0"))?;
    client.connect((GATEWAY_V4, 53))?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.send(&query(name, kind))?;
    let mut buffer = [0; 2000];
    let length = uninterrupted(|| client.recv(&mut buffer))?;
    ensure!(length > 12);
    Ok((buffer[3] & 15, buffer[7]))
}

fn connect(bed: &Bed, to: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    let target = SocketAddr::from((to, port));
    let guest = &bed.guest().namespace;
    let stream = guest.run(|| TcpStream::connect_timeout(&target, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn listen(bed: &Bed, address: Ipv4Addr, port: u16) -> Result<TcpListener> {
    let listener = bed.world.run(|| TcpListener::bind((address, port)))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Nobody has come.
fn is_quiet(listener: &TcpListener) -> Result<()> {
    match listener.accept() {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        other => anyhow::bail!("somebody came: {other:?}"),
    }
}

fn accept(listener: &TcpListener) -> Result<TcpStream> {
    listener.set_nonblocking(false)?;
    let (stream, _) = uninterrupted(|| listener.accept())?;
    listener.set_nonblocking(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The connection is reset, and was not closed.
fn is_reset(mut stream: &TcpStream) -> Result<()> {
    let got = uninterrupted(|| stream.read(&mut [0; 100]));
    let reset = got
        .as_ref()
        .is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
    ensure!(reset, "{got:?}");
    Ok(())
}

fn long(bytes: &[u8]) -> Vec<u8> {
    let mut all = (bytes.len() as u16).to_be_bytes().to_vec();
    all.extend(bytes);
    all
}

/// A TLS client's first message in records of so many bytes.
fn hello(name: Option<&str>, is_encrypted: bool, most: usize) -> Vec<u8> {
    let mut extensions = Vec::new();
    // Keys of a kind that needs more than one segment.
    extensions.extend([0, 51]);
    extensions.extend(long(&[9; 1200]));
    if let Some(name) = name {
        let mut entry = vec![0];
        entry.extend(long(name.as_bytes()));
        extensions.extend([0, 0]);
        extensions.extend(long(&long(&entry)));
    }
    if is_encrypted {
        extensions.extend([0xfe, 0x0d]);
        extensions.extend(long(&[0, 0, 1, 0, 1, 7, 0, 0]));
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(long(&extensions));
    let mut message = vec![1, 0];
    message.extend(long(&body));
    let mut bytes = Vec::new();
    for part in message.chunks(most) {
        bytes.extend([22, 3, 1]);
        bytes.extend(long(part));
    }
    bytes
}

/// Sends a client's first bytes from a connection to the server, and reads them there.
fn arrives(mut client: &TcpStream, listener: &TcpListener, bytes: &[u8]) -> Result<TcpStream> {
    client.write_all(bytes)?;
    let mut server = accept(listener)?;
    let mut got = vec![0; bytes.len()];
    server.read_exact(&mut got)?;
    ensure!(got == bytes);
    Ok(server)
}

#[test]
fn a_name_that_was_asked_for_opens_its_address_and_no_other() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let (bed, asked) = bed("*.example.com")?;
    let web = listen(&bed, WORLD_V4, 443)?;
    let other = listen(&bed, OTHER, 443)?;
    let hello = |name| hello(Some(name), false, 4000);
    // Nobody has asked yet.
    let error = connect(&bed, WORLD_V4, 443).unwrap_err();
    ensure!(error.kind() == ErrorKind::ConnectionRefused, "{error}");
    ensure!(ask(&bed, "www.example.com", 1)? == (0, 1));
    let client = connect(&bed, WORLD_V4, 443)?;
    let server = arrives(&client, &web, &hello("www.example.com"))?;
    exchange(&client, &server, 3_000_000)?;
    // Whatever comes with the name, and behind it at once.
    let client = connect(&bed, WORLD_V4, 443)?;
    let mut bytes = hello("WWW.example.com");
    bytes.extend([20, 3, 3, 0, 1, 1]);
    bytes.extend([23; 10_000]);
    arrives(&client, &web, &bytes)?;
    for address in [OTHER, GATEWAY_V4, Ipv4Addr::new(198, 51, 100, 1)] {
        let error = connect(&bed, address, 443).unwrap_err();
        ensure!(error.kind() == ErrorKind::ConnectionRefused, "{error}");
    }
    // Names that were not asked for, or may not be.
    for name in [
        "api.example.com",
        "evil.example",
        "www.example.com.evil.example",
    ] {
        let mut client = connect(&bed, WORLD_V4, 443)?;
        client.write_all(&hello(name))?;
        is_reset(&client)?;
    }
    is_quiet(&web)?;
    is_quiet(&other)?;
    let counters = bed.control.counters(bed.guest().member)?;
    ensure!(counters.refused == 7, "{counters:?}");
    let last = counters.refused_targets.back().unwrap();
    let text = format!("tcp {WORLD_V4}:443 as www.example.com.evil.example");
    ensure!(last.target.to_string() == text, "{last:?}");
    ensure!(counters.rules == [2], "{:?}", counters.rules);
    ensure!(asked.try_iter().eq(["www"]));
    Ok(())
}

#[test]
fn a_host_that_is_not_allowed_opens_nothing_on_an_address_that_is() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let (bed, _asked) = bed("*.example.com")?;
    let web = listen(&bed, WORLD_V4, 80)?;
    ensure!(ask(&bed, "www.example.com", 1)?.0 == 0);
    let request = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    for host in [
        "evil.example",
        // Allowed, and never asked for.
        "api.example.com",
        "www.example.com.evil.example",
        "example.com",
    ] {
        let mut client = connect(&bed, WORLD_V4, 80)?;
        client.write_all(&request(host))?;
        is_reset(&client)?;
        let counters = bed.control.counters(bed.guest().member)?;
        let last = counters.refused_targets.back().unwrap().target.to_string();
        ensure!(last == format!("tcp {WORLD_V4}:80 as {host}"), "{last}");
    }
    is_quiet(&web)?;
    ensure!(bed.control.counters(bed.guest().member)?.refused == 4);
    let client = connect(&bed, WORLD_V4, 80)?;
    arrives(&client, &web, &request("WWW.example.com:80"))?;
    Ok(())
}

#[test]
fn a_connection_goes_to_the_address_of_the_name_that_it_tells() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let (bed, _asked) = bed("*.example.com")?;
    let web = listen(&bed, WORLD_V4, 443)?;
    let other = listen(&bed, OTHER, 443)?;
    for name in ["www.example.com", "other.example.com", "both.example.com"] {
        ensure!(ask(&bed, name, 1)?.0 == 0);
    }
    for (to, name, arrives_at) in [
        (WORLD_V4, "other.example.com", &other),
        (OTHER, "www.example.com", &web),
        (WORLD_V4, "both.example.com", &web),
        (OTHER, "both.example.com", &other),
    ] {
        let client = connect(&bed, to, 443)?;
        arrives(&client, arrives_at, &hello(Some(name), false, 4000))?;
    }
    is_quiet(&web)?;
    is_quiet(&other)
}

#[test]
fn a_hidden_name_opens_nothing() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let (bed, _asked) = bed("*.example.com")?;
    let listeners = [listen(&bed, WORLD_V4, 443)?, listen(&bed, WORLD_V4, 80)?];
    ensure!(ask(&bed, "www.example.com", 1)?.0 == 0);
    let name = "www.example.com";
    let request = |text: &str| text.as_bytes().to_vec();
    let long = format!(
        "GET / HTTP/1.1\r\nX: {}\r\nHost: {name}\r\n\r\n",
        "x".repeat(16_384)
    );
    let cases = [
        (443, hello(None, false, 4000), "no server name"),
        (443, hello(Some(name), true, 4000), "encrypted server name"),
        (
            443,
            hello(Some("198.51.100.2"), false, 4000),
            "no server name",
        ),
        (
            443,
            request(&format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n")),
            "no TLS",
        ),
        (443, request("SSH-2.0-x\r\n"), "no TLS"),
        (80, hello(Some(name), false, 4000), "no HTTP/1"),
        (80, request("GET /\r\n\r\n"), "no HTTP/1"),
        (
            80,
            request("GET / HTTP/1.1\r\nAccept: */*\r\n\r\n"),
            "no Host",
        ),
        (
            80,
            request(&format!(
                "GET / HTTP/1.1\r\nHost: {name}\r\nHost: {name}\r\n\r\n"
            )),
            "no Host",
        ),
        (
            80,
            request(&format!(
                "GET / HTTP/1.1\r\nHost: {name}\nHost: evil\r\n\r\n"
            )),
            "no HTTP/1",
        ),
        (
            80,
            request(&format!(
                "CONNECT evil:443 HTTP/1.1\r\nHost: {name}\r\n\r\n"
            )),
            "no HTTP/1",
        ),
        (
            80,
            request(&format!(
                "GET http://evil.example/ HTTP/1.1\r\nHost: {name}\r\n\r\n"
            )),
            "no Host",
        ),
        (80, request("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "no HTTP/1"),
        (80, request(&long), "name too far behind"),
        // The beginning of a name, and then nothing.
        (
            443,
            hello(Some(name), false, 4000)[..100].to_vec(),
            "no name in time",
        ),
        (80, Vec::new(), "no name in time"),
    ];
    for (port, bytes, why) in cases {
        let mut client = connect(&bed, WORLD_V4, port)?;
        // Where it is reset at once the end of a long write finds it out.
        let _ = client.write_all(&bytes);
        is_reset(&client)?;
        let counters = bed.control.counters(bed.guest().member)?;
        let last = counters.refused_targets.back().unwrap().target.to_string();
        let text = format!("tcp {WORLD_V4}:{port} ({why})");
        let known = counters
            .refused_targets
            .iter()
            .any(|one| one.target.to_string() == text);
        ensure!(known, "{port} {why}: {last}");
    }
    // One that ends before its name has come does not wait.
    let mut client = connect(&bed, WORLD_V4, 80)?;
    client.write_all(b"GET / HT")?;
    client.shutdown(Shutdown::Write)?;
    is_reset(&client)?;
    for listener in &listeners {
        is_quiet(listener)?;
    }
    let counters = bed.control.counters(bed.guest().member)?;
    ensure!(counters.refused == 17, "{counters:?}");
    ensure!(bed.control.totals()?.tcp_flows == 0);
    Ok(())
}

#[test]
fn a_name_may_come_in_pieces() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let (bed, _asked) = bed("www.example.com")?;
    let tls = listen(&bed, WORLD_V4, 443)?;
    let http = listen(&bed, WORLD_V4, 80)?;
    ensure!(ask(&bed, "www.example.com", 1)?.0 == 0);
    let request = b"POST /x HTTP/1.1\r\nHost: www.example.com\r\n\r\nbody".to_vec();
    let cases = [
        (80, request),
        (443, hello(Some("www.example.com"), false, 50)),
    ];
    for (port, bytes) in cases {
        let listener = if port == 80 { &http } else { &tls };
        let mut client = connect(&bed, WORLD_V4, port)?;
        for byte in &bytes {
            client.write_all(&[*byte])?;
        }
        let mut server = accept(listener)?;
        let mut got = vec![0; bytes.len()];
        server.read_exact(&mut got)?;
        ensure!(got == bytes, "{port}");
        // Half-closed at once: the end comes behind what was held.
        let mut client = connect(&bed, WORLD_V4, port)?;
        client.write_all(&bytes)?;
        client.shutdown(Shutdown::Write)?;
        let mut server = accept(listener)?;
        let mut got = Vec::new();
        server.read_to_end(&mut got)?;
        ensure!(got == bytes, "{port}");
        server.write_all(b"answer")?;
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer)?;
        ensure!(answer == b"answer");
    }
    Ok(())
}

#[test]
fn a_server_that_is_not_there_is_a_reset() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let (bed, _asked) = bed("www.example.com")?;
    ensure!(ask(&bed, "www.example.com", 1)?.0 == 0);
    let mut client = connect(&bed, WORLD_V4, 443)?;
    client.write_all(&hello(Some("www.example.com"), false, 4000))?;
    is_reset(&client)?;
    ensure!(bed.control.totals()?.tcp_flows == 0);
    Ok(())
}

#[test]
fn an_address_that_cannot_be_reached_is_passed_over() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let (bed, _asked) = bed("dead.example.com")?;
    let other = listen(&bed, OTHER, 443)?;
    ensure!(ask(&bed, "dead.example.com", 28)?.1 == 3);
    let target: SocketAddr = "[2001:db8:99::1]:443".parse()?;
    let guest = &bed.guest().namespace;
    let client = guest.run(|| TcpStream::connect_timeout(&target, PATIENCE))?;
    client.set_read_timeout(Some(PATIENCE))?;
    let server = arrives(
        &client,
        &other,
        &hello(Some("dead.example.com"), false, 4000),
    )?;
    exchange(&client, &server, 100_000)
}

#[test]
fn answers_that_lead_into_somebodys_own_network_are_refused() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let (bed, asked) = bed("*.example.com,10.1.0.0/16:443")?;
    for (label, kind, code) in [
        ("loopback", 1, REFUSED),
        ("metadata", 1, REFUSED),
        ("gateway", 1, REFUSED),
        ("mixed", 1, REFUSED),
        ("local6", 28, REFUSED),
        ("unique6", 28, REFUSED),
        ("www", 1, 0),
        // A rule names that range.
        ("private", 1, 0),
        ("mapped", 28, 0),
        ("nat64", 28, 0),
    ] {
        let name = format!("{label}.example.com");
        ensure!(ask(&bed, &name, kind)?.0 == code, "{name}");
    }
    let counters = bed.control.counters(bed.guest().member)?;
    ensure!(counters.refused_names == 6, "{counters:?}");
    let first = counters.refused_targets.front().unwrap();
    ensure!(first.target.to_string() == "name loopback.example.com");
    // It is the rule about addresses that opens what it names, and no other port of it.
    let error = connect(&bed, Ipv4Addr::new(10, 1, 2, 3), 80).unwrap_err();
    ensure!(error.kind() == ErrorKind::ConnectionRefused, "{error}");
    // What would lead around the name is not even asked for.
    ensure!(asked.try_iter().count() == 10);
    ensure!(ask(&bed, "www.example.com", 65)? == (0, 0));
    ensure!(ask(&bed, "www.example.com", 64)? == (0, 0));
    for name in [
        "data-that-leaves.evil.example",
        "example.com",
        "1.100.51.198.in-addr.arpa",
    ] {
        ensure!(ask(&bed, name, 16)?.0 == REFUSED, "{name}");
    }
    ensure!(asked.try_iter().count() == 0);
    Ok(())
}

#[test]
fn other_ports_are_open_where_a_rule_names_them() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let (bed, _asked) = bed("www.example.com:5000-5001,other.example.com")?;
    let listener = listen(&bed, WORLD_V4, 5000)?;
    let datagrams = |port| -> Result<UdpSocket> {
        let socket = bed.world.run(|| UdpSocket::bind((WORLD_V4, port)))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    };
    let (open, quic) = (datagrams(5000)?, datagrams(443)?);
    for name in ["www.example.com", "other.example.com"] {
        ensure!(ask(&bed, name, 1)?.0 == 0);
    }
    // Server first: nothing is held.
    let mut client = connect(&bed, WORLD_V4, 5000)?;
    accept(&listener)?.write_all(b"hello")?;
    let mut word = [0; 5];
    client.read_exact(&mut word)?;
    for (address, port) in [
        (WORLD_V4, 443),
        (WORLD_V4, 80),
        (WORLD_V4, 5002),
        (OTHER, 5000),
    ] {
        let error = connect(&bed, address, port).unwrap_err();
        ensure!(error.kind() == ErrorKind::ConnectionRefused, "{error}");
    }
    let client = bed.guest().namespace.run(|| UdpSocket::bind("0.0.0.0:0"))?;
    client.send_to(b"quic", (WORLD_V4, 443))?;
    client.send_to(b"quic", (OTHER, 443))?;
    client.send_to(b"open", (WORLD_V4, 5000))?;
    let mut buffer = [0; 10];
    ensure!(uninterrupted(|| open.recv(&mut buffer))? == 4);
    quic.set_nonblocking(true)?;
    ensure!(uninterrupted(|| quic.recv(&mut buffer)).is_err());
    let counters = bed.control.counters(bed.guest().member)?;
    ensure!(counters.refused == 6, "{counters:?}");
    Ok(())
}

#[test]
fn a_name_that_is_denied_is_denied_whoever_told_its_address() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let (bed, asked) = bed("deny:www.example.com,198.51.100.0/24")?;
    let web = listen(&bed, WORLD_V4, 443)?;
    let ssh = listen(&bed, WORLD_V4, 22)?;
    ensure!(ask(&bed, "www.example.com", 1)?.0 == REFUSED);
    ensure!(asked.try_iter().count() == 0);
    for (name, is_encrypted) in [
        (Some("www.example.com"), false),
        (None, false),
        (Some("api.example.com"), true),
    ] {
        let mut client = connect(&bed, WORLD_V4, 443)?;
        client.write_all(&hello(name, is_encrypted, 4000))?;
        is_reset(&client)?;
    }
    is_quiet(&web)?;
    let client = connect(&bed, WORLD_V4, 443)?;
    arrives(&client, &web, &hello(Some("api.example.com"), false, 4000))?;
    connect(&bed, WORLD_V4, 22)?;
    accept(&ssh)?;
    let socket = bed.guest().namespace.run(|| UdpSocket::bind("0.0.0.0:0"))?;
    socket.connect((WORLD_V4, 443))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"quic")?;
    let error = uninterrupted(|| socket.recv(&mut [0])).unwrap_err();
    let prohibited = rustix::io::Errno::HOSTUNREACH.raw_os_error();
    ensure!(error.raw_os_error() == Some(prohibited), "{error}");
    Ok(())
}
