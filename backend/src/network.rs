//! What a container's network is to be, all questions answered, and what carries its frames.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::os::fd::OwnedFd;

/// Most ports that a container publishes. Each takes up to two sockets of the host, and all of them have to
/// fit into one message to the process that serves the network.
pub const MAX_PUBLISHED: usize = 1024;

/// Length of the id of a network that containers share, in hexadecimal digits.
pub const NETWORK_ID_DIGITS: usize = 64;

/// A container's network. The interfaces' addresses are the setup's (`Setup::interfaces`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// The loopback alone.
    #[default]
    None,
    /// Networks in user mode: its own, others', or both.
    User(UserNetwork),
    /// The host's (container mode).
    Host,
    /// That of another container, by full id (container mode).
    Container(String),
}

/// A container's user-mode networks, as the processes that serve them are told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNetwork {
    /// Where the container may connect to, as `hullbox_net::policy::Policy` reads it; none is
    /// everywhere.
    pub egress: Option<String>,
    /// The gateway's addresses lead to the host's loopback addresses.
    pub host_gateway: bool,
    /// Name servers that the gateway asks in place of the host's.
    pub dns: Vec<IpAddr>,
    /// Ports of the host that lead to the container's first interface.
    pub ports: Vec<PublishedPort>,
    /// Networks that it shares with others, an interface each (`Setup::interfaces`, in the same order). If
    /// there is one interface more than these, the first one is in a network of the container's own.
    #[serde(default)]
    pub shared: Vec<Membership>,
    /// How fast its frames may come and go.
    #[serde(default)]
    pub rate: Rate,
}

impl UserNetwork {
    /// Whether the container has a network of its own beside those that it shares, with so many
    /// interfaces in all.
    #[must_use]
    pub const fn has_own(&self, interfaces: usize) -> bool {
        interfaces > self.shared.len()
    }
}

/// A container's place in a network that it shares with others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The network's id: [`NETWORK_ID_DIGITS`] hexadecimal digits.
    pub id: String,
    /// The network leads nowhere but to its members.
    pub internal: bool,
    /// Under which the other members find the container, in lower case; the first is its name.
    pub names: Vec<String>,
}

/// Rates of a container's network, in bytes a second; none is as fast as can be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rate {
    /// Of what it is sent.
    pub inbound: Option<u64>,
    /// Of what it sends.
    pub outbound: Option<u64>,
}

/// A port of the host that leads to a container's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// TCP or UDP.
    pub protocol: PortProtocol,
    /// Where the host listens; none is all of its addresses, of both families.
    pub host_ip: Option<IpAddr>,
    /// First and last port of the host, of which the first free one is taken; 0 leaves the choice to the kernel.
    pub host_ports: (u16, u16),
    /// The container's port.
    pub container_port: u16,
}

/// What a published port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A published port that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPort {
    /// TCP or UDP.
    pub protocol: PortProtocol,
    /// The address that the host listens at.
    pub host_ip: IpAddr,
    /// The host's port.
    pub host_port: u16,
    /// The container's port.
    pub container_port: u16,
}

/// What carries the frames of a container's interface, each with a virtio-net header of 12 bytes
/// before it. The monitor reads none: when it is readable for the first time, the network process is
/// started and given a duplicate.
#[derive(Debug)]
pub enum Member {
    /// A TAP device in the container's network namespace.
    Tap(OwnedFd),
    /// A Unix socket of type `SOCK_SEQPACKET`, a frame a message.
    Packets(OwnedFd),
}
