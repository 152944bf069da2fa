//! The lock of a container that is being made or runs.

use crate::error::StateError;
use hullbox_host::paths::{self, Roots};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// What the lock of one living container is taken on. Whoever inherits the file, before the lock
/// is taken or after, keeps the container alive.
#[derive(Debug)]
pub struct LifeLock {
    pub(crate) file: File,
}

impl LifeLock {
    /// Opens the lock file anew; nothing is locked yet.
    ///
    /// # Errors
    /// The lock file cannot be opened.
    pub fn open(roots: &Roots) -> Result<Self, StateError> {
        open_lock_file(&lock_path(roots)).map(|file| Self { file })
    }

    /// The same open file once more, to hand to the monitor.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn share(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

/// Who is about to start a container.
#[derive(Debug, Clone, Copy)]
pub struct Starter<'a> {
    /// The container's lock, until the monitor alone holds it.
    pub lock: &'a LifeLock,
    /// The monitor's process: on record before it runs anything, so that it can be told to end.
    pub monitor_pid: u32,
}

pub(crate) fn lock_path(roots: &Roots) -> PathBuf {
    roots.data.join("containers.lock")
}

pub(crate) fn open_lock_file(path: &Path) -> Result<File, StateError> {
    paths::open_lock_file(path).map_err(StateError::io("open", path))
}
