//! Why the store cannot be used.

use std::io;
use std::path::{Path, PathBuf};

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refused an operation on a file of the store.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// SQLite refused.
    #[error("the image index failed")]
    Index(#[from] rusqlite::Error),
    /// A newer program wrote the index.
    #[error(
        "the image index has version {found}, this program knows {known}: it was written by a newer hullbox"
    )]
    TooNew {
        /// Version of the index.
        found: u32,
        /// Highest version this program knows.
        known: u32,
    },
    /// A row holds what was never written there.
    #[error("the image index is damaged: {0}")]
    Damaged(&'static str),
}

impl StoreError {
    /// For `map_err` on an operation on `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}
