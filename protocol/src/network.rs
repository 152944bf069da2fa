//! A container's network interface, as whoever sets it up is told.

use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The one interface beside the loopback: `eth0`.
///
/// Addresses are set, not asked for: there is no DHCP, no router advertisement and no duplicate
/// address detection, and nothing is sent because the link came up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its MTU, in bytes.
    pub mtu: u16,
    /// IPv4, if it has it.
    pub ipv4: Option<Addresses<Ipv4Addr>>,
    /// IPv6, if it has it.
    pub ipv6: Option<Addresses<Ipv6Addr>>,
    /// The gateway's MAC address, for a permanent neighbour entry: nobody has to ask for it.
    pub gateway_mac: [u8; 6],
}

/// An interface's addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses<A> {
    /// Its own.
    pub address: A,
    /// Length of the subnet's prefix, in bits.
    pub prefix: u8,
    /// Where the default route leads; none on an internal network.
    pub gateway: Option<A>,
}

/// The hidden command of the program that serves a network; its standard input is a control connection.
pub const NETWORK_COMMAND: &str = "__net";

/// Its option for the host of a helper machine: the path of the Unix socket that stands for the machine's
/// vsock. What the machine sends to a port of the host arrives at that path, `_`, and the port.
pub const NETWORK_VSOCK_OPTION: &str = "--vsock";

/// Vsock ports of a helper machine's host at which frames of one container each are waited for. They are
/// of one length, because they are part of a path.
pub const NETWORK_FRAME_PORTS: std::ops::RangeInclusive<u32> = 1_048_576..=9_999_999;

/// The name of the interface.
pub const INTERFACE_NAME: &str = "eth0";
