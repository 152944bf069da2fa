//! Why the containers' state cannot be read or changed.

use hullbox_host::paths::short_id;
use std::io;
use std::path::{Path, PathBuf};

/// Why the containers' state cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// SQLite failed.
    #[error("the container database failed")]
    Database(#[from] rusqlite::Error),
    /// A newer program wrote it.
    #[error("the container database has version {found}; this program knows up to {known}")]
    Version {
        /// In the file.
        found: i64,
        /// Here.
        known: i64,
    },
    /// A file or directory of the state.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The name is taken.
    #[error("the name {name:?} is already in use by container {}", short_id(id))]
    NameInUse {
        /// The name.
        name: String,
        /// By whom.
        id: String,
    },
    /// No such container.
    #[error("no such container: {0}")]
    NotFound(String),
    /// An id prefix that fits several.
    #[error("{0} fits more than one container")]
    Ambiguous(String),
    /// It runs.
    #[error("container {0} is running")]
    Running(String),
    /// A record that this program did not write.
    #[error("the record of container {id} is damaged")]
    Damaged {
        /// Of which container.
        id: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl StateError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
