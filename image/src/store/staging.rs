//! Work in progress, who may touch it, and the sweeping up after a killed operation.

use super::{Store, StoreError, lock};
use crate::digest::Digest;
use rustix::fs::FlockOperation;
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Every manifest that an image has, by its name or without one.
pub(super) const MANIFESTS: &str = "
    SELECT id AS image, manifest FROM images WHERE manifest NOT NULL
    UNION SELECT image, manifest FROM names WHERE manifest NOT NULL
    UNION SELECT image, manifest FROM repo_digests WHERE manifest NOT NULL";

/// While one is held, no image is removed: take it before resolving, keep it until the container
/// is on record and the removal hook would report it.
#[derive(Debug)]
pub struct Lease {
    _lock: File,
}

/// A directory of an operation's own, and the promise that nobody sweeps meanwhile.
#[derive(Debug)]
pub(crate) struct Staging {
    path: PathBuf,
    next_file: u32,
    _lock: File,
}

impl Staging {
    fn next_path(&mut self) -> PathBuf {
        let path = self.path.join(self.next_file.to_string());
        self.next_file += 1;
        path
    }

    /// Another name of a staged file.
    pub(crate) fn link(&mut self, file: &Path) -> Result<PathBuf, StoreError> {
        let path = self.next_path();
        std::fs::hard_link(file, &path).map_err(StoreError::io("create", &path))?;
        Ok(path)
    }

    /// A fresh file, for writing and reading, and its path.
    pub(crate) fn create_file(&mut self) -> Result<(File, PathBuf), StoreError> {
        let path = self.next_path();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("create", &path))?;
        Ok((file, path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // On failure the sweeper of the next command tries again.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

impl Store {
    /// Protects images from removal while a container is made from one.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn lease(&self) -> Result<Lease, StoreError> {
        let path = self.use_lock_path();
        let file = lock::open(&path)?;
        rustix::fs::flock(&file, FlockOperation::LockShared)
            .map_err(|error| StoreError::io("lock", &path)(error.into()))?;
        Ok(Lease { _lock: file })
    }

    /// Begins an operation that stages files.
    pub(crate) fn stage(&self) -> Result<Staging, StoreError> {
        let lock_path = self.staging_lock_path();
        let lock = lock::open(&lock_path)?;
        rustix::fs::flock(&lock, FlockOperation::LockShared)
            .map_err(|error| StoreError::io("lock", &lock_path)(error.into()))?;
        let mut attempt = 0;
        loop {
            // With the lock held, whoever had this process id before is gone, but another thread
            // of this process, or a process of another pid namespace, may have the name.
            let name = format!("{}-{attempt}", std::process::id());
            let path = self.staging_path().join(name);
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    return Ok(Staging {
                        path,
                        next_file: 0,
                        _lock: lock,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => attempt += 1,
                Err(error) => return Err(StoreError::io("create", &path)(error)),
            }
        }
    }

    /// Marks that files and rows may disagree from here on; sweeping removes the mark.
    pub(super) fn mark_for_sweep(&self) -> Result<(), StoreError> {
        let path = self.staging_path().join("sweep");
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(StoreError::io("create", &path)(error))
            }
            _ => sync_dir(&self.staging_path()),
        }
    }

    /// Sweeps when something is lying about. One directory read on the start path.
    pub(super) fn sweep_if_needed(&self) -> Result<(), StoreError> {
        let staging = self.staging_path();
        let mut entries = std::fs::read_dir(&staging).map_err(StoreError::io("read", &staging))?;
        if entries.next().is_some() {
            self.try_sweep()?;
        }
        Ok(())
    }

    /// Removes everything no row speaks of, unless an operation is at work: then whoever comes
    /// after it does.
    pub(super) fn try_sweep(&self) -> Result<(), StoreError> {
        match self.try_alone()? {
            Some(_alone) => self.sweep(),
            None => Ok(()),
        }
    }

    pub(super) fn sweep(&self) -> Result<(), StoreError> {
        for (dir, keep) in self.referenced_files()? {
            remove_others(&dir, &keep)?;
        }
        Ok(())
    }

    /// The store's directories and what of them rows speak of. Staging comes last, so that a
    /// sweep that is killed is done again.
    pub(super) fn referenced_files(&self) -> Result<[(PathBuf, HashSet<String>); 4], StoreError> {
        let text = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
        let layers = self.column("SELECT key || '.erofs' FROM layers", text)?;
        let recipes = self.column(
            "SELECT key FROM layers WHERE recipe_bytes IS NOT NULL",
            text,
        )?;
        let blobs = self.column(
            &format!("SELECT id FROM images UNION SELECT manifest FROM ({MANIFESTS})"),
            |row| {
                row.get::<_, [u8; 32]>(0)
                    .map(|bytes| Digest::from_bytes(bytes).hex())
            },
        )?;
        Ok([
            (self.root.join("layers"), layers),
            (self.root.join("recipes"), recipes),
            (self.root.join("blobs/sha256"), blobs),
            (self.staging_path(), HashSet::new()),
        ])
    }

    /// Takes the store for itself if no operation is at work that stages files.
    pub(super) fn try_alone(&self) -> Result<Option<File>, StoreError> {
        let lock_path = self.staging_lock_path();
        let lock = lock::open(&lock_path)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(lock)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(StoreError::io("lock", &lock_path)(error.into())),
        }
    }

    fn column(
        &self,
        sql: &str,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<String>,
    ) -> Result<HashSet<String>, StoreError> {
        let mut statement = self.db.prepare(sql)?;
        let rows = statement.query_map([], read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// Makes renames within `path` last.
pub(super) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(StoreError::io("sync", path))
}

fn remove_others(dir: &Path, keep: &HashSet<String>) -> Result<(), StoreError> {
    for entry in std::fs::read_dir(dir).map_err(StoreError::io("read", dir))? {
        let entry = entry.map_err(StoreError::io("read", dir))?;
        if entry
            .file_name()
            .to_str()
            .is_some_and(|name| keep.contains(name))
        {
            continue;
        }
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_dir {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}
