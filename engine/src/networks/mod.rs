//! What front ends do with networks that containers share: make, find, list and remove them, and put
//! containers in and take them out.
//!
//! A network is a record: nothing runs for it until a member does. What members' monitors do for it is
//! theirs (`hullbox_monitor`).

mod builtin;
mod connect;
mod error;
mod host;
mod inspect;
mod start;

pub use builtin::Builtin;
pub(crate) use connect::known;
pub use error::NetworksError;
pub(crate) use start::{attach, dns_names, join};

use crate::containers::{ContainerError, Engine};
use crate::events::{self, NETWORK_DRIVER as DRIVER};
use crate::plan::ipam::{PoolRequest, SharedNetwork, pools};
use crate::state::{NetworkRecord, Record, StateError};
use hullbox_model::event::{Kind, Verb};
use hullbox_model::filter::{FilterError, Filters};
use hullbox_model::network::{Inspect, NetworksPruned};
use std::collections::BTreeMap;

/// Keys of a listing's filters.
pub const NETWORK_FILTERS: &[&str] =
    &["dangling", "driver", "id", "label", "name", "scope", "type"];
/// Keys of the filters of what is to be removed.
pub const NETWORK_PRUNE_FILTERS: &[&str] = &["label", "label!", "until"];

/// Docker's word for a network of this host.
const SCOPE: &str = "local";
/// Longest name, in bytes.
const MAX_NAME: usize = 128;

