//! Why a volume is not made, found, used or removed, in Docker's words.

use std::io;
use std::path::PathBuf;

/// Why a volume is not made, used or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumesError {
    /// A name that nothing can have.
    #[error("create {name}: {why}")]
    Name {
        /// As typed.
        name: String,
        /// Why.
        why: String,
    },
    /// Options that make no sense.
    #[error("create {name}: {why}")]
    Options {
        /// The volume's name.
        name: String,
        /// Why.
        why: String,
    },
    /// A driver that there is not.
    #[error("create {name}: error looking up volume plugin {driver}: plugin {driver:?} not found")]
    Driver {
        /// The volume's name.
        name: String,
        /// As typed.
        driver: String,
    },
    /// A file system that cannot be mounted.
    #[error("failed to mount local volume {name}: mount {device}:{}", on.display())]
    Mount {
        /// The volume's name.
        name: String,
        /// What.
        device: String,
        /// Where.
        on: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The same, without root.
    #[error(
        "volume {0} has a file system that is mounted on the host while a container has it, which takes root"
    )]
    NotRoot(String),
    /// A disk in container mode.
    #[error(
        "volume {0} has a disk of its own, which microVMs alone can use: the host's kernel mounts no file system \
         that a guest has written (--isolation=vm)"
    )]
    Disk(String),
    /// The image of a disk.
    #[error("cannot {action} the disk of volume {name}")]
    Image {
        /// What was tried.
        action: &'static str,
        /// The volume's name.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A guest has it, or its file system is not in order.
    #[error("cannot grow volume {name}: {why}")]
    Grow {
        /// The volume's name.
        name: String,
        /// Why not.
        why: String,
    },
    /// A path of the host that is to be mounted.
    #[error("invalid mount config for type \"bind\": bind source path does not exist: {0}")]
    NoSource(String),
    /// The same, that cannot be made.
    #[error("error while creating mount source path '{path}'")]
    MakeSource {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Not an option that can be changed.
    #[error("update {name}: {why}")]
    Update {
        /// The volume's name.
        name: String,
        /// Why.
        why: String,
    },
}
