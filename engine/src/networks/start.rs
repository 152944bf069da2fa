//! What a start makes of a container's networks: the addresses are others at each one.

use crate::bundle::Bundle;
use crate::plan::join_shared;
use crate::plan::network::{Attached, fit_sysctls, order_routes};
use crate::state::{Endpoint, Record};
use hullbox_backend::network::{Membership, Network};
use hullbox_protocol::{Interface, NameFiles, Setup};

/// Gives the bundle of a container its places in the networks that it shares, beside one of its own.
pub(crate) fn attach(bundle: &mut Bundle, record: &Record) {
    if let Network::User(network) = &mut bundle.network
        && !record.spec.networks.is_empty()
    {
        network.shared = memberships(record);
        join(&mut bundle.setup, record);
    }
}

/// Gives a container's setup what goes with the addresses of its last start.
pub(crate) fn join(setup: &mut Setup, record: &Record) {
    let own = record.spec.setup.interfaces.iter();
    let shared = record.endpoints.iter().map(|endpoint| &endpoint.interface);
    let mut interfaces: Vec<Interface> = own.chain(shared).cloned().collect();
    order_routes(&mut interfaces);
    // All members of a network tell the same of it, whatever their kernels do with it.
    setup.interfaces = interfaces.clone();
    fit_sysctls(&mut interfaces, &setup.sysctls);
    join_shared(setup, &record.spec.typed, &interfaces);
}

/// What a container in the networks of this record knows of their names: what its next start has.
pub(super) fn names(record: &Record) -> NameFiles {
    let mut setup = record.spec.setup.clone();
    if !record.spec.networks.is_empty() {
        join(&mut setup, record);
    }
    NameFiles {
        hosts: setup.etc_hosts,
        resolv_conf: setup.etc_resolv_conf,
    }
}

/// The names under which others find a container in its networks, by their ids.
pub(crate) fn dns_names(record: &Record) -> Vec<(String, Vec<String>)> {
    let memberships = memberships(record).into_iter();
    memberships
        .map(|membership| (membership.id, membership.names))
        .collect()
}

/// In the order of the interfaces.
fn memberships(record: &Record) -> Vec<Membership> {
    let membership_at = |endpoint: &Endpoint| {
        let mut networks = record.spec.networks.iter();
        let attached = networks.find(|attached| attached.id == endpoint.network)?;
        Some(membership(record, attached, endpoint))
    };
    record.endpoints.iter().filter_map(membership_at).collect()
}

/// A container's place in a network, as whoever serves it is told.
pub(super) fn membership(record: &Record, attached: &Attached, endpoint: &Endpoint) -> Membership {
    let hostname = &record.spec.setup.hostname;
    let names = attached.dns_names(&record.name, &record.id, hostname);
    attached.membership(endpoint.internal, &names)
}
