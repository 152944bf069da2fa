//! Copies of members of networks: addresses and names of their own, connections that end with a reset, policies
//! that are asked for anew, and ports of their own.

use crate::life::Kept;
use crate::networks_policy::Outside;
use crate::networks_traffic::{Net, ask, serve};
use hullbox_tests::{Mode, hullbox};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// A snapshot that is removed with its test.
struct Snapshot(&'static str);

impl Snapshot {
    fn of(box_: &Kept, name: &'static str) -> Self {
        let _ = hullbox(["snapshot", "rm", name]);
        let snapshot = Self(name);
        let _ = hullbox(["snapshot", "create", &box_.name, name]).exits(0);
        snapshot
    }

    /// Has a copy go on, whose flags these are.
    fn copy(&self, name: &str, flags: &[&str]) -> Kept {
        let copy = Kept::new(name, Mode::Vm);
        let mut args = vec!["run", "-d", "--name", &copy.name, "--from-snapshot", self.0];
        args.extend(flags);
        let _ = hullbox(args).exits(0);
        copy
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let _ = hullbox(["snapshot", "rm", self.0]);
    }
}

/// The address of a container in its one network, and the card's.
fn addresses(box_: &Kept) -> (String, String) {
    let told =
        box_.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.MacAddress}}{{end}}");
    let look = "ip -o -4 addr show dev eth0 | grep -o 'inet [0-9.]*' | cut -c 6-; cat /sys/class/net/eth0/address";
    let seen = box_.exec(&["sh", "-c", look]).exits(0).text();
    assert_eq!(seen.replace('\n', " "), told, "{}", box_.name);
    let (ip, mac) = told.split_once(' ').expect("two words");
    (ip.to_owned(), mac.to_owned())
}

#[test]
#[ignore = "needs the built program: make test"]
fn copies_are_members_with_addresses_names_and_ports_of_their_own() {
    let net = Net::new("copied-net", Mode::Vm, &[]);
    let origin = Kept::new("copied-member", Mode::Vm);
    let flags = [
        "--network",
        &net.0,
        "--network-alias",
        "shared",
        "-p",
        "127.0.0.1::7777",
    ];
    serve(&origin, &flags, "hello");
    let snapshot = Snapshot::of(&origin, "copied-member");
    let copies = [
        snapshot.copy("copied-member-one", &["-p", "127.0.0.1::7777"]),
        snapshot.copy("copied-member-two", &[]),
    ];
    let members = [&origin, &copies[0], &copies[1]];
    let own: Vec<_> = members.iter().map(|box_| addresses(box_)).collect();
    let different: HashSet<_> = own.iter().flat_map(|(ip, mac)| [ip, mac]).collect();
    assert_eq!(different.len(), 6, "{own:?}");
    // Each finds each of the others, by their own names.
    for from in members {
        for to in members.iter().filter(|to| to.name != from.name) {
            let said = from.exec(&["sh", "-c", &ask(&to.name)]);
            assert_eq!(said.text(), "hello", "{} {}: {said:?}", from.name, to.name);
        }
    }
    let port = |box_: &Kept| hullbox(["port", &box_.name]).exits(0).text();
    let published = [port(&origin), port(&copies[0])];
    assert_ne!(published[0], published[1]);
    for line in published {
        let at: SocketAddr = line.rsplit(' ').next().unwrap().parse().unwrap();
        let mut stream = TcpStream::connect(at).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said, "hello\n");
    }
    assert_eq!(port(&copies[1]), "");
    // The network knows them all, and holds on to whoever is left.
    let known = hullbox(["network", "inspect", "-f", "{{len .Containers}}", &net.0]);
    assert_eq!(known.exits(0).text(), "3");
    let _ = hullbox(["rm", "-f", &origin.name]).exits(0);
    let said = copies[0]
        .exec(&["sh", "-c", &ask(&copies[1].name)])
        .exits(0);
    assert_eq!(said.text(), "hello");
    hullbox(["network", "rm", &net.0]).fails_saying("has active endpoints");
}

/// Takes connections, and sends back on each what comes, as long as the test runs.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut buffer = [0; 100];
                while let Ok(length) = stream.read(&mut buffer)
                    && length > 0
                    && stream.write_all(&buffer[..length]).is_ok()
                {}
            });
        }
    });
    port
}

/// Two connections: one speaks all the while, and one waits to be told something. Each writes down how it ended.
const TALK: &str = "
import socket, sys, threading, time
def note(name, text):
    with open('/' + name, 'w') as file: file.write(text)
