//! Serves the network of a namespace, as `pasta` and `slirp4netns` do: for measuring.
//!
//!     user_network PID [PUBLISHED-PORT]
//!
//! Makes a TAP device `eth0` in the network namespace of a process, configures it with `ip`, and
//! serves it from the namespace that it was started in, until it is killed. A published port
//! leads to the same port of the namespace. Writes a line when it is ready.

use anyhow::{Context, Result};
use hullbox_net::{
    LinkFd, Mac, MemberConfig, Network, NetworkConfig, PortKind, Subnet, open_port, open_tap,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

const MAC: Mac = Mac([2, 0x77, 0, 0, 0, 2]);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let pid = words.next().context("which process's namespace?")?;
    let port: Option<u16> = words.next().map(|port| port.parse()).transpose()?;
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    let tap = std::thread::spawn(move || tap(&namespace))
        .join()
        .map_err(|_| anyhow::anyhow!("the namespace cannot be joined"))??;
    let mut config = NetworkConfig::new(Mac([2, 0x77, 0, 0, 0, 1]));
    config.ipv4 = Some(Subnet {
        gateway: GATEWAY,
        prefix: 24,
    });
    let (network, control) = Network::new(config)?;
    let thread = std::thread::spawn(move || network.run());
    let member = control.add_member(MemberConfig {
        ipv4: Some(GUEST),
        ..MemberConfig::new(MAC, LinkFd::Tap(tap))
    })?;
    if let Some(port) = port {
        let socket = open_port(PortKind::Tcp, (Ipv4Addr::UNSPECIFIED, port).into())?;
        control.publish((PortKind::Tcp, socket), (member, port))?;
    }
    println!("ready");
    thread
        .join()
        .map_err(|_| anyhow::anyhow!("the network failed"))??;
    Ok(())
}

fn tap(namespace: &File) -> Result<OwnedFd> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let tap = open_tap("eth0")?;
    for words in [
        format!("link set eth0 address {MAC} mtu 65520 up"),
        format!("addr add {GUEST}/24 dev eth0"),
        format!("route add default via {GATEWAY}"),
    ] {
        let status = Command::new("ip").args(words.split(' ')).status()?;
        anyhow::ensure!(status.success(), "ip {words}");
    }
    Ok(tap)
}
