//! What a network is told at its start, and what a member is.

use crate::dns::DnsConfig;
use crate::frame::ethernet::Mac;
use crate::policy::Policy;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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
    /// Members reach each other, and the name server for each other's names; nothing else, whatever their
    /// policies say.
    pub internal: bool,
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
    /// A network with this gateway, an MTU of 65520, no addresses yet and the default bounds.
    #[must_use]
    pub fn new(gateway_mac: Mac) -> Self {
        Self {
            gateway_mac,
            ipv4: None,
            ipv6: None,
            mtu: 65520,
            internal: false,
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

/// A container's or a virtual machine's end of the network. What it may do is its own: members of one
/// network may have different policies.
#[derive(Debug)]
pub struct MemberConfig {
    /// Its MAC address; frames from another one are dropped.
    pub mac: Mac,
    /// Its IPv4 address; packets from another one are dropped.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address, likewise.
    pub ipv6: Option<Ipv6Addr>,
    /// Names under which members find it, in lower case. The first is what its addresses are called in a
    /// reverse lookup. Several members may have one name.
    pub names: Vec<String>,
    /// Where it may connect to.
    pub policy: Policy,
    /// The gateway's addresses lead it to the host's loopback addresses.
    pub host_gateway: bool,
    /// Whom its questions are passed on to, in order; none is whom the network's are.
    pub upstreams: Option<Vec<SocketAddr>>,
    /// Its resolver knows the name servers of other networks too: what only one of those may know is
    /// answered with a server failure, upon which a resolver asks the next one.
    pub has_other_networks: bool,
    /// What it takes.
    pub offloads: Offloads,
    /// Its frames.
    pub link: LinkFd,
}

impl MemberConfig {
    /// A member without addresses and names, whose policy allows everything.
    #[must_use]
    pub fn new(mac: Mac, link: LinkFd) -> Self {
        Self {
            mac,
            ipv4: None,
            ipv6: None,
            names: Vec::new(),
            policy: Policy::unrestricted(),
            host_gateway: false,
            upstreams: None,
            has_other_networks: false,
            offloads: Offloads::ALL,
            link,
        }
    }
}
