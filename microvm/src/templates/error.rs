//! Why a template cannot be used.

use crate::shape::ShapeError;
use hullbox_vmm::{SnapshotError, VmError};
use std::io;
use std::path::PathBuf;

/// Why a template that is there cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// Its key cannot be computed.
    #[error("cannot tell which template it would be")]
    Identity(#[source] io::Error),
    /// Kernel or initramfs are not to be had.
    #[error("cannot tell what its guest boots")]
    Guest(#[source] ShapeError),
    /// The secret cannot be read or made.
    #[error("cannot use {}", path.display())]
    Key {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The snapshot is refused.
    #[error("its snapshot cannot be used")]
    Snapshot(#[source] SnapshotError),
    /// The virtual machine cannot be made of it.
    #[error("its virtual machine cannot be restored")]
    Restore(#[source] VmError),
}
