//! Networks that containers share, and their addresses: from what `network create` was told to a
//! [`SharedNetwork`], and from that to the addresses of one member. Words for what cannot be are Docker's.
//!
//! Nothing is kept here: which ranges and addresses are taken is the caller's to know, and the caller
//! holds whatever keeps others from taking the same ones.

mod lease;
mod pools;

pub use lease::{Asked, Lease, Taken, lease};
pub use pools::{PoolRequest, pools};

use super::network::{GATEWAY, GATEWAY_V6, MTU, PREFIX, PREFIX_V6};
use hullbox_model::network::{Ipam, IpamConfig, Subnet};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The option of the bridge driver that sets the MTU.
pub const MTU_OPTION: &str = "com.docker.network.driver.mtu";
/// The least that every host of IPv4 takes (RFC 791), and of IPv6 (RFC 8200).
const MIN_MTU: (u16, u16) = (68, 1280);
/// Options of the bridge driver that would keep something apart, by what they begin with. One that is not
/// followed is refused: whoever gives it relies on it.
const REFUSED_OPTIONS: [&str; 5] = [
    "com.docker.network.bridge.enable_icc",
    "com.docker.network.bridge.gateway_mode_",
    "com.docker.network.bridge.host_binding_ipv4",
    "com.docker.network.bridge.inhibit_ipv4",
    "com.docker.network.bridge.trusted_host_interfaces",
];

/// A network that containers share, all questions answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedNetwork {
    /// Its IPv4 addresses.
    pub ipv4: Pool,
    /// Its IPv6 addresses, if it has them.
    #[serde(default)]
    pub ipv6: Option<Pool>,
    /// Members reach one another and nothing else.
    #[serde(default)]
    pub internal: bool,
    /// As asked; it means nothing here.
    #[serde(default)]
    pub attachable: bool,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Options of its driver.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// Addresses of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// All of them.
    pub subnet: Subnet,
    /// Those that members get which ask for none; all of them without it.
    #[serde(default)]
    pub range: Option<Subnet>,
    /// The router's, who answers for names, too.
    pub gateway: IpAddr,
    /// Those that no member gets, by name.
    #[serde(default)]
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// What of it was typed.
    #[serde(default)]
    pub typed: TypedPool,
}

/// What was typed of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TypedPool {
    /// The subnet: without it members may ask for no address, as in Docker.
    pub subnet: bool,
    /// The gateway.
    pub gateway: bool,
}

/// What is wrong with a network's addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IpamError {
    /// Too few subnets.
    #[error("every ip-range or gateway must have a corresponding subnet")]
    NoSubnet,
    /// Two subnets overlap.
    #[error("multiple overlapping subnet configuration is not supported")]
    Overlapping,
    /// Two subnets of one family.
    #[error("bridge driver does not support multiple subnets")]
    Several,
    /// What was typed is no subnet, range, gateway or auxiliary address that can be.
    #[error("invalid {what} {text}: {why}")]
    Invalid {
        /// Which of them.
        what: &'static str,
        /// As typed.
        text: String,
        /// Why.
        why: String,
    },
    /// A range, gateway or auxiliary address is in none of the subnets.
    #[error("no matching subnet for {what} {text}")]
    NoMatch {
        /// Which of them.
        what: &'static str,
        /// As typed.
        text: String,
    },
    /// A subnet has two of a kind.
    #[error("cannot configure multiple {what}s ({second}, {first}) on the same subnet ({subnet})")]
    Twice {
        /// Of which.
        what: &'static str,
        /// The first one.
        first: String,
        /// The second one.
        second: String,
        /// Whose.
        subnet: Subnet,
    },
    /// An address that cannot be set apart.
    #[error("failed to allocate {what} ({address}): Address already in use")]
    Reserved {
        /// For whom.
        what: &'static str,
        /// Which.
        address: String,
    },
    /// Another network has these addresses.
    #[error("Pool overlaps with other one on this address space")]
    Overlaps,
    /// All ranges are taken.
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    )]
    Exhausted,
    /// A driver's option.
    #[error("invalid driver option {name}: {why}")]
    DriverOption {
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
    /// An address was asked for where none can be.
    #[error(
        "user specified IP address is supported only when connecting to networks with user configured subnets"
    )]
    NotConfigured,
    /// An address that is none of the network's.
    #[error("Invalid address {0}: It does not belong to any of this network's subnets")]
    Outside(IpAddr),
    /// An address that somebody has.
    #[error("Address already in use")]
    InUse,
    /// A hardware address that another member has.
    #[error("MAC address {0} is already in use on this network")]
    MacInUse(String),
    /// No address is left.
    #[error("no available IPv{0} addresses on this network's address pools")]
    NoneLeft(u8),
}

