//! Containers and networks: plan, state, lifecycle, monitor, both isolation backends, the helper machine.

#![forbid(unsafe_code)]

pub mod backends;
pub mod containers;
pub mod cp;
pub mod doctor;
mod images;
pub mod networks;
pub mod registry;
pub mod volumes;

pub use hullbox_artifacts as artifacts;
pub use hullbox_backend::bundle;
pub use hullbox_files as files;
use hullbox_host::config;
pub use hullbox_host::place::is_in_machine;
pub use hullbox_host::{paths, timing};
pub use hullbox_machine as machine;
pub use hullbox_microvm::templates;
pub use hullbox_monitor as monitor;
pub use hullbox_netproc as netproc;
pub use hullbox_plan as plan;
pub use hullbox_security::seccomp;
pub use hullbox_state as state;
pub use hullbox_state::{events, logs, snapshots};

use hullbox_ns as ns;
