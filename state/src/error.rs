//! Why the containers' state cannot be read or changed.

use hullbox_host::paths::short_id;
use hullbox_plan::ipam::IpamError;
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
    /// No such network.
    #[error("network {0} not found")]
    NetworkNotFound(String),
    /// An id prefix that fits several networks.
    #[error("network {text} is ambiguous ({count} matches found based on ID prefix)")]
    NetworkAmbiguous {
        /// As typed.
        text: String,
        /// How many.
        count: usize,
    },
    /// The network's name is taken.
    #[error("network with name {0} already exists")]
    NetworkExists(String),
    /// Containers run in it.
    #[error("error while removing network: network {name} id {id} has active endpoints")]
    NetworkActive {
        /// Its name.
        name: String,
        /// Full id.
        id: String,
    },
    /// Of a network, a record that this program did not write.
    #[error("the record of network {name} is damaged")]
    NetworkDamaged {
        /// Of which network.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A network's addresses.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// All addresses of a network are taken.
    #[error(
        "no available IPv{family} addresses on this network's address pools: {name} ({})",
        short_id(id)
    )]
    NoAddress {
        /// 4 or 6.
        family: u8,
        /// The network's name.
        name: String,
        /// Its full id.
        id: String,
    },
    /// A member already.
    #[error("endpoint with name {container} already exists in network {network}")]
    Connected {
        /// The container's name.
        container: String,
        /// The network's name.
        network: String,
    },
    /// No member.
    #[error("container {container} is not connected to network {network}")]
    NotConnected {
        /// The container's id.
        container: String,
        /// The network's.
        network: String,
    },
    /// No such volume.
    #[error("get {0}: no such volume")]
    VolumeNotFound(String),
    /// Containers have it.
    #[error("remove {name}: volume is in use - [{}]", users.join(", "))]
    VolumeInUse {
        /// Its name.
        name: String,
        /// Full ids of the containers.
        users: Vec<String>,
    },
    /// There is one of that name with other options.
    #[error("create {0}: a volume of that name exists with other options: remove it first")]
    VolumeDiffers(String),
    /// Of a volume, a record that this program did not write.
    #[error("the record of volume {name} is damaged")]
    VolumeDamaged {
        /// Of which volume.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The kernel gives no random bytes.
    #[error("cannot make an id")]
    Random {
        /// Why.
        #[source]
        source: io::Error,
    },
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
