//! A container's network: its addresses, published ports, the way out, names, and what is refused.
//!
//! The tests' own process is on the host of the network, whichever kernel the containers have: what
//! is published leads from here, and `host-gateway` to here.

use crate::life::Kept;
use hullbox_tests::{Done, Mode, both_modes, command, finish, hullbox, run};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// No answer over the loopback takes longer, on the slowest machine that was seen.
const LIMIT: Duration = Duration::from_secs(30);

/// What a server says to a request for `/`.
fn get(at: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&at, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The workload of a container that serves `page` at port 80.
fn server(page: &str) -> [String; 4] {
    let script =
        format!("mkdir -p /srv; echo {page} > /srv/index.html; exec httpd -f -p 80 -h /srv");
    ["busybox", "sh", "-c", &script].map(str::to_owned)
}

/// Runs a server in the background, and waits until it listens.
fn serve(box_: &Kept, flags: &[&str], page: &str) {
    let words = server(page);
    let words = words.iter().map(String::as_str);
    box_.run(&flags.iter().copied().chain(words).collect::<Vec<_>>());
    until_listening(box_);
}

fn until_listening(box_: &Kept) {
    let listens = "until netstat -ltn | grep -q ':80 '; do :; done";
    let _ = box_.exec(&["sh", "-c", listens]).exits(0);
}

/// Where the container's port leads, as `port` tells it.
fn published(box_: &Kept, port: &str) -> Vec<SocketAddr> {
    let done = hullbox(["port", &box_.name, port]).exits(0);
    let addresses = done.text();
    addresses
        .lines()
        .map(|line| line.parse().expect("an address and a port"))
        .collect()
}

fn ports_column(box_: &Kept) -> String {
    let filter = format!("name=^{}$", box_.name);
    let args = ["ps", "-a", "--filter", &filter, "--format", "{{.Ports}}"];
    hullbox(args).exits(0).text()
}

/// A script that prints the last line that a server says to a request for `/`. Not by wget, which
/// Debian's static busybox cannot run in an image without glibc's name services.
fn fetch(address: &str, port: u16) -> String {
    let request = r"printf 'GET / HTTP/1.0\r\n\r\n'";
    format!("{request} | nc -w 20 {address} {port} | tail -n 1")
}

/// A script that fails where no connection can be made.
fn connect(address: &str, port: u16) -> String {
    format!("nc -w 20 {address} {port} < /dev/null")
}

/// Runs a script in a container, whose network the flags set.
fn script(mode: Mode, flags: &[&str], script: &str) -> Done {
    let mut args = vec!["-m", "128m"];
    args.extend(flags);
    args.extend(["busybox", "sh", "-c", script]);
    run(mode, args)
}

both_modes! {
    fn a_container_has_a_network_of_its_own(mode) {
        let shown = script(mode, &["-h", "box"], "
            cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu
            ip -o -4 addr show dev eth0 | grep -o 'inet [0-9./]*'
            ip -o -6 addr show dev eth0 | grep -o 'inet6 fd[0-9a-f:/]*'
            ip route | grep -o 'default via [0-9.]*'
            ip -6 route | grep -o 'default via fd[0-9a-f:]*'
            cat /etc/resolv.conf
            grep box /etc/hosts
        ");
        let shown = shown.exits(0).text();
        let lines: Vec<_> = shown.lines().collect();
        assert!(lines[0].starts_with("02:"), "{shown}");
        assert_eq!(lines[1..], [
            "65520",
            "inet 10.0.2.2/24",
            "inet6 fd48:554c:4c42::2/64",
            "default via 10.0.2.1",
            "default via fd48:554c:4c42::1",
            "nameserver 10.0.2.1",
            "10.0.2.2\tbox",
            "fd48:554c:4c42::2\tbox",
        ]);
    }
}

both_modes! {
    fn without_a_network_there_is_the_loopback_alone(mode) {
        let look = "ip -o addr | grep -v ' lo '; ip route; ip -6 route show table main; ping -c 1 127.0.0.1 > /dev/null && echo lo";
        assert_eq!(script(mode, &["--network", "none"], look).exits(0).text(), "lo");
    }
}

both_modes! {
    fn a_hardware_address_is_set(mode) {
        let look = ["--mac-address", "02:42:ac:11:00:02"];
        let shown = script(mode, &look, "cat /sys/class/net/eth0/address");
        assert_eq!(shown.exits(0).text(), "02:42:ac:11:00:02");
    }
}

both_modes! {
    fn a_published_port_leads_in(mode) {
        let box_ = Kept::new("published", mode);
        serve(&box_, &["-p", "127.0.0.1::80", "--expose", "81"], "here");
        let [at] = published(&box_, "80")[..] else { panic!("one address") };
        assert!(at.ip().is_loopback());
        assert!(get(at).unwrap().ends_with("here\n"));
        assert_eq!(hullbox(["port", &box_.name]).exits(0).text(), format!("80/tcp -> {at}"));
        assert_eq!(ports_column(&box_), format!("81/tcp, {at}->80/tcp"));
        let ports = "{{json .NetworkSettings.Ports}} {{json .HostConfig.PortBindings}} {{.NetworkSettings.IPAddress}} {{.HostConfig.NetworkMode}}";
        assert_eq!(box_.inspect(ports), format!(
            "{{\"80/tcp\":[{{\"HostIp\":\"127.0.0.1\",\"HostPort\":\"{}\"}}],\"81/tcp\":null}} {{\"80/tcp\":[{{\"HostIp\":\"127.0.0.1\",\"HostPort\":\"\"}}]}} 10.0.2.2 bridge",
            at.port()
        ));
        for (filter, fits) in [
            (format!("publish={}", at.port()), true),
            ("publish=80/udp".to_owned(), false),
            ("expose=80-81".to_owned(), true),
            ("expose=82".to_owned(), false),
            ("network=bridge".to_owned(), true),
            ("network=none".to_owned(), false),
        ] {
            let listed = hullbox(["ps", "--filter", &filter, "--filter", &format!("name=^{}$", box_.name), "-q"]).exits(0).text();
            assert_eq!(!listed.is_empty(), fits, "{filter}");
        }
        hullbox(["port", &box_.name, "81"]).fails_saying(&format!("No public port '81' published for {}", box_.name));
        hullbox(["port", &box_.name, "http"]).fails_saying("invalid port (http)");
        hullbox(["port", "nobody"]).fails_saying("no such container");
        let many: Vec<_> = (0..20).map(|_| thread::spawn(move || get(at).unwrap())).collect();
        for one in many {
            assert!(one.join().unwrap().ends_with("here\n"));
        }

        // What does not run has no ports, and the host's are free again.
        let _ = hullbox(["stop", "-t", "0", &box_.name]).exits(0);
        assert_eq!((hullbox(["port", &box_.name]).exits(0).text(), ports_column(&box_)), (String::new(), String::new()));
        hullbox(["port", &box_.name, "80"]).fails_saying("No public port '80'");
        assert_eq!(TcpStream::connect_timeout(&at, LIMIT).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let _ = hullbox(["start", &box_.name]).exits(0);
        until_listening(&box_);
        let [at] = published(&box_, "80/tcp")[..] else { panic!("one address") };
        assert!(get(at).unwrap().ends_with("here\n"));
    }
}

both_modes! {
    fn a_port_that_is_taken_fails_the_start(mode) {
        let box_ = Kept::new("taken", mode);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let publish = format!("127.0.0.1:{port}:80");
        let done = box_.make(&["run", "-d"], &["-p", &publish, "busybox", "sleep", "1000"]);
        assert_eq!(done.code, 125, "{}", done.stderr);
        done.clone().fails_saying(&port.to_string());
        done.fails_saying("port is already allocated");
        assert_eq!(box_.inspect("{{.State.Running}} {{json .NetworkSettings.Ports}}"), "false {}");
        let _ = hullbox(["rm", "-f", &box_.name]).exits(0);
        drop(listener);
        box_.run(&["-p", &publish, "busybox", "sleep", "1000"]);
        // The first free one of a range is not one that somebody has.
        let second = Kept::new("taken-second", mode);
        let range = format!("127.0.0.1:{port}-{}:80", port.saturating_add(20));
        second.run(&["-p", &range, "busybox", "sleep", "1000"]);
        let [at] = published(&second, "80")[..] else { panic!("one address") };
        assert!((port + 1..=port.saturating_add(20)).contains(&at.port()), "{at}");
    }
}

both_modes! {
    fn all_that_an_image_exposes_is_published(mode) {
        let box_ = Kept::new("exposed", mode);
        let image = format!("exposed-{}", box_.name);
        let _ = box_.make(&["create"], &["--expose", "7000-7001/udp", "busybox", "true"]).exits(0);
        let _ = hullbox(["commit", "-c", "EXPOSE 80", &box_.name, &image]).exits(0);
        let exposed = |what: &str| {
            let format = "{{range $port, $_ := .Config.ExposedPorts}}{{$port}} {{end}}";
            hullbox(["inspect", "-f", format, what]).exits(0).text()
        };
        assert_eq!(exposed(&image), "7000/udp 7001/udp 80/tcp ");
        let _ = hullbox(["rm", &box_.name]).exits(0);
        let mut words = server("all").to_vec();
        words[0].clone_from(&image);
        let flags = ["-P", "--expose", "81", "-p", "127.0.0.1::7001/udp"].map(str::to_owned);
        let args: Vec<&str> = flags.iter().chain(&words).map(String::as_str).collect();
        box_.run(&args);
        until_listening(&box_);
        assert_eq!(exposed(&box_.name), "7000/udp 7001/udp 80/tcp 81/tcp ");
        assert_eq!(box_.inspect("{{.HostConfig.PublishAllPorts}}"), "true");
        let at = published(&box_, "80")[0];
        assert!(at.ip().is_unspecified() && at.is_ipv4());
        assert!(get(SocketAddr::from(([127, 0, 0, 1], at.port()))).unwrap().ends_with("all\n"));
        assert!(!published(&box_, "81").is_empty() && !published(&box_, "7000/udp").is_empty());
        assert_eq!(published(&box_, "7001/udp").len(), 1);
        drop(box_);
        let _ = hullbox(["rmi", "-f", &image]).exits(0);
    }
}

both_modes! {
    fn datagrams_go_in_and_back(mode) {
        let box_ = Kept::new("echo", mode);
        let echo = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 5000))
print('ready', flush=True)
while True:
    data, peer = s.recvfrom(2048)
    s.sendto(data.upper(), peer)
";
        box_.run(&["-p", "127.0.0.1::5000/udp", "demo", "python3", "-c", echo]);
        box_.until_said("ready");
        let [at] = published(&box_, "5000/udp")[..] else { panic!("one address") };
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(at).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut answer = [0; 64];
        // Datagrams may be lost.
        let deadline = Instant::now() + LIMIT;
        let length = loop {
            socket.send(b"hello").unwrap();
            match socket.recv(&mut answer) {
                Ok(length) => break length,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        };
        assert_eq!(&answer[..length], b"HELLO");
    }
}

/// Answers one connection after another with a page, as long as the test runs.
fn page_server(page: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let length = page.len();
            let _ = write!(
                stream,
                "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{page}"
            );
        }
    });
    port
}

