//! Networks that a container shares with others: what is kept of `--network NAME`, and what a start makes
//! of it.

use super::{Attachment, Mode, NetworkError, NetworkRequest};
use crate::ipam::{Asked, SharedNetwork, Taken};
use crate::network::MacAddress;
use hullbox_backend::network::Membership;
use hullbox_host::paths::short_id;
use hullbox_protocol::{Interface, MAX_INTERFACES, interface_name};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Most networks that a container shares, beside one of its own.
pub const MAX_NETWORKS: usize = MAX_INTERFACES - 1;
/// Longest name that a container has in a network, in bytes: DNS knows no longer ones.
const MAX_ALIAS: usize = 253;
/// Most names that a container is given in one network.
const MAX_ALIASES: usize = 64;

/// A network that was looked up.
#[derive(Debug, Clone)]
pub struct Known {
    /// Full id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub network: SharedNetwork,
}

/// A network that a container is in, and what it asks for there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attached {
    /// The network's full id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Names of the container there, beside its own.
    pub aliases: Vec<String>,
    /// An address of its own.
    pub ipv4: Option<Ipv4Addr>,
    /// The same.
    pub ipv6: Option<Ipv6Addr>,
    /// A hardware address of its own.
    pub mac: Option<MacAddress>,
}

impl Attached {
    /// A membership with what was typed for it.
    ///
    /// # Errors
    /// The network cannot give the addresses, or a name is none.
    pub fn new(known: &Known, typed: &Attachment) -> Result<Self, NetworkError> {
        let attached = Self {
            id: known.id.clone(),
            name: known.name.clone(),
            aliases: typed.aliases.clone(),
            ipv4: typed.ipv4,
            ipv6: typed.ipv6,
            mac: typed.mac_address,
        };
        if attached.aliases.len() > MAX_ALIASES {
            return Err(NetworkError::TooManyAliases);
        }
        let is_name = |name: &String| {
            let plain = |c: char| !c.is_whitespace() && !c.is_control();
            (1..=MAX_ALIAS).contains(&name.len()) && name.chars().all(plain)
        };
        if let Some(bad) = attached.aliases.iter().find(|name| !is_name(name)) {
            return Err(NetworkError::BadAlias(bad.clone()));
        }
        attached.asked().check(&known.network, &Taken::default())?;
        Ok(attached)
    }

    /// What it asks for.
    #[must_use]
    pub const fn asked(&self) -> Asked {
        Asked {
            ipv4: self.ipv4,
            ipv6: self.ipv6,
            mac: self.mac,
        }
    }

    /// The names under which others find the container, as Docker has them: its own, those that were given,
    /// the beginning of its id, and its host name.
    #[must_use]
    pub fn dns_names(&self, container: &str, id: &str, hostname: &str) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let own = [container].into_iter().map(str::to_owned);
        let others = [short_id(id), hostname].into_iter().map(str::to_owned);
        for name in own.chain(self.aliases.iter().cloned()).chain(others) {
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// What whoever serves the network is told of the member.
    #[must_use]
    pub fn membership(&self, internal: bool, dns_names: &[String]) -> Membership {
        let mut names: Vec<String> = Vec::new();
        for name in dns_names.iter().map(|name| name.to_ascii_lowercase()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Membership {
            id: self.id.clone(),
            internal,
            names,
        }
    }
}

impl NetworkRequest {
    /// Names of the networks that are to be looked up, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.attachments.iter().filter_map(|one| match &one.mode {
            Mode::Named(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The first of them as typed, or as its network is called.
    pub(crate) fn shared_name(&self) -> Option<String> {
        let known = self.known.first().map(|known| known.name.as_str());
        known.or(self.names().next()).map(str::to_owned)
    }

    /// The networks that were looked up, with what was typed for each; the flags without a network's name
    /// mean the first one.
    pub(super) fn attached(&self) -> Result<Vec<Attached>, NetworkError> {
        if self.attachments.len() > MAX_NETWORKS {
            return Err(NetworkError::TooManyNetworks);
        }
        let mut all: Vec<Attached> = Vec::new();
        for (at, typed) in self.attachments.iter().enumerate() {
            let Some(known) = self.known.get(at) else {
                return Err(NetworkError::NotFound(typed.mode.to_string()));
            };
            if all.iter().any(|other| other.id == known.id) {
                return Err(NetworkError::Twice(known.name.clone()));
            }
            let mut typed = typed.clone();
            if at == 0 {
                typed.aliases.extend(self.aliases.iter().cloned());
                typed.ipv4 = typed.ipv4.or(self.ipv4);
                typed.ipv6 = typed.ipv6.or(self.ipv6);
                typed.mac_address = typed.mac_address.or(self.mac_address);
            }
            all.push(Attached::new(known, &typed)?);
        }
        Ok(all)
    }
}

/// Takes out what a container's own kernel parameters forbid: IPv6 of an interface.
pub fn fit_sysctls(interfaces: &mut [Interface], sysctls: &[(String, String)]) {
    for (at, interface) in interfaces.iter_mut().enumerate() {
        if super::is_ipv6_disabled(&interface_name(at), sysctls) {
            interface.ipv6 = None;
        }
    }
}

/// Has the first interface that leads out be the way out, and the next ones in their order when it is gone.
pub fn order_routes(interfaces: &mut [Interface]) {
    for (metric, interface) in (0..).zip(interfaces) {
        interface.route_metric = interface.route_metric.map(|_| metric);
    }
}

#[cfg(test)]
mod tests;
