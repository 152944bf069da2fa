//! Why a guest cannot be saved, or go on from where it was.

use crate::shape::ShapeError;
use crate::templates::TemplateError;
use hullbox_vmm::{SaveError, SnapshotError, VmError};
use std::io;
use std::path::{Path, PathBuf};

/// Why a guest cannot be saved, or go on from where it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SavedGuestError {
    /// A file or directory.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not say what it is of.
    #[error("its description cannot be understood")]
    Description(#[source] serde_json::Error),
    /// The secret that it is sealed with.
    #[error(transparent)]
    Key(#[from] TemplateError),
    /// Its guest.
    #[error("cannot tell what its guest boots")]
    Guest(#[source] ShapeError),
    /// The files.
    #[error("the snapshot is refused")]
    Refused(#[source] SnapshotError),
    /// The virtual machine cannot be made of it.
    #[error("its virtual machine cannot be restored")]
    Restore(#[source] VmError),
    /// The guest could not be saved.
    #[error("cannot save the guest")]
    Save(#[source] SaveError),
}

pub(super) fn file_error(path: &Path) -> impl FnOnce(io::Error) -> SavedGuestError {
    let path = path.to_owned();
    move |source| SavedGuestError::File { path, source }
}
