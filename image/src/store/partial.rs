//! What pulls have fetched of images that are not complete yet.
//!
//! ```text
//! partial/HEX.lock   locked by whoever fetches this blob, and gone when nobody does
//!         HEX.part   the first bytes of the blob
//!         HEX.done/  the layer made of it, until an image with it is in the store
//! ```
//!
//! HEX is the blob's digest. None of it is trusted: a blob is compared with its digest at its end,
//! and a converted layer counts only until the host is restarted, because it may not be on the disk.

use super::{Store, StoreError, lock, make_dir};
use crate::digest::Digest;
use rustix::fs::FlockOperation;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Partial downloads of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartialUse {
    /// Blobs of which something is there.
    pub count: u64,
    /// Of these, how many are being fetched just now.
    pub active: u64,
    /// Disk space that they take, in bytes.
    pub disk_bytes: u64,
    /// Of this, what belongs to blobs that nobody fetches, in bytes.
    pub reclaimable_bytes: u64,
}

/// The place of partial downloads.
#[derive(Debug, Clone)]
pub(crate) struct Partials {
    dir: PathBuf,
}

/// The right to fetch a blob. Nobody else has it meanwhile.
#[derive(Debug)]
pub(crate) struct BlobLock {
    dir: PathBuf,
    hex: String,
    _lock: File,
}

impl BlobLock {
    /// The blob's first bytes.
    pub(crate) fn part(&self) -> PathBuf {
        self.dir.join(format!("{}.part", self.hex))
    }

    /// The layer made of it.
    pub(crate) fn done(&self) -> PathBuf {
        self.dir.join(format!("{}.done", self.hex))
    }

    /// How many of the blob's bytes are there.
    pub(crate) fn part_bytes(&self) -> u64 {
        self.part().metadata().map_or(0, |metadata| metadata.len())
    }

    /// Gives up the blob's first bytes.
    pub(crate) fn remove_part(&self) -> Result<(), StoreError> {
        gone(std::fs::remove_file(self.part()), &self.part())
    }

    /// Gives up the layer made of it.
    pub(crate) fn remove_done(&self) -> Result<(), StoreError> {
        gone(std::fs::remove_dir_all(self.done()), &self.done())
    }
}

impl Drop for BlobLock {
    fn drop(&mut self) {
        // While it is still locked: who waits for it notices that the file has no name any more.
        let _ = std::fs::remove_file(self.dir.join(format!("{}.lock", self.hex)));
    }
}

impl Partials {
    pub(super) fn of(root: &Path) -> Self {
        Self {
            dir: root.join("partial"),
        }
    }

    /// Makes the directory, where a store has none.
    pub(crate) fn create(&self) -> Result<(), StoreError> {
        make_dir(&self.dir)
    }

    /// Waits until nobody fetches the blob.
    pub(crate) fn lock(&self, blob: &Digest) -> Result<BlobLock, StoreError> {
        loop {
            if let Some(lock) = self.lock_by(&blob.hex(), FlockOperation::LockExclusive)? {
                return Ok(lock);
            }
        }
    }

    /// The right to fetch the blob, unless somebody has it.
    pub(crate) fn try_lock(&self, blob: &Digest) -> Result<Option<BlobLock>, StoreError> {
        self.try_lock_hex(&blob.hex())
    }

    fn try_lock_hex(&self, hex: &str) -> Result<Option<BlobLock>, StoreError> {
        self.lock_by(hex, FlockOperation::NonBlockingLockExclusive)
    }

