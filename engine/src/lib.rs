//! Containers: plan, state, lifecycle, monitor, both isolation backends, the helper machine.

mod clock;
pub mod containers;
pub mod cp;
pub mod doctor;
pub mod events;
mod images;
pub mod logs;
pub mod monitor;
pub mod ns;
pub mod snapshots;
pub mod state;
pub mod sys;
pub mod templates;
pub mod vm;

pub use hullbox_artifacts as artifacts;
pub use hullbox_backend::bundle;
use hullbox_host::{config, watch};
pub use hullbox_host::{paths, timing};
pub use hullbox_machine as machine;
pub use hullbox_plan as plan;
pub use hullbox_security::seccomp;
