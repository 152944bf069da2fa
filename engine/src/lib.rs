//! Containers: plan, state, lifecycle, monitor, both isolation backends, the helper machine.

mod clock;
pub mod containers;
pub mod cp;
pub mod doctor;
mod images;
pub mod monitor;
pub mod ns;
pub mod sys;

pub use hullbox_artifacts as artifacts;
pub use hullbox_backend::bundle;
use hullbox_host::config;
pub use hullbox_host::{paths, timing};
pub use hullbox_machine as machine;
pub use hullbox_microvm::templates;
pub use hullbox_plan as plan;
pub use hullbox_security::seccomp;
pub use hullbox_state as state;
pub use hullbox_state::{events, logs, snapshots};

use hullbox_microvm as vm;
