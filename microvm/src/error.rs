//! Why a guest cannot be started.

use crate::files::MAX_VOLUMES;
use crate::shape::ShapeError;
use crate::snapshots::SavedGuestError;
use hullbox_artifacts::ArtifactError;
use hullbox_files::LaunchError;
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
    /// Who serves its files.
    #[error("cannot serve the container's files")]
    Files(#[source] LaunchError),
    /// A part of a block volume.
    #[error("cannot mount a part of a block volume at {0}: it is mounted as a whole")]
    VolumeSubpath(String),
    /// More block volumes than disks.
    #[error("a container has at most {MAX_VOLUMES} block volumes, not {0}")]
    Volumes(usize),
    /// A block volume's image.
    #[error("cannot use the volume image {}", path.display())]
    Volume {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One writes to a block volume, and nobody else has it then.
    #[error("volume image {} is in use by another container", .0.display())]
    VolumeInUse(PathBuf),
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
