//! What happened, for whoever wants to know: one JSON object a line, in a log that every process
//! appends to. There is no daemon that could be asked.
//!
//! The lines are [`Event`]s, in the shape of Docker's API. The log is a few files of bounded size:
//! `events.log` is appended to, and what was full before is `events.log.1` and so on. A
//! [`Subscription`] reads what there is and then follows, across files, without a gap.

mod follow;
mod log;

pub use crate::time::now_ns;
pub use follow::{EventsError, Query, Subscription, Woken};

use crate::record::Record;
use hullbox_host::paths::Roots;
use hullbox_model::event::{Action, Actor, Event, Kind, Verb, attribute};
use hullbox_plan::mounts::ContainerMount;
use hullbox_plan::mounts::flag::shown_propagation;
use hullbox_plan::network::Attached;
use std::collections::BTreeMap;

/// Notes that something happened now. Nobody is stopped by a failure to.
pub fn emit(
    roots: &Roots,
    kind: Kind,
    action: impl Into<Action>,
    id: &str,
    attributes: BTreeMap<String, String>,
) {
    emit_all(roots, &[event(kind, action, id, attributes)]);
}

/// Notes several things at once, in this order. Nobody is stopped by a failure to.
pub fn emit_all(roots: &Roots, events: &[Event]) {
    // A full disk must not stop a container.
    let _ = log::append(roots, events);
}

/// What happened now.
#[must_use]
pub fn event(
    kind: Kind,
    action: impl Into<Action>,
    id: &str,
    attributes: BTreeMap<String, String>,
) -> Event {
    let actor = Actor {
        id: id.to_owned(),
        attributes,
    };
    Event::new(kind, action, actor, now_ns())
}

/// What happened now to a network.
#[must_use]
pub fn network_event(id: &str, name: &str, verb: Verb) -> Event {
    let about = [(attribute::NAME, name), (attribute::TYPE, NETWORK_DRIVER)];
    let about = about.map(|(key, value)| (key.to_owned(), value.to_owned()));
    event(Kind::Network, verb, id, BTreeMap::from(about))
}

/// What happened now to a volume.
#[must_use]
pub fn volume_event(name: &str, verb: Verb) -> Event {
    let about = [(attribute::DRIVER.to_owned(), VOLUME_DRIVER.to_owned())];
    event(Kind::Volume, verb, name, BTreeMap::from(about))
}

/// A container that is started has its volumes now, or one that ended has them no longer.
#[must_use]
pub fn volume_uses(record: &Record, verb: &Verb) -> Vec<Event> {
    let mounts = record.spec.mounts.iter();
    let event = |mount: &ContainerMount| {
        let event = volume_event(&mount.volume()?.name, verb.clone());
        let event = event.with(attribute::CONTAINER, record.id.as_str());
        Some(match verb {
            Verb::Mount => event
                .with(attribute::DESTINATION, mount.target.as_str())
                .with(attribute::PROPAGATION, shown_propagation(mount))
                .with(attribute::READ_WRITE, (!mount.read_only).to_string()),
            _ => event,
        })
    };
    mounts.filter_map(event).collect()
}

/// A container was put into its networks now, or taken out of them.
#[must_use]
pub fn memberships(record: &Record, verb: &Verb) -> Vec<Event> {
    let networks = record.spec.networks.iter();
    let event = |one: &Attached| {
        let event = network_event(&one.id, &one.name, verb.clone());
        event.with(attribute::CONTAINER, record.id.as_str())
    };
    networks.map(event).collect()
}

/// Name and id of the network that stands for each container's own.
pub const OWN_NETWORK: (&str, &str) = (
    "bridge",
    "0846785b9a952b3f4a91f940cf39988a8a31535fa088e0a240b1a2f6c9c4de2b",
);

/// The one driver of volumes, by Docker's name.
pub const VOLUME_DRIVER: &str = "local";

/// The one driver of networks, by Docker's name.
pub const NETWORK_DRIVER: &str = "bridge";

#[cfg(test)]
mod tests;