both_modes! {
    fn the_host_is_reached_where_that_is_asked_for(mode) {
        let port = page_server("from outside");
        let outside = "$(grep outside /etc/hosts | cut -f 1)";
        let ask = fetch(outside, port);
        let flags = ["--add-host", "outside:host-gateway"];
        assert_eq!(script(mode, &flags, &ask).exits(0).text(), "from outside");
        // Rules are about what lies beyond the gateway.
        let with_rules = [&flags[..], &["--egress", "none"]].concat();
        assert_eq!(script(mode, &with_rules, &ask).exits(0).text(), "from outside");
        let other = ["--add-host", "outside:10.0.2.1"];
        let done = script(mode, &other, &connect(outside, port));
        assert!(done.code != 0 && done.stderr.contains("refused"), "{}", done.stderr);
    }
}

both_modes! {
    fn traffic_keeps_to_its_rate_each_way(mode) {
        const BYTES: usize = 2 << 20;
        let flags = ["--add-host", "outside:host-gateway", "--network-rate", "in=1m,out=1m"];
        let dial = "nc -w 20 $(grep outside /etc/hosts | cut -f 1)";
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let host = thread::spawn(move || {
            let (mut first, _) = listener.accept().unwrap();
            let begin = Instant::now();
            first.write_all(&[b'x'; BYTES]).unwrap();
            drop(first);
            // It comes when the first has been read.
            let (mut second, _) = listener.accept().unwrap();
            let mut times = vec![begin.elapsed()];
            let begin = Instant::now();
            second.read_to_end(&mut Vec::new()).unwrap();
            times.push(begin.elapsed());
            times
        });
        let script_of_it = format!(
            "{dial} {port} < /dev/null | wc -c; head -c {BYTES} /dev/zero | {dial} {port}"
        );
        let counted = script(mode, &flags, &script_of_it).exits(0).text();
        assert_eq!(counted, BYTES.to_string());
        for took in host.join().unwrap() {
            // A tenth of a second's bytes pass at once, and what is in buffers is not waited for.
            assert!(took > Duration::from_millis(1200), "{took:?}");
        }
        let box_ = Kept::new("paced", mode);
        let _ = box_.make(&["create"], &["--network-rate", "out=1k", "busybox", "true"]).exits(0);
        assert_eq!(box_.inspect("{{json .NetworkRate}}"), r#"{"In":null,"Out":1024}"#);
    }
}

both_modes! {
    fn what_the_rules_forbid_is_refused_at_once(mode) {
        for (egress, target) in [("none", "192.0.2.1"), ("198.51.100.0/24:80", "192.0.2.1"), ("all", "169.254.169.254")] {
            let done = script(mode, &["--egress", egress], &connect(target, 80));
            assert!(done.code != 0 && done.stderr.contains("refused"), "{egress}: {}", done.stderr);
        }
        let box_ = Kept::new("ruled", mode);
        let _ = box_.make(&["create"], &["--egress", "all:443", "busybox", "true"]).exits(0);
        assert_eq!(box_.inspect("{{.Egress}}"), "all:443");
    }
}

/// A name server for `known.test`, 192.0.2.7, which answers that there is nothing else. `None`
/// where this user may not be one.
fn name_server(at: &'static str) -> bool {
    let socket = match UdpSocket::bind((at, 53)) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return false,
        socket => socket.expect("nobody has this address's port"),
    };
    thread::spawn(move || {
        let mut message = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut message) {
            let _ = socket.send_to(&answer(&message[..length]), peer);
        }
    });
    true
}

