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

/// The name of the interface.
pub const INTERFACE_NAME: &str = "eth0";
