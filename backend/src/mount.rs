//! What a container sees of files from outside.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Most mounts of a container.
pub const MAX_MOUNTS: usize = 256;

/// Files from outside, seen in a container at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// What of it, as a relative path without `..`; empty for all. Others may change what is in the source
    /// meanwhile: it is looked up there by `openat2(2)` with `RESOLVE_BENEATH`.
    #[serde(default)]
    pub subpath: String,
    /// Absolute path in the container, without `.`, `..` and empty names.
    pub target: String,
    /// Nothing can be written there.
    pub read_only: bool,
    /// What is mounted below the source comes along (`rbind`); otherwise the source's own file
    /// system alone.
    pub recursive: bool,
    /// What is mounted below a read-only source is as the host has it; otherwise read-only as well,
    /// where the kernel can (container mode).
    #[serde(default)]
    pub writable_submounts: bool,
    /// How later mounts spread between host and container (container mode).
    pub propagation: Propagation,
    /// If it is empty, it gets what the image has at the target, and its owner and mode.
    pub copy_up: bool,
    /// It is a volume of ours, whose owners are the container's users; otherwise its owners are the
    /// host's.
    pub volume: bool,
}

/// What a [`Mount`] shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A directory or a file that is here.
    Here(PathBuf),
    /// One of the host outside the helper machine.
    Outside(PathBuf),
    /// The image of an ext4 file system (VM mode).
    Disk(PathBuf),
}

/// Mount propagation, by the names that Docker and Podman have (`mount_namespaces(7)`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Neither way.
    Private,
    /// Neither way, recursively.
    #[default]
    Rprivate,
    /// Both ways.
    Shared,
    /// Both ways, recursively.
    Rshared,
    /// From the host to the container.
    Slave,
    /// From the host to the container, recursively.
    Rslave,
}