/// RFC 1035: the question with its answer, the name given as a pointer to it.
fn answer(question: &[u8]) -> Vec<u8> {
    const HEADER: usize = 12;
    let body = &question[HEADER..];
    let name_len = body
        .iter()
        .position(|&byte| byte == 0)
        .expect("a name ends")
        + 1;
    let (name, rest) = body.split_at(name_len);
    let is_known = name.eq_ignore_ascii_case(b"\x05known\x04test\0");
    let is_a = rest[..2] == [0, 1];
    let answers = u8::from(is_known && is_a);
    let code = if is_known { 0 } else { 3 };
    let mut message = question[..2].to_vec();
    message.extend([0x81, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0]);
    message.extend_from_slice(name);
    message.extend_from_slice(&rest[..4]);
    if answers == 1 {
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
    }
    message
}

both_modes! {
    fn names_are_asked_of_the_servers_that_were_typed(mode) {
        let server = if mode == Mode::Vm { "127.0.0.57" } else { "127.0.0.58" };
        if !name_server(server) {
            // Port 53 is not for everybody; who runs all tests is root.
            assert!(!rustix::process::geteuid().is_root());
            return;
        }
        let look = "import socket
for name in ('known.test', 'unknown.test'):
    try:
        print(socket.gethostbyname(name))
    except socket.gaierror as error:
        print(error.errno == socket.EAI_NONAME)";
        let found = run(mode, ["-m", "160m", "--dns", server, "demo", "python3", "-c", look]);
        assert_eq!(found.exits(0).text(), "192.0.2.7\nTrue");
        let short = script(mode, &["--dns", server, "--dns-search", "test"], "grep . /etc/resolv.conf; nslookup known.test | grep -o 192.0.2.7");
        assert_eq!(short.exits(0).text(), "nameserver 10.0.2.1\nsearch test\n192.0.2.7");
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn copies_have_ports_and_hardware_addresses_of_their_own() {
    let boxes = ["copied", "copied-one", "copied-two"].map(|name| Kept::new(name, Mode::Vm));
    let snapshot = "copied-server";
    let _ = hullbox(["snapshot", "rm", snapshot]);
    serve(&boxes[0], &["-p", "127.0.0.1::80"], "copy");
    let _ = hullbox(["snapshot", "create", &boxes[0].name, snapshot]).exits(0);
    for box_ in &boxes[1..] {
        let args = [
            "run",
            "-d",
            "--name",
            &box_.name,
            "--from-snapshot",
            snapshot,
            "-p",
            "127.0.0.1::80",
        ];
        let _ = hullbox(args).exits(0);
    }
    let mut ports = Vec::new();
    let mut addresses = Vec::new();
    for box_ in &boxes {
        let [at] = published(box_, "80")[..] else {
            panic!("one address")
        };
        assert!(get(at).unwrap().ends_with("copy\n"), "{}", box_.name);
        ports.push(at.port());
        let own = box_.exec(&["cat", "/sys/class/net/eth0/address"]).exits(0);
        assert_eq!(box_.inspect("{{.NetworkSettings.MacAddress}}"), own.text());
        addresses.push(own.text());
    }
    for list in [
        &mut addresses,
        &mut ports.iter().map(ToString::to_string).collect(),
    ] {
        list.sort();
        list.dedup();
        assert_eq!(list.len(), 3, "{list:?}");
    }
    // Nothing was typed: nothing is published, and the way out is as it was.
    let quiet = Kept::new("copied-quiet", Mode::Vm);
    let _ = hullbox([
        "run",
        "-d",
        "--name",
        &quiet.name,
        "--from-snapshot",
        snapshot,
    ])
    .exits(0);
    assert_eq!(ports_column(&quiet), "80/tcp");
    drop((boxes, quiet));
    let _ = hullbox(["snapshot", "rm", snapshot]).exits(0);
}

/// Named so that it runs where the other halves in container mode do.
mod networks_of_others {
    use super::*;

    #[test]
    #[ignore = "needs the built program: make test"]
    fn container() {
        let mode = Mode::Container;
        let web = Kept::new("joined", mode);
        serve(&web, &["-h", "web"], "inside");
        let joined = format!("container:{}", web.name);
        let ask = fetch("127.0.0.1", 80);
        let look = format!("hostname; grep web /etc/hosts | head -1; {ask}");
        let shown = script(mode, &["--network", &joined], &look);
        assert_eq!(shown.exits(0).text(), "web\n10.0.2.2\tweb\ninside");

        let other = Kept::new("joining", mode);
        let _ = other
            .make(&["create"], &["--network", &joined, "busybox", "true"])
            .exits(0);
        let id = web.inspect("{{.Id}}");
        assert_eq!(
            other.inspect("{{.HostConfig.NetworkMode}} {{json .NetworkSettings.Networks}}"),
            format!("container:{id} {{}}")
        );
        let _ = hullbox(["stop", "-t", "0", &web.name]).exits(0);
        let words = format!("cannot join network of a non running container: {id}");
        hullbox(["start", &other.name]).fails_saying(&words);
        script(mode, &["--network", &joined], "true").fails_saying(&words);
        script(mode, &["--network", "container:nobody"], "true").fails_saying("no such container");

        let inside = script(mode, &["--network", "host"], "readlink /proc/self/ns/net");
        let outside = hullbox_tests::on_the_machine("readlink /proc/self/ns/net");
        assert_eq!(inside.exits(0).text(), outside.exits(0).text());
        let ignored = script(mode, &["--network", "host", "-p", "80:80"], "true").exits(0);
        let warning = "Published ports are discarded when using host network mode";
        assert!(ignored.stderr.contains(warning), "{}", ignored.stderr);
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn what_makes_no_sense_is_refused_in_dockers_words() {
    for (flags, why) in [
        ("-p 80:x", "invalid containerPort: x"),
        ("-p 80:80/sctp", "sctp is not supported"),
        ("-p host:80:80", "invalid IP address: host"),
        ("--expose 80:80", "invalid port format for --expose: 80:80"),
        ("--network mine", "network mine not found"),
        ("--network host", "needs --isolation=container"),
        (
            "--network-alias a",
            "network-scoped aliases are only supported for user-defined networks",
        ),
        (
            "--ip 10.0.2.9",
            "user specified IP address is supported on user defined networks only",
        ),
        ("--mac-address x", "x is not a valid mac address"),
        ("--egress example", "'example' is no address"),
        ("--add-host a:gateway", "is not an IP address"),
        (
            "--isolation=container --network container:x",
            "no such container",
        ),
        (
            "--isolation=container --network host --egress none",
            "conflicting options: egress and the network mode",
        ),
    ] {
        let mut args = vec!["run", "--rm"];
        args.extend(flags.split(' '));
        args.extend(["busybox", "true"]);
        let done = hullbox(&args);
        assert_eq!(done.code, 125, "{flags}: {}", done.stderr);
        done.fails_saying(why);
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn rules_can_be_tried_without_a_container() {
    let check = |rules: &str, target: &str| hullbox(["egress", "check", rules, target]);
    let allowed = check("deny:192.0.2.1,192.0.2.0/24:443", "192.0.2.9:443").exits(0);
    assert_eq!(allowed.text(), "allowed: by rule 2, 192.0.2.0/24:443");
    let allowed = check("deny:a.example.com,*.example.com", "b.example.com:443").exits(0);
    assert_eq!(allowed.text(), "allowed: by rule 2, *.example.com");
    let denied = check("*.example.com", "evil.example:443").exits(1);
    assert_eq!(denied.text(), "denied: no rule about names matches");
    let denied = check("all", "10.1.2.3:80").exits(1);
    assert!(
        denied
            .text()
            .starts_with("denied: 10.1.2.3 is in a private")
    );
    check("none", "nowhere").fails_saying("is not HOST:PORT");
}

#[test]
#[ignore = "needs the built program: make test"]
fn the_default_of_the_way_out_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("hullbox")).unwrap();
    let config = dir.path().join("hullbox/config.toml");
    std::fs::write(&config, "[network]\negress = \"all:443\"\n").unwrap();
    let box_ = Kept::new("configured-egress", Mode::Vm);
    let create = |flags: &[&str]| {
        let mut create = command(["create", "--name", &box_.name, "-m", "128m"]);
        create.args(flags).args(["busybox", "true"]);
        create.env("XDG_CONFIG_HOME", dir.path());
        finish(create, b"")
    };
    for (flags, egress) in [
        (&[][..], "all:443"),
        (&["--egress", "none"], "none"),
        (&["--network", "none"], "<nil>"),
    ] {
        let _ = create(flags).exits(0);
        assert_eq!(box_.inspect("{{.Egress}}"), egress, "{flags:?}");
        let _ = hullbox(["rm", &box_.name]).exits(0);
    }
    std::fs::write(&config, "[network]\negress = \"example\"\n").unwrap();
    create(&[]).fails_saying("'example' is no address");
}
