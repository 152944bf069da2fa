//! Runs a command in a network namespace of its own whose network is served as a container's is: for
//! looking at it by hand and for measuring. Inside the helper machine its way out is the host's.
//!
//!     net_run PROGRAM [-p HOST-PORT:PORT]... COMMAND [ARGUMENT]...
//!
//! PROGRAM is the `hullbox` that runs as the network's process. Needs root and iproute2.

use anyhow::{Context, Result, anyhow, ensure};
use hullbox_backend::network::{Member, PortProtocol, PublishedPort, UserNetwork};
use hullbox_net::open_tap;
use hullbox_netproc::{ENTRY, Launcher, Seat};
use hullbox_protocol::{Addresses, Interface};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1).peekable();
    let program = words.next().context("which program?")?;
    let mut network = UserNetwork {
        host_gateway: true,
        ..UserNetwork::default()
    };
    while words.next_if(|word| word == "-p").is_some() {
        network
            .ports
            .push(port(&words.next().context("which port?")?)?);
    }
    let command: Vec<String> = words.collect();
    let mut holder = Command::new("unshare")
        .args([
            "-n",
            "sh",
            "-c",
            "ip link set lo up && echo ready; read end",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(holder.stdout.take().context("no output")?).read_line(&mut line)?;
    ensure!(line == "ready\n", "unshare failed");
    let namespace = File::open(format!("/proc/{}/ns/net", holder.id()))?;

    let tap = inside(&namespace, tap)?;
    let mut arguments = vec![ENTRY.into()];
    if hullbox_host::place::is_in_machine() {
        arguments.push("--relay".into());
    }
    let launcher = Launcher::of(program, arguments);
    let mut process = launcher.start(&Seat::alone(network, interface()?), &Member::Tap(tap))?;
    let ports = process.wait_until_ready(Duration::from_secs(60))?;
    eprintln!("open: {ports:?}");
    let ended = inside(&namespace, move || {
        let (name, rest) = command.split_first().context("which command?")?;
        Ok(Command::new(name).args(rest).status()?)
    })?;
    eprintln!("{ended}; {:?}", process.counters(Duration::from_secs(10))?);
    drop(process);
    holder.kill()?;
    holder.wait()?;
    Ok(())
}

fn port(text: &str) -> Result<PublishedPort> {
    let (host, container) = text.split_once(':').context("HOST-PORT:PORT")?;
    let host = host.parse()?;
    Ok(PublishedPort {
        protocol: PortProtocol::Tcp,
        host_ip: None,
        host_ports: (host, host),
        container_port: container.parse()?,
    })
}

/// Does something in a network namespace.
fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), kind)?;
            work()
        });
        thread.join().map_err(|_| anyhow!("a thread failed"))?
    })
}

fn tap() -> Result<OwnedFd> {
    let tap = open_tap("eth0")?;
    for words in [
        "link set eth0 address 02:01:02:03:04:05 mtu 65520 up",
        "addr add 10.0.2.2/24 dev eth0",
        "addr add fd48:554c:4c42::2/64 dev eth0 nodad",
        "route add default via 10.0.2.1",
        "-6 route add default via fd48:554c:4c42::1",
    ] {
        let status = Command::new("ip").args(words.split(' ')).status()?;
        ensure!(status.success(), "ip {words}");
    }
    Ok(tap)
}

fn interface() -> Result<Interface> {
    Ok(Interface {
        mac: [2, 1, 2, 3, 4, 5],
        mtu: 65520,
        ipv4: Some(Addresses {
            address: "10.0.2.2".parse()?,
            prefix: 24,
            gateway: Some("10.0.2.1".parse()?),
        }),
        ipv6: Some(Addresses {
            address: "fd48:554c:4c42::2".parse()?,
            prefix: 64,
            gateway: Some("fd48:554c:4c42::1".parse()?),
        }),
        gateway_mac: [2, 0x48, 0x55, 0x4c, 0x4c, 1],
        route_metric: Some(0),
    })
}
