//! Volumes with a disk of their own.

use crate::disk;
pub use crate::ext4::GrowError;
use crate::ext4::grow;
use hullbox_artifacts::{self as artifacts, Artifact};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::path::Path;

/// Makes the image of a volume that holds `bytes` of files: all of it or nothing. `data` is the data
/// directory, where the empty disk is unpacked.
///
/// # Errors
/// It cannot be made.
pub fn make_volume(data: &Path, to: &Path, bytes: u64) -> io::Result<()> {
    let empty = artifacts::path(Artifact::EmptyDisk, data).map_err(io::Error::other)?;
    disk::make_synced(&empty, to, bytes)
}

/// Makes it larger, while no guest has it.
///
/// # Errors
/// [`GrowError`].
pub fn grow_volume(data: &Path, image: &Path, bytes: u64) -> Result<(), GrowError> {
    let empty = artifacts::path(Artifact::EmptyDisk, data).map_err(io::Error::other)?;
    let disk = File::options().read(true).write(true).open(image)?;
    match flock(&disk, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Err(GrowError::InUse),
        other => other.map_err(io::Error::from)?,
    }
    grow(&disk, &File::open(empty)?, bytes)
}
