//! What is served.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Most exports of one server.
pub const MAX_EXPORTS: usize = 256;

/// A directory or a file to serve. It has its number in the list of exports for a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// Absolute path. What is there when the server starts is served, whatever is there later.
    pub source: PathBuf,
    /// What of the source is served, relative to it; all of it if this is empty. Links on the way, which may
    /// be a guest's, do not lead out of the source.
    pub subpath: PathBuf,
    /// It is a path of the host outside, and this is the helper machine.
    pub outside: bool,
    /// Nothing can be changed; the mount itself sees to it.
    pub read_only: bool,
    /// What is mounted below the source comes along. Otherwise mount points below it are empty, except
    /// for an ordinary user, from whom the kernel keeps what lies under them.
    pub recursive: bool,
    /// It is a volume: an ordinary user's server keeps the guest's owners and modes beside its files.
    /// Root's has no need to.
    pub volume: bool,
    /// Nobody else uses these files as long as they are served, so that the guest may believe what it
    /// knows, and write later.
    pub exclusive: bool,
    /// The guest's user that an ordinary user's own files belong to, unless it is a volume.
    pub user: u32,
    /// The same of the group.
    pub group: u32,
}

impl Export {
    /// A writable export of whatever is there, whose owner is the guest's root.
    #[must_use]
    pub fn of(source: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            subpath: PathBuf::new(),
            outside: false,
            read_only: false,
            recursive: true,
            volume: false,
            exclusive: false,
            user: 0,
            group: 0,
        }
    }
}
