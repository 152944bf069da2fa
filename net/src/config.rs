//! What a network is told at its start, and what a member is.

use crate::dns::DnsConfig;
use crate::frame::ethernet::Mac;
use crate::policy::Policy;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

/// Most members of one network.
pub const MAX_MEMBERS: usize = 1024;

/// A gateway's address with the length of its subnet's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet<A> {
    /// The gateway's address.
    pub gateway: A,
    /// The prefix, in bits.
    pub prefix: u8,
}

/// A network.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// The gateway's MAC address.
    pub gateway_mac: Mac,
    /// IPv4, if the network has it.
    pub ipv4: Option<Subnet<Ipv4Addr>>,
    /// IPv6, if the network has it.
    pub ipv6: Option<Subnet<Ipv6Addr>>,
    /// The links' MTU, in bytes: 1280 to 65520.
    pub mtu: u16,
    /// Where members may connect to.
    pub policy: Policy,
    /// The gateway's addresses lead to the host's loopback addresses.
    pub host_gateway: bool,
    /// The gateway is a name server, on its port 53.
    pub dns: Option<DnsConfig>,
    /// Bounds.
    pub limits: Limits,
    /// Peek at a socket's bytes from an offset where the kernel can (Linux 6.9). Without, what
    /// was peeked at before is copied again; for tests and for measuring.
    pub use_peek_offset: bool,
}

/// Bounds of one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// TCP flows of one member.
    pub tcp_flows: usize,
    /// UDP flows of one member.
    pub udp_flows: usize,
    /// ICMP echo flows of one member.
    pub echo_flows: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tcp_flows: 16 * 1024,
            udp_flows: 8192,
            echo_flows: 64,
        }
    }
}

impl NetworkConfig {
    /// A network with this gateway, an MTU of 65520, no policy and the default bounds.
    #[must_use]
    pub fn new(gateway_mac: Mac) -> Self {
        Self {
            gateway_mac,
            ipv4: None,
            ipv6: None,
            mtu: 65520,
            policy: Policy::unrestricted(),
            host_gateway: false,
            dns: None,
            limits: Limits::default(),
            use_peek_offset: true,
        }
    }

    /// The gateway's address of the family of `address`.
    #[must_use]
    pub fn gateway(&self, address: IpAddr) -> Option<IpAddr> {
        match address {
            IpAddr::V4(_) => self.ipv4.map(|subnet| subnet.gateway.into()),
            IpAddr::V6(_) => self.ipv6.map(|subnet| subnet.gateway.into()),
        }
    }

    /// Whether an address is the gateway's.
    #[must_use]
    pub fn is_gateway(&self, address: IpAddr) -> bool {
        self.gateway(address) == Some(address)
    }

    /// Whether an address lies in the network's subnet.
    #[must_use]
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        let cidr = match address {
            IpAddr::V4(_) => self.ipv4.map(|net| (net.gateway.into(), net.prefix)),
            IpAddr::V6(_) => self.ipv6.map(|net| (net.gateway.into(), net.prefix)),
        };
        cidr.is_some_and(|(gateway, prefix)| {
            crate::policy::Cidr::containing(gateway, prefix).contains(address)
        })
    }
}

/// How a member's frames are carried. Each frame has a virtio-net header of 12 bytes before it.
#[derive(Debug)]
pub enum LinkFd {
    /// A TAP device with `IFF_VNET_HDR`, as `open_tap` opens it.
    Tap(OwnedFd),
    /// A Unix socket of type `SOCK_SEQPACKET` (or `SOCK_DGRAM`): one frame a message.
    Packets(OwnedFd),
    /// A stream: four bytes of length, big-endian, before each frame.
    Stream(OwnedFd),
}

/// What the receiver of a link's frames takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offloads {
    /// Partial checksums.
    pub checksum: bool,
    /// TCP segments of up to 64 KiB; needs `checksum`.
    pub tso: bool,
}

impl Offloads {
    /// All of them.
    pub const ALL: Self = Self {
        checksum: true,
        tso: true,
    };
    /// None of them.
    pub const NONE: Self = Self {
        checksum: false,
        tso: false,
    };
}

/// A container's or a virtual machine's end of the network.
#[derive(Debug)]
pub struct MemberConfig {
    /// Its MAC address; frames from another one are dropped.
    pub mac: Mac,
    /// Its IPv4 address; packets from another one are dropped.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address, likewise.
    pub ipv6: Option<Ipv6Addr>,
    /// Names under which other members find it, in lower case.
    pub names: Vec<String>,
    /// What it takes.
    pub offloads: Offloads,
    /// Its frames.
    pub link: LinkFd,
}