def talk(name, speaks):
    stream = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    stream.sendall(b'x')
    stream.recv(1)
    note(name, 'connected')
    try:
        while True:
            if speaks: stream.sendall(b'x')
            if not stream.recv(1): raise EOFError()
            time.sleep(0.05)
    except Exception as error:
        note(name, type(error).__name__)
for name in ('speaks', 'listens'):
    threading.Thread(target=talk, args=(name, name == 'speaks')).start()
own = socket.create_server(('127.0.0.1', 5555))
near = socket.create_connection(('127.0.0.1', 5555))
far, _ = own.accept()
while True:
    near.sendall(b'y')
    far.recv(1)
    note('own', str(time.time()))
    time.sleep(0.05)
";

fn noted(box_: &Kept, name: &str) -> String {
    box_.exec(&["cat", &format!("/{name}")]).text()
}

#[track_caller]
fn until_noted(box_: &Kept, name: &str, words: &str) {
    for _ in 0..100 {
        if noted(box_, name) == words {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("{}: {name}: {}, not {words}", box_.name, noted(box_, name));
}

/// A member that talks with somebody, and a copy of it.
#[track_caller]
fn connections_are_reset(origin: &Kept, flags: &[&str], host: &str, port: u16) {
    let (port, mut args) = (port.to_string(), flags.to_vec());
    args.extend(["-m", "160m", "demo", "python3", "-c", TALK, host, &port]);
    origin.run(&args);
    for name in ["speaks", "listens"] {
        until_noted(origin, name, "connected");
    }
    let snapshot = Snapshot::of(origin, "copied-talk");
    let copy = snapshot.copy("copied-talk", &[]);
    for name in ["speaks", "listens"] {
        until_noted(&copy, name, "ConnectionResetError");
    }
    // The copy speaks with itself as before, and the original with everybody.
    let before = noted(&copy, "own");
    until_changes(&copy, "own", &before);
    for name in ["speaks", "listens"] {
        assert_eq!(noted(origin, name), "connected");
    }
    let before = noted(origin, "own");
    until_changes(origin, "own", &before);
}

#[track_caller]
fn until_changes(box_: &Kept, name: &str, before: &str) {
    for _ in 0..100 {
        if noted(box_, name) != before {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("{}: {name} stays {before}", box_.name);
}

#[test]
#[ignore = "needs the built program: make test"]
fn connections_of_a_copy_in_a_network_of_its_own_are_reset() {
    let origin = Kept::new("copied-origin", Mode::Vm);
    let flags = ["--add-host", "outside:host-gateway"];
    connections_are_reset(&origin, &flags, "outside", echo());
}

#[test]
#[ignore = "needs the built program: make test"]
fn connections_of_a_copy_in_a_shared_network_are_reset() {
    let net = Net::new("copied-talk", Mode::Vm, &[]);
    let server = Kept::new("copied-server", Mode::Vm);
    let network = ["--network", net.0.as_str()];
    let script = "import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(100): self.request.sendall(data)
server = socketserver.ThreadingTCPServer(('', 7000), Echo)
print('ready', flush=True)
server.serve_forever()";
    let words = ["-m", "160m", "demo", "python3", "-c", script];
    server.run(&[&network[..], &words].concat());
    server.until_said("ready");
    let origin = Kept::new("copied-origin", Mode::Vm);
    connections_are_reset(&origin, &network, &server.name, 7000);
}

#[test]
#[ignore = "needs the built program: make test"]
fn the_policy_of_a_copy_holds_and_is_asked_for_anew() {
    let Some(outside) = Outside::new() else {
        eprintln!("skipped: this host has no address but the loopback's");
        return;
    };
    let origin = Kept::new("copied-ruled", Mode::Vm);
    origin.run(&["--egress", "none", "busybox", "sleep", "1000"]);
    let snapshot = Snapshot::of(&origin, "copied-ruled");
    let refused = |box_: &Kept| outside.is_refused(box_, &box_.name);
    let copy = snapshot.copy("copied-ruled-same", &[]);
    refused(&copy);
    assert_eq!(copy.inspect("{{.Egress}}"), "none");
    let rule = outside.rule();
    let freed = snapshot.copy("copied-ruled-freed", &["--egress", &rule]);
    outside.is_reached(&freed);
    // Its own snapshot has its own rules, which another copy does without.
    let second = Snapshot::of(&freed, "copied-ruled-again");
    let bound = second.copy("copied-ruled-bound", &["--egress", "none"]);
    refused(&bound);
    // Also after it has begun anew.
    let _ = hullbox(["restart", "-t", "0", &bound.name]).exits(0);
    refused(&bound);
    refused(&origin);
}
