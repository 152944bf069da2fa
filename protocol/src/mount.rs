//! What is mounted in a container beside its root: files from outside, and memory.

use crate::spec::{Setup, TmpfsMount};
use serde::{Deserialize, Serialize};

/// The tag of the guest's file server (virtio 1.2, section 5.11.4). In its root each export has its
/// number for a name.
pub const FILES_TAG: &str = "files";

/// Files from outside the container, seen in it at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMount {
    /// What is mounted.
    pub source: FileSource,
    /// Absolute path in the container.
    pub target: String,
    /// What is mounted is a directory; otherwise one file.
    pub directory: bool,
    /// Nothing can be written there. Whoever serves the files sees to it, too.
    pub read_only: bool,
    /// If it is empty, it gets what the image has at the target, and its owner and mode.
    pub copy_up: bool,
}

/// What a [`FileMount`] shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileSource {
    /// An export of the guest's file server, by number.
    Export(u32),
    /// The ext4 file system of a block device, counted from the first behind the writable layer's.
    Disk(u32),
}

/// One mount of a [`Setup`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnyMount<'a> {
    /// `--tmpfs`.
    Tmpfs(&'a TmpfsMount),
    /// `--volume`, `--mount`.
    Files(&'a FileMount),
}

impl AnyMount<'_> {
    /// Absolute path in the container.
    #[must_use]
    pub fn target(&self) -> &str {
        match self {
            Self::Tmpfs(mount) => &mount.path,
            Self::Files(mount) => &mount.target,
        }
    }
}

impl Setup {
    /// All mounts, each behind those that it lies in.
    #[must_use]
    pub fn mounts_in_order(&self) -> Vec<AnyMount<'_>> {
        let tmpfs = self.tmpfs.iter().map(AnyMount::Tmpfs);
        let files = self.mounts.iter().map(AnyMount::Files);
        let mut all: Vec<_> = tmpfs.chain(files).collect();
        all.sort_by_key(|mount| depth(mount.target()));
        all
    }
}

fn depth(path: &str) -> usize {
    let names = path.split('/');
    names
        .filter(|name| !name.is_empty() && *name != ".")
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_comes_behind_what_it_lies_in_and_otherwise_as_typed() {
        let files = |target: &str| FileMount {
            source: FileSource::Export(0),
            target: target.into(),
            directory: true,
            read_only: false,
            copy_up: false,
        };
        let setup = Setup {
            tmpfs: vec![TmpfsMount {
                path: "/w/data/tmp/".into(),
                options: String::new(),
            }],
            mounts: vec![files("/w//data"), files("/z"), files("/w"), files("/")],
            ..Setup::default()
        };
        let order = setup.mounts_in_order();
        let targets: Vec<_> = order.iter().map(AnyMount::target).collect();
        assert_eq!(targets, ["/", "/z", "/w", "/w//data", "/w/data/tmp/"]);
    }
}
