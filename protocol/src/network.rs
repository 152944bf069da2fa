//! A container's network interface, as whoever sets it up is told.

use crate::bounded::list;
use serde::{Deserialize, Deserializer, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Most interfaces of a container, and so most networks that it is in.
pub const MAX_INTERFACES: usize = 32;

/// An interface beside the loopback; see [`interface_name`].
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
    /// The metric of the default route over the gateway: of several interfaces the one with the least is
    /// the way out, and another one when that is gone. None is no default route (an internal network).
    #[serde(default = "first_choice")]
    pub route_metric: Option<u32>,
}

#[expect(clippy::unnecessary_wraps, reason = "the type of a field's default")]
const fn first_choice() -> Option<u32> {
    Some(0)
}

/// An interface's name, by its place in [`crate::Setup::interfaces`].
#[must_use]
pub fn interface_name(index: usize) -> String {
    format!("eth{index}")
}

/// A setup's interfaces: a list, of which records of before there were several have one or none.
pub(crate) fn interfaces<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Interface>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Many(Vec<Interface>),
        Perhaps(Option<Interface>),
    }
    if !from.is_human_readable() {
        return list::<_, _, MAX_INTERFACES>(from);
    }
    Ok(match Written::deserialize(from)? {
        Written::Many(interfaces) => interfaces,
        Written::Perhaps(interface) => interface.into_iter().collect(),
    })
}

/// An interface's addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses<A> {
    /// Its own.
    pub address: A,
    /// Length of the subnet's prefix, in bits.
    pub prefix: u8,
    /// The gateway's address, which is the name server's too.
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

/// The name of the first interface.
pub const INTERFACE_NAME: &str = "eth0";
