//! Why a guest cannot be started.

use crate::shape::ShapeError;
use crate::snapshots::SavedGuestError;
use hullbox_artifacts::ArtifactError;
use hullbox_vmm::VmError;
use std::io;
use std::path::PathBuf;

/// Why a guest cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// The empty disk.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// A layer's file.
    #[error("cannot use the layer {}", path.display())]
    Layer {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The container's own disk.
    #[error("cannot make the container's disk {}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket that the guest dials.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What it boots.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The VMM.
    #[error("cannot start the virtual machine")]
    Vmm(#[from] VmError),
    /// What carries the frames of its network card.
    #[error("cannot make the link of the network card")]
    Link(#[source] io::Error),
    /// A descriptor or a thread.
    #[error("cannot watch over the virtual machine")]
    Watch(#[source] io::Error),
    /// The snapshot that it was to go on from.
    #[error("cannot use the snapshot")]
    Snapshot(#[source] Box<SavedGuestError>),
    /// The host has no random numbers.
    #[error("cannot get random numbers from the host")]
    Random(#[source] io::Error),
}
