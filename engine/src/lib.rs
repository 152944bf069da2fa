//! Containers: plan, state, lifecycle, monitor, both isolation backends, the helper machine.

pub mod artifacts;
pub mod bundle;
mod clock;
pub mod containers;
pub mod cp;
pub mod doctor;
pub mod events;
mod images;
pub mod logs;
pub mod machine;
pub mod monitor;
pub mod ns;
pub mod plan;
pub mod seccomp;
pub mod snapshots;
pub mod state;
pub mod sys;
pub mod templates;
pub mod vm;

use hullbox_host::{config, data_lock, watch};
pub use hullbox_host::{paths, timing};
