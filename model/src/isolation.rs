//! What isolates a container.

use serde::{Deserialize, Serialize};

/// What stands between a container and its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Its own microVM.
    #[default]
    Vm,
    /// Namespaces of the host kernel.
    Container,
}
