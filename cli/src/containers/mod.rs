//! Commands on containers.

pub(crate) mod cidfile;
pub(crate) mod cp;
pub(crate) mod exec;
pub(crate) mod files;
mod health;
mod join;
pub(crate) mod lifecycle;
pub(crate) mod list;
pub(crate) mod logs;
mod order;
pub(crate) mod ports;
pub(crate) mod prune;
pub(crate) mod run;
pub(crate) mod snapshots;
pub(crate) mod stats;
mod timing;
pub(crate) mod top;
