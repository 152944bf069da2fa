//! The blocks of the writable disk that ext4 gives to nobody, lent to whoever mounts it.
//!
//! ext4 keeps some back, lest writing into what was allocated before needs a block and finds none
//! (`reserved_clusters` in the kernel's Documentation/ABI/testing/sysfs-fs-ext4). What a workload
//! writes never gets them, so they are there when everything else is full.

use super::sysfs;
use rustix::fs::OFlags;
use rustix::io::{Errno, pread, pwrite};
use std::os::fd::OwnedFd;

const FILE: &str = "fs/ext4/vdb/reserved_clusters";

/// Blocks that are lent: overlayfs makes two directories and renames a file. Most of them come
/// back, because it begins with removing those of the last time.
const LENT: u64 = 16;

/// Blocks are lent for as long as it lives.
#[derive(Debug)]
pub(super) struct Lent {
    file: OwnedFd,
    kept: u64,
}

impl Lent {
    /// Lends them.
    pub(super) fn take() -> Result<Self, Errno> {
        let file = sysfs::open(FILE, OFlags::RDWR)?;
        let mut text = [0; 32];
        let length = pread(&file, &mut text, 0)?;
        let kept = std::str::from_utf8(&text[..length]).map_err(|_| Errno::INVAL)?;
        let kept = kept.trim().parse::<u64>().map_err(|_| Errno::INVAL)?;
        let lent = Self { file, kept };
        lent.keep(kept.saturating_sub(LENT))?;
        Ok(lent)
    }

    fn keep(&self, blocks: u64) -> Result<(), Errno> {
        pwrite(&self.file, blocks.to_string().as_bytes(), 0).map(drop)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // A number that it had before is one that it takes.
        let _ = self.keep(self.kept);
    }
}