impl SharedNetwork {
    /// Its pools, IPv4 first.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        [Some(&self.ipv4), self.ipv6.as_ref()].into_iter().flatten()
    }

    /// In bytes.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        let typed = self.options.get(MTU_OPTION);
        typed.and_then(|text| text.parse().ok()).unwrap_or(MTU)
    }

    /// Whether its driver's options can be followed.
    ///
    /// # Errors
    /// [`IpamError::DriverOption`].
    pub fn check_options(&self) -> Result<(), IpamError> {
        for (name, value) in &self.options {
            let error = |why: &str| {
                let (name, why) = (name.clone(), why.to_owned());
                Err(IpamError::DriverOption { name, why })
            };
            let refused = |begin: &&str| name.starts_with(*begin);
            let is_default = name == "com.docker.network.bridge.enable_icc" && value == "true";
            if REFUSED_OPTIONS.iter().any(refused) && !is_default {
                return error("it is not supported yet");
            }
            let least = match &self.ipv6 {
                Some(_) => MIN_MTU.1,
                None => MIN_MTU.0,
            };
            let fits = |mtu: u16| (least..=MTU).contains(&mtu);
            if name == MTU_OPTION && !value.parse().is_ok_and(fits) {
                return error(&format!("{value:?} is not a number from {least} to {MTU}"));
            }
        }
        Ok(())
    }

    /// In the terms of Docker's API.
    #[must_use]
    pub fn ipam(&self) -> Ipam {
        let typed = self.pools().any(|pool| pool.typed.subnet);
        Ipam {
            driver: "default".to_owned(),
            options: typed.then(BTreeMap::new),
            config: Some(self.pools().map(Pool::config).collect()),
        }
    }
}

impl Pool {
    /// One that nobody typed.
    fn of_default(subnet: Subnet) -> Option<Self> {
        Some(Self {
            subnet,
            range: None,
            gateway: subnet.addresses().nth(1)?,
            auxiliary: BTreeMap::new(),
            typed: TypedPool::default(),
        })
    }

    /// Whether an address may be a member's, if nobody has it: neither the subnet's first one nor the
    /// broadcast address nor one that was set apart.
    fn is_members(&self, address: IpAddr) -> bool {
        self.is_hosts(address)
            && address != self.gateway
            && !self.auxiliary.values().any(|taken| *taken == address)
    }

    /// Whether an address of it is some host's.
    fn is_hosts(&self, address: IpAddr) -> bool {
        self.subnet.contains(address)
            && address != self.subnet.first()
            && (address.is_ipv6() || address != self.subnet.last())
    }

    fn config(&self) -> IpamConfig {
        let shows_gateway = self.typed.gateway || !self.typed.subnet;
        let auxiliary = self.auxiliary.iter();
        IpamConfig {
            subnet: self.subnet.to_string(),
            ip_range: self
                .range
                .map(|range| range.to_string())
                .unwrap_or_default(),
            gateway: if shows_gateway {
                self.gateway.to_string()
            } else {
                String::new()
            },
            auxiliary_addresses: auxiliary
                .map(|(name, address)| (name.clone(), address.to_string()))
                .collect(),
        }
    }
}

/// The addresses of a network of a container's own, as if it were shared.
#[must_use]
pub fn own() -> Vec<IpamConfig> {
    let around =
        |gateway: IpAddr, prefix| Subnet::around(gateway, prefix).map(|subnet| (subnet, gateway));
    let both = [
        around(GATEWAY.into(), PREFIX),
        around(GATEWAY_V6.into(), PREFIX_V6),
    ];
    let config = |(subnet, gateway): (Subnet, IpAddr)| IpamConfig {
        subnet: subnet.to_string(),
        gateway: gateway.to_string(),
        ..IpamConfig::default()
    };
    both.into_iter().flatten().map(config).collect()
}

#[cfg(test)]
mod tests;
