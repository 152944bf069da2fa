//! The store's lock files.

use super::error::StoreError;
use rustix::fs::FlockOperation;
use std::fs::File;
use std::path::Path;

/// Waits for and takes a lock alone; it ends with the file.
pub(super) fn exclusive(path: &Path) -> Result<File, StoreError> {
    let file = open(path)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)
        .map_err(|error| StoreError::io("lock", path)(error.into()))?;
    Ok(file)
}

/// Opens a lock file, making it if there is none.
pub(super) fn open(path: &Path) -> Result<File, StoreError> {
    hullbox_host::paths::open_lock_file(path).map_err(StoreError::io("open", path))
}