/// What `network create` is asked for.
#[derive(Debug, Clone, Default)]
pub struct NetworkOrder {
    /// The name.
    pub name: String,
    /// `--driver`; `bridge` where it is empty.
    pub driver: String,
    /// Its addresses.
    pub pools: PoolRequest,
    /// `--internal`.
    pub internal: bool,
    /// `--attachable`.
    pub attachable: bool,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--opt`.
    pub options: BTreeMap<String, String>,
}

/// A network that was found.
#[derive(Debug, Clone)]
pub enum Found {
    /// One that every installation has.
    Builtin(Builtin),
    /// One that was made.
    Shared(Box<NetworkRecord>),
}

impl Engine {
    /// Makes a network. Returns its full id.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn create_network(&self, order: NetworkOrder) -> Result<String, ContainerError> {
        check_name(&order.name)?;
        if !order.driver.is_empty() && order.driver != DRIVER {
            return Err(NetworksError::Driver(order.driver).into());
        }
        let mut random = [0; 7];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| ContainerError::Random(errno.into()))?;
        let avoided = host::routes();
        let record = self.state().create_network(&order.name, |taken| {
            let (ipv4, ipv6) = pools(&order.pools, taken, &avoided, random)?;
            let network = SharedNetwork {
                ipv4,
                ipv6,
                internal: order.internal,
                attachable: order.attachable,
                labels: order.labels,
                options: order.options,
            };
            network.check_options()?;
            Ok(network)
        })?;
        self.note_network(&record.id, &record.name, Verb::Create);
        Ok(record.id)
    }

    /// Finds a network by id, name, or the beginning of an id.
    ///
    /// # Errors
    /// [`StateError::NetworkNotFound`] among others.
    pub fn find_network(&self, text: &str) -> Result<Found, ContainerError> {
        if let Some(builtin) = Builtin::exactly(text) {
            return Ok(Found::Builtin(builtin));
        }
        match self.state().resolve_network(text) {
            Ok(id) => Ok(Found::Shared(Box::new(self.state().network(&id)?))),
            Err(error @ StateError::NetworkNotFound(_)) => match Builtin::beginning(text) {
                Some(builtin) => Ok(Found::Builtin(builtin)),
                None => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// The networks that fit, in the order of their names. Their members are not among what is told.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn list_networks(&self, filters: &Filters) -> Result<Vec<Inspect>, ContainerError> {
        check_filters(filters)?;
        let dangling = filters.boolean("dangling")?;
        let mut all: Vec<Inspect> = Builtin::ALL.map(Builtin::inspect).into();
        let records = self.state().networks()?;
        all.extend(records.iter().map(inspect::network));
        all.retain(|network| fits(network, filters));
        if let Some(dangling) = dangling {
            let used = self.used_networks()?;
            all.retain(|network| {
                let is_dangling = !is_builtin(network) && !used.contains(&network.id);
                is_dangling == dangling
            });
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Removes a network by name or id; containers that run in it keep it from that.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn remove_network(&self, text: &str) -> Result<(), ContainerError> {
        // Found by its id alone: what is damaged can be removed, too.
        let id = match self.state().resolve_network(text) {
            Err(StateError::NetworkNotFound(_)) => match self.find_network(text)? {
                Found::Builtin(builtin) => {
                    return Err(NetworksError::PredefinedRemove(builtin.name()).into());
                }
                Found::Shared(record) => record.id,
            },
            other => other?,
        };
        self.forget_network(&id)?;
        Ok(())
    }

    /// Removes every network in which no container runs and that fits.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn prune_networks(&self, filters: &Filters) -> Result<NetworksPruned, ContainerError> {
        let until_ns = filters.until()?;
        let mut pruned = NetworksPruned::default();
        for record in self.state().networks()? {
            let label = |name: &str| record.network.labels.get(name).map(String::as_str);
            let fits = until_ns.is_none_or(|until| record.created_ns < until)
                && filters.labels("label", label)
                && filters.not_labels("label!", label);
            if !fits {
                continue;
            }
            match self.forget_network(&record.id) {
                Ok(name) => pruned.networks_deleted.push(name),
                // In use, or removed meanwhile.
                Err(StateError::NetworkActive { .. } | StateError::NetworkNotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.note_prune(Kind::Network, 0);
        Ok(pruned)
    }

    /// Removes a network in which no container runs, and what a killed process of it has left.
    fn forget_network(&self, id: &str) -> Result<String, StateError> {
        let name = self.state().remove_network(id)?;
        let sockets = self.roots().networks_dir();
        if sockets.is_dir() {
            // Nobody comes by there again; the runtime directory does not outlive the host's next start.
            let _ = hullbox_netproc::tidy(&sockets, id);
        }
        self.note_network(id, &name, Verb::Destroy);
        Ok(name)
    }

    fn note_network(&self, id: &str, name: &str, verb: Verb) {
        events::emit_all(self.roots(), &[events::network_event(id, name, verb)]);
    }

    /// Ids of the networks in which a container runs.
    fn used_networks(&self) -> Result<Vec<String>, ContainerError> {
        let records = self.state().list()?;
        let active = records.into_iter().filter(Record::is_active);
        let endpoints = active.flat_map(|record| record.endpoints);
        Ok(endpoints.map(|endpoint| endpoint.network).collect())
    }
}

/// Names are Docker's; those that mean something to `--network` are nobody's.
fn check_name(name: &str) -> Result<(), NetworksError> {
    if matches!(
        name,
        "bridge" | "default" | "user" | "host" | "none" | "container"
    ) {
        return Err(NetworksError::Predefined(name.to_owned()));
    }
    let mut bytes = name.bytes();
    let first = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    match first && rest && name.len() <= MAX_NAME {
        true => Ok(()),
        false => Err(NetworksError::Name(name.to_owned())),
    }
}

fn check_filters(filters: &Filters) -> Result<(), FilterError> {
    let known = ["builtin", "custom"];
    match filters
        .get("type")
        .iter()
        .find(|kind| !known.contains(&kind.as_str()))
    {
        Some(kind) => Err(FilterError::Value {
            key: "type".to_owned(),
            value: kind.clone(),
            why: "possible values are builtin, custom".to_owned(),
        }),
        None => Ok(()),
    }
}

fn fits(network: &Inspect, filters: &Filters) -> bool {
    let kind = if is_builtin(network) {
        "builtin"
    } else {
        "custom"
    };
    filters.matches("name", &network.name)
        && filters.matches("id", &network.id)
        && filters.exact("driver", &network.driver)
        && filters.exact("scope", &network.scope)
        && filters.exact("type", kind)
        && filters.labels("label", |name| network.labels.get(name).map(String::as_str))
}

fn is_builtin(network: &Inspect) -> bool {
    Builtin::exactly(&network.id).is_some()
}

#[cfg(test)]
mod tests;
