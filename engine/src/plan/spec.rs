//! What is kept of a container.

use super::life::Life;
use crate::bundle::{Bundle, Isolation};
use crate::paths::Roots;
use hullbox_protocol::{ProcessSpec, Setup};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A container with all questions answered: what every start of it begins with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Which wall.
    pub isolation: Isolation,
    /// Arrangement of root filesystem, names and limits.
    pub setup: Setup,
    /// The workload.
    pub process: ProcessSpec,
    /// Virtual CPUs; 0 in container mode.
    pub vcpus: u8,
    /// Guest memory, in MiB; 0 in container mode.
    pub memory_mib: u32,
    /// `--storage-opt size=`, in bytes (VM mode).
    #[serde(default)]
    pub disk_bytes: Option<u64>,
    /// What `stop` sends first.
    pub stop_signal: u8,
    /// The first part of the workload's command line, which an image keeps as ENTRYPOINT.
    #[serde(default)]
    pub entrypoint: Vec<Vec<u8>>,
    /// The rest of it, which an image keeps as CMD.
    #[serde(default)]
    pub cmd: Vec<Vec<u8>>,
    /// How it lives on.
    #[serde(default)]
    pub life: Life,
    /// Its guest boots, even if there is a template.
    #[serde(default)]
    pub cold: bool,
    /// Remove the container when it ends.
    pub auto_remove: bool,
    /// Labels of the image and the container's own.
    pub labels: BTreeMap<String, String>,
}

impl ContainerSpec {
    /// The bundle to start: this container, in its place, over these layers (lowest first).
    #[must_use]
    pub fn bundle(&self, id: &str, roots: &Roots, layers: Vec<PathBuf>) -> Bundle {
        Bundle {
            id: id.to_owned(),
            isolation: self.isolation,
            dir: roots.container_dir(id),
            runtime_dir: roots.container_runtime_dir(id),
            layers,
            setup: self.setup.clone(),
            process: self.process.clone(),
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            disk_bytes: self.disk_bytes,
            serial_log: None,
        }
    }
}
