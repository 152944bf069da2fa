//! What is known of a network, in the model's terms.

use super::{Builtin, DRIVER, Found, SCOPE};
use crate::containers::{ContainerError, Engine, own_endpoint};
use crate::plan::network::MacAddress;
use crate::state::{NetworkRecord, Phase, Record};
use hullbox_backend::network::Network;
use hullbox_model::network::{Inspect, Member};
use hullbox_model::time;
use hullbox_protocol::Interface;
use std::collections::BTreeMap;

impl Engine {
    /// All that is known of a network, with its members that run.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn inspect_network(&self, text: &str) -> Result<Inspect, ContainerError> {
        Ok(match self.find_network(text)? {
            Found::Builtin(builtin) => Inspect {
                containers: self.members_of(builtin)?,
                ..builtin.inspect()
            },
            Found::Shared(record) => Inspect {
                containers: members(&record.id, self.state().members(&record.id)?),
                ..network(&record)
            },
        })
    }

    fn members_of(&self, builtin: Builtin) -> Result<BTreeMap<String, Member>, ContainerError> {
        let records = self.state().list()?.into_iter().filter(runs);
        let member = |record: Record| {
            let shown = match (&record.spec.network, builtin) {
                (Network::User(_), Builtin::Bridge) => {
                    let interface = own_endpoint(&record)?;
                    member(&record, String::new(), interface)
                }
                (Network::Host, Builtin::Host) | (Network::None, Builtin::None) => Member {
                    name: record.name.clone(),
                    ..Member::default()
                },
                _ => return None,
            };
            Some((record.id, shown))
        };
        Ok(records.filter_map(member).collect())
    }
}

/// What is known of a network that was made, but for its members.
pub(super) fn network(record: &NetworkRecord) -> Inspect {
    let network = &record.network;
    Inspect {
        name: record.name.clone(),
        id: record.id.clone(),
        created: time::rfc3339(record.created_ns),
        scope: SCOPE.to_owned(),
        driver: DRIVER.to_owned(),
        enable_ipv6: network.ipv6.is_some(),
        ipam: network.ipam(),
        internal: network.internal,
        attachable: network.attachable,
        options: network.options.clone(),
        labels: network.labels.clone(),
        ..Inspect::default()
    }
}

fn members(network: &str, records: Vec<Record>) -> BTreeMap<String, Member> {
    let running = records.into_iter().filter(runs);
    let place = |record: Record| {
        let mut places = record.endpoints.iter();
        let endpoint = places.find(|endpoint| endpoint.network == network)?;
        let shown = member(&record, endpoint.id.clone(), &endpoint.interface);
        Some((record.id, shown))
    };
    running.filter_map(place).collect()
}

fn member(record: &Record, endpoint_id: String, interface: &Interface) -> Member {
    let ipv4 = interface.ipv4.as_ref();
    let ipv6 = interface.ipv6.as_ref();
    Member {
        name: record.name.clone(),
        endpoint_id,
        mac_address: MacAddress(interface.mac).to_string(),
        ipv4_address: ipv4
            .map(|ipv4| format!("{}/{}", ipv4.address, ipv4.prefix))
            .unwrap_or_default(),
        ipv6_address: ipv6
            .map(|ipv6| format!("{}/{}", ipv6.address, ipv6.prefix))
            .unwrap_or_default(),
    }
}

/// As Docker has it: what rests between two runs has no place in a network.
fn runs(record: &Record) -> bool {
    matches!(record.phase, Phase::Running | Phase::Paused)
}
