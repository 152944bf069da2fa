//! A guest's disks: all layers behind the one, its writable layer behind the other.

use crate::disk::{self, clone_sparse};
use crate::error::GuestError;
use hullbox_artifacts::{self as artifacts, Artifact};
use hullbox_backend::bundle::Bundle;
use hullbox_host::paths::DISK_FILE;
use hullbox_protocol::LayerDisk;
use hullbox_vmm::{DISK_FILE_ALIGN, DiskConfig};
use std::fs;
use std::path::{Path, PathBuf};

/// All layers behind one disk, and the range of each.
pub(crate) fn layer_disk(
    layers: &[PathBuf],
) -> Result<(Option<DiskConfig>, Vec<LayerDisk>), GuestError> {
    let mut offset_bytes = 0;
    let mut ranges = Vec::with_capacity(layers.len());
    for path in layers {
        let length_bytes = fs::metadata(path)
            .map_err(|source| GuestError::Layer {
                path: path.clone(),
                source,
            })?
            .len();
        ranges.push(LayerDisk {
            offset_bytes,
            length_bytes: length_bytes.next_multiple_of(512),
        });
        offset_bytes += length_bytes.next_multiple_of(DISK_FILE_ALIGN);
    }
    let disk = (!layers.is_empty()).then(|| DiskConfig {
        files: layers.to_vec(),
        read_only: true,
    });
    Ok((disk, ranges))
}

/// The container's own disk.
#[derive(Debug)]
pub(crate) struct OwnDisk {
    pub(crate) path: PathBuf,
    size_bytes: Option<u64>,
    /// Made for this run of the empty one, and neither kept from an earlier run nor a copy.
    fresh: bool,
}

impl OwnDisk {
    /// The one that is there, or a fresh clone of a snapshot's or of the empty one.
    pub(crate) fn of(
        bundle: &Bundle,
        data: &Path,
        snapshot: Option<&Path>,
    ) -> Result<Self, GuestError> {
        let path = bundle.dir.join(DISK_FILE);
        let disk = |source| GuestError::Disk {
            path: path.clone(),
            source,
        };
        let fresh = match snapshot {
            Some(snapshot) => {
                clone_sparse(&snapshot.join(DISK_FILE), &path).map_err(disk)?;
                false
            }
            None => !path.try_exists().map_err(disk)?,
        };
        let disk = Self {
            path,
            size_bytes: bundle.disk_bytes,
            fresh,
        };
        disk.renew(data)?;
        Ok(disk)
    }

    /// Makes it what it was when this run began.
    pub(crate) fn renew(&self, data: &Path) -> Result<(), GuestError> {
        if !self.fresh {
            return Ok(());
        }
        let empty = artifacts::path(Artifact::EmptyDisk, data)?;
        disk::make(&empty, &self.path, self.size_bytes).map_err(|source| GuestError::Disk {
            path: self.path.clone(),
            source,
        })
    }

    pub(crate) fn config(&self) -> DiskConfig {
        DiskConfig {
            files: vec![self.path.clone()],
            read_only: false,
        }
    }
}
