//! What is kept of containers on disk: their records and those of networks and volumes ([`State`]),
//! what happened to them ([`events`]), what they wrote ([`logs`]), and their snapshots by name
//! ([`snapshots`]).
//!
//! Records are one SQLite database, one directory for each container, and locks that tell the living
//! from the dead.
//!
//! A container that is being made or runs holds an exclusive lock on its own byte of the lock
//! file (the byte's offset is the row's number), taken inside the transaction that inserts the
//! row and handed on to the monitor by inheritance. So a row in such a state whose byte is free
//! belongs to somebody who was killed, and whoever notices cleans up: see [`State::recover`].
//! Rows are the first thing of a container and the last: there is never a directory that no row
//! tells of.
#![forbid(unsafe_code)]

mod change;
mod database;
mod error;
pub mod events;
pub mod health;
mod id;
mod lock;
pub mod logs;
mod networks;
mod record;
mod recover;
mod schema;
pub mod snapshots;
mod time;
mod volumes;

pub use database::State;
pub use error::StateError;
pub use hullbox_backend::backend::BegunFrom;
pub use id::{new_id, parse_id};
pub use lock::{LifeLock, Starter};
pub use networks::{Endpoint, NetworkRecord, Stray};
pub use record::{Beginning, End, Filter, NewContainer, Phase, Record, Resolved};
pub use recover::KILLED;
pub use volumes::{ANONYMOUS, StrayVolume, VolumeRecord, VolumeSpec};

#[cfg(test)]
mod tests;
