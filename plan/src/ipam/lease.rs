//! Which addresses a member of a network has.

use super::{IpamError, Pool, SharedNetwork};
use crate::network::{GATEWAY_MAC, MacAddress};
use hullbox_protocol::{Addresses, Interface};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a member asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// `--ip`.
    pub ipv4: Option<Ipv4Addr>,
    /// `--ip6`.
    pub ipv6: Option<Ipv6Addr>,
    /// `--mac-address`.
    pub mac: Option<MacAddress>,
}

/// What other members have, and those that do not run have set apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Addresses of both families.
    pub addresses: HashSet<IpAddr>,
    /// Hardware addresses.
    pub macs: HashSet<[u8; 6]>,
}

/// What a member gets.
pub type Lease = Interface;

impl Asked {
    /// The addresses of either family.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let ipv4 = self.ipv4.map(IpAddr::from);
        ipv4.into_iter().chain(self.ipv6.map(IpAddr::from))
    }

    /// Whether a network can give what is asked for, and nobody has it.
    ///
    /// # Errors
    /// [`IpamError`].
    pub fn check(&self, network: &SharedNetwork, taken: &Taken) -> Result<(), IpamError> {
        for address in self.addresses() {
            let pool = match address {
                IpAddr::V4(_) => Some(&network.ipv4),
                IpAddr::V6(_) => network.ipv6.as_ref(),
            };
            let pool = pool.filter(|pool| pool.typed.subnet);
            let pool = pool.ok_or(IpamError::NotConfigured)?;
            if !pool.subnet.contains(address) {
                return Err(IpamError::Outside(address));
            }
            if !pool.is_members(address) || taken.addresses.contains(&address) {
                return Err(IpamError::InUse);
            }
        }
        match self.mac {
            Some(mac) if taken.macs.contains(&mac.0) => Err(IpamError::MacInUse(mac.to_string())),
            _ => Ok(()),
        }
    }
}

/// Gives a member the addresses that it asks for, and the lowest free ones where it asks for none.
///
/// # Errors
/// [`IpamError`].
pub fn lease(network: &SharedNetwork, asked: &Asked, taken: &Taken) -> Result<Lease, IpamError> {
    asked.check(network, taken)?;
    let pool = &network.ipv4;
    let ipv4 = match asked.ipv4 {
        Some(address) => address,
        None => match free(pool, taken).ok_or(IpamError::NoneLeft(4))? {
            IpAddr::V4(address) => address,
            IpAddr::V6(_) => return Err(IpamError::NoneLeft(4)),
        },
    };
    let IpAddr::V4(gateway) = pool.gateway else {
        return Err(IpamError::NoneLeft(4));
    };
    let ipv4 = Addresses {
        address: ipv4,
        prefix: pool.subnet.prefix(),
        gateway: Some(gateway),
    };
    let ipv6 = match &network.ipv6 {
        Some(pool) => Some(lease_v6(pool, asked.ipv6, taken)?),
        None => None,
    };
    Ok(Interface {
        mac: asked
            .mac
            .map_or_else(|| mac_of(ipv4.address, taken), |mac| mac.0),
        mtu: network.mtu(),
        ipv4: Some(ipv4),
        ipv6,
        gateway_mac: GATEWAY_MAC,
        route_metric: (!network.internal).then_some(0),
    })
}

fn lease_v6(
    pool: &Pool,
    asked: Option<Ipv6Addr>,
    taken: &Taken,
) -> Result<Addresses<Ipv6Addr>, IpamError> {
    let address = match asked {
        Some(address) => Some(IpAddr::V6(address)),
        None => free(pool, taken),
    };
    match (address, pool.gateway) {
        (Some(IpAddr::V6(address)), IpAddr::V6(gateway)) => Ok(Addresses {
            address,
            prefix: pool.subnet.prefix(),
            gateway: Some(gateway),
        }),
        _ => Err(IpamError::NoneLeft(6)),
    }
}

/// The lowest address that is nobody's. No more addresses are tried than are taken, and a few.
fn free(pool: &Pool, taken: &Taken) -> Option<IpAddr> {
    let range = pool.range.unwrap_or(pool.subnet);
    let is_free =
        |address: &IpAddr| pool.is_members(*address) && !taken.addresses.contains(address);
    range.addresses().find(is_free)
}

/// Docker's: made of the IPv4 address, which is the member's alone.
fn mac_of(address: Ipv4Addr, taken: &Taken) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    let mac = |second| [0x02, second, a, b, c, d];
    // Somebody may have asked for just this one.
    let mut all = (0x42..=0xff).chain(0..0x42).map(mac);
    let is_free = |mac: &[u8; 6]| *mac != GATEWAY_MAC && !taken.macs.contains(mac);
    all.find(is_free).unwrap_or_else(|| mac(0x42))
}
