//! What all members of a network have in common: what its process is started with.

use crate::message::Start;
use crate::names;
use hullbox_net::{Mac, NetworkConfig, Subnet};
use hullbox_protocol::Addresses;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network as each of its members describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    gateway_mac: [u8; 6],
    /// The gateway's address and the length of its subnet's prefix.
    ipv4: Option<(Ipv4Addr, u8)>,
    ipv6: Option<(Ipv6Addr, u8)>,
    mtu: u16,
    internal: bool,
}

impl Shape {
    /// As a member has it.
    pub fn of(start: &Start) -> Self {
        let interface = &start.interface;
        let membership = start.membership.as_ref();
        Self {
            gateway_mac: interface.gateway_mac,
            ipv4: interface.ipv4.as_ref().and_then(subnet),
            ipv6: interface.ipv6.as_ref().and_then(subnet),
            mtu: interface.mtu,
            internal: membership.is_some_and(|membership| membership.internal),
        }
    }

    /// Whether a member that has it is in the network. A member need not have addresses of both
    /// families.
    pub fn fits(&self, member: &Self) -> bool {
        let same = |ours: bool, theirs: bool| ours || !theirs;
        self.gateway_mac == member.gateway_mac
            && self.mtu == member.mtu
            && self.internal == member.internal
            && same(self.ipv4 == member.ipv4, member.ipv4.is_some())
            && same(self.ipv6 == member.ipv6, member.ipv6.is_some())
    }

    /// The network's configuration, with these name servers or those that the host has now.
    pub fn config(&self, resolvers: &[IpAddr]) -> NetworkConfig {
        let mut config = NetworkConfig::new(Mac(self.gateway_mac));
        config.ipv4 = self
            .ipv4
            .map(|(gateway, prefix)| Subnet { gateway, prefix });
        config.ipv6 = self
            .ipv6
            .map(|(gateway, prefix)| Subnet { gateway, prefix });
        config.mtu = self.mtu;
        config.internal = self.internal;
        config.dns = Some(names::config(resolvers));
        config
    }
}

fn subnet<A: Copy>(addresses: &Addresses<A>) -> Option<(A, u8)> {
    let prefix = addresses.prefix;
    addresses.gateway.map(|gateway| (gateway, prefix))
}