    /// Nothing, if somebody has the lock or its file was removed while it was waited for.
    fn lock_by(&self, hex: &str, how: FlockOperation) -> Result<Option<BlobLock>, StoreError> {
        let path = self.dir.join(format!("{hex}.lock"));
        let file = lock::open(&path)?;
        match rustix::io::retry_on_intr(|| rustix::fs::flock(&file, how)) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(StoreError::io("lock", &path)(error.into())),
        }
        let ours = file.metadata().map_err(StoreError::io("read", &path))?;
        let is_current = path
            .metadata()
            .is_ok_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino()));
        Ok(is_current.then(|| BlobLock {
            dir: self.dir.clone(),
            hex: hex.to_owned(),
            _lock: file,
        }))
    }

    /// The digests of blobs of which something is there.
    fn blobs(&self) -> Result<BTreeSet<String>, StoreError> {
        let mut blobs = BTreeSet::new();
        for name in self.names()? {
            if let Some((hex, "part" | "done")) = name.split_once('.')
                && Digest::from_hex(hex).is_some()
            {
                blobs.insert(hex.to_owned());
            }
        }
        Ok(blobs)
    }

    /// The names of all that is there.
    fn names(&self) -> Result<Vec<String>, StoreError> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StoreError::io("read", &self.dir)(error)),
        };
        entries
            .map(|entry| {
                let entry = entry.map_err(StoreError::io("read", &self.dir))?;
                Ok(entry.file_name().to_string_lossy().into_owned())
            })
            .collect()
    }

    /// Whether somebody fetches this blob. Does not make a lock file where there is none.
    fn is_active(&self, hex: &str) -> Result<bool, StoreError> {
        let path = self.dir.join(format!("{hex}.lock"));
        Ok(path.exists() && self.try_lock_hex(hex)?.is_none())
    }

    fn disk_bytes(&self, hex: &str) -> u64 {
        let part = self.dir.join(format!("{hex}.part"));
        let done = self.dir.join(format!("{hex}.done"));
        let files = std::fs::read_dir(done).into_iter().flatten().flatten();
        files
            .map(|entry| entry.path())
            .chain([part])
            .map(|path| {
                path.metadata()
                    .map_or(0, |metadata| metadata.blocks() * 512)
            })
            .sum()
    }

    /// Whether a layer made of the blob is there, and how many of its first bytes.
    pub(crate) fn look(&self, blob: &Digest) -> (bool, u64) {
        let path = |kind: &str| self.dir.join(format!("{}.{kind}", blob.hex()));
        let bytes = path("part").metadata().map_or(0, |metadata| metadata.len());
        (path("done").exists(), bytes)
    }

    /// What partial downloads take.
    pub(super) fn usage(&self) -> Result<PartialUse, StoreError> {
        let mut usage = PartialUse::default();
        for hex in self.blobs()? {
            let bytes = self.disk_bytes(&hex);
            let active = self.is_active(&hex)?;
            usage.count += 1;
            usage.active += u64::from(active);
            usage.disk_bytes += bytes;
            if !active {
                usage.reclaimable_bytes += bytes;
            }
        }
        Ok(usage)
    }

    /// Removes what nobody fetches and what was last written before `until`, in seconds since
    /// 1970. Answers how many blobs and how many bytes went.
    pub(super) fn prune(&self, until: Option<i64>) -> Result<(u64, u64), StoreError> {
        let (mut count, mut bytes) = (0, 0);
        for hex in self.blobs()? {
            if until.is_some_and(|until| self.written_at(&hex) >= until) {
                continue;
            }
            let Some(lock) = self.try_lock_hex(&hex)? else {
                continue;
            };
            bytes += self.disk_bytes(&hex);
            count += 1;
            lock.remove_part()?;
            lock.remove_done()?;
        }
        if until.is_none() {
            self.remove_strays()?;
        }
        Ok((count, bytes))
    }

    fn written_at(&self, hex: &str) -> i64 {
        ["part", "done"]
            .iter()
            .filter_map(|kind| self.dir.join(format!("{hex}.{kind}")).metadata().ok())
            .map(|metadata| metadata.mtime())
            .max()
            .unwrap_or(i64::MIN)
    }

    /// Files that are no part of any download, or locks that nobody holds.
    pub(super) fn strays(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut strays = Vec::new();
        for name in self.names()? {
            let known = match name.split_once('.') {
                Some((hex, "part" | "done")) => Digest::from_hex(hex).is_some(),
                Some((hex, "lock")) => Digest::from_hex(hex).is_some() && self.is_active(hex)?,
                _ => false,
            };
            let path = self.dir.join(name);
            // Looking at a lock that nobody held has removed it.
            if !known && path.symlink_metadata().is_ok() {
                strays.push(path);
            }
        }
        Ok(strays)
    }

    pub(super) fn remove_strays(&self) -> Result<(), StoreError> {
        for path in self.strays()? {
            let removed = if path.is_dir() && !path.is_symlink() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
            gone(removed, &path)?;
        }
        Ok(())
    }
}

impl Store {
    /// What pulls have left that were broken off, or are at work on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn partial_use(&self) -> Result<PartialUse, StoreError> {
        self.partials().usage()
    }

    pub(crate) fn partials(&self) -> Partials {
        Partials::of(&self.root)
    }
}

fn gone(removed: io::Result<()>, path: &Path) -> Result<(), StoreError> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
