//! The process of a network, a container's monitor and the command that runs it, killed at any moment: nothing
//! is left, ports are free and networks can be used.

use crate::killed::{ends, moments, start};
use crate::life::Kept;
use crate::networks_traffic::{Net, ask, serve};
use crate::outcomes::assert_nothing_left;
use hullbox_tests::{Mode, both_modes, hullbox, on_the_machine};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

/// What nothing takes longer than, on the slowest machine that was seen.
const LIMIT: Duration = Duration::from_secs(120);

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// That of the network, wherever it is: through the helper machine, on the host outside.
    Network,
    Monitor,
    Command,
}

const VICTIMS: [Victim; 3] = [Victim::Network, Victim::Monitor, Victim::Command];

/// How many moments are tried.
const fn count(mode: Mode) -> u64 {
    match mode {
        Mode::Container => 30,
        // A guest takes its time to boot.
        Mode::Vm => 3,
    }
}

/// A port of the host's that is free now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// What the server at a port of the host's says.
fn said_at(port: u16) -> std::io::Result<String> {
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&at, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

/// Waits until a port of the host's leads to a server that says this, or there is no such child any more.
fn until_said(port: u16, line: &str, mut child: Option<&mut Child>) -> bool {
    let deadline = Instant::now() + LIMIT;
    loop {
        let said = said_at(port);
        if said.as_ref().is_ok_and(|said| said.trim_end() == line) {
            return true;
        }
        if let Some(child) = &mut child
            && child.try_wait().unwrap().is_some()
        {
            return false;
        }
        assert!(Instant::now() < deadline, "port {port}: {said:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Processes that serve this data directory's networks, by their lock files: through the helper machine these
/// are in the machine's directory on this host.
fn network_processes() -> Vec<Pid> {
    let mut found = Vec::new();
    let runtime = std::env::var("HULLBOX_RUNTIME").unwrap();
    locks(Path::new(&runtime), &mut found);
    // Of one that was killed the file is left until somebody comes by, and its number may be another's.
    found.retain(|process| {
        let words = fs::read_to_string(format!("/proc/{process}/cmdline"));
        words.is_ok_and(|words| words.contains("__net"))
    });
    let numbers = found.iter().filter_map(|process| process.parse().ok());
    numbers.filter_map(Pid::from_raw).collect()
}

fn locks(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            locks(&path, found);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "lock")
            && dir.ends_with("networks")
        {
            let text = fs::read_to_string(&path).unwrap_or_default();
            found.extend(text.lines().map(str::to_owned));
        }
    }
}

/// Kills whoever there is.
fn kill(victim: Victim, command: &mut Child) {
    match victim {
        Victim::Command => command.kill().unwrap(),
        Victim::Monitor => {
            let script = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q [_]_monitor && kill -9 ${p#/proc/}; done; true";
            let _ = on_the_machine(script).exits(0);
        }
        Victim::Network => {
            for process in network_processes() {
                // It may have ended by itself.
                let _ = kill_process(process, Signal::KILL);
            }
        }
    }
}

/// The command line of a server that says a line to everybody, in the foreground.
fn server<'a>(mode: Mode, net: &'a str, publish: &'a str, script: &'a str) -> Vec<&'a str> {
    let mut words = vec!["run", "--rm", "--name", "slain", mode.flag(), "-m", "128m"];
    words.extend(["--network", net, "--network-alias", "web", "-p", publish]);
    words.extend(["busybox", "sh", "-c", script]);
    words
}

both_modes! {
    fn whoever_is_killed_leaves_ports_and_networks_to_the_next(mode) {
        let _ = hullbox(["rm", "-f", "slain"]);
        let net = Net::new("slain", mode, &[]);
        let port = free_port();
        let publish = format!("127.0.0.1:{port}:7777");
        let script = "while :; do echo first | nc -l -p 7777; done";
        let words = server(mode, &net.0, &publish, script);
        // How long it takes until it serves, when nobody kills it.
        let begun = Instant::now();
        let mut child = start(&words);
        assert!(until_said(port, "first", Some(&mut child)));
        let whole = begun.elapsed().mul_f64(1.5);
        let _ = hullbox(["rm", "-f", "slain"]).exits(0);
        ends(&mut child);

        for (moment, victim) in moments(count(mode), whole).zip(VICTIMS.into_iter().cycle()) {
            let mut child = start(&words);
            thread::sleep(moment);
            kill(victim, &mut child);
            if victim == Victim::Network && until_said(port, "first", Some(&mut child)) {
                // It goes on with another one, which has the same ports.
                let _ = hullbox(["rm", "-f", "slain"]).exits(0);
            }
            ends(&mut child);
            // Its monitor may still be at it.
            let _ = hullbox(["rm", "-f", "slain"]);
            let deadline = Instant::now() + LIMIT;
            while let Err(error) = TcpListener::bind(("127.0.0.1", port)) {
                assert!(Instant::now() < deadline, "{victim:?} at {moment:?}: {error}");
                thread::sleep(Duration::from_millis(20));
            }
            // The network, the port and the name are somebody else's now.
            let next = Kept::new("slain-next", mode);
            let flags = ["--network", net.0.as_str(), "--network-alias", "web", "-p", &publish];
            serve(&next, &flags, "next");
            assert!(until_said(port, "next", None));
            let said = next.exec(&["sh", "-c", &ask("web")]);
            assert_eq!(said.text(), "next", "{victim:?} at {moment:?}: {said:?}");
            drop(next);
            eprintln!("{victim:?} at {moment:?}");
            assert_nothing_left();
        }
        drop(net);
        assert_eq!(network_processes(), []);
    }
}

both_modes! {
    fn a_containers_own_network_comes_back(mode) {
        let box_ = Kept::new("slain-own", mode);
        let port = free_port();
        let publish = format!("127.0.0.1:{port}:7777");
        serve(&box_, &["-p", &publish], "own");
        // Where the containers are: through the helper machine these are relays.
        let script = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q '[_]_net' && kill -9 ${p#/proc/} && echo killed; done; true";
        for round in 0..3 {
            assert!(until_said(port, "own", None));
            let killed = on_the_machine(script).exits(0).text();
            assert!(killed.contains("killed"), "{round}");
        }
        assert!(until_said(port, "own", None));
        let _ = hullbox(["rm", "-f", &box_.name]).exits(0);
        assert!(TcpListener::bind(("127.0.0.1", port)).is_ok());
        assert_nothing_left();
    }
}
