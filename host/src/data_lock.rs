//! Who uses a data directory: one helper machine, or any number of processes of this host.

use crate::paths::open_lock_file;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// A hold on a data directory: by the machine alone, or by any number of direct users.
#[derive(Debug)]
pub struct DataLock {
    file: File,
}

impl DataLock {
    /// Where the lock of a data directory is.
    #[must_use]
    pub fn path(data: &Path) -> PathBuf {
        data.join("machine").join("lock")
    }

    fn open(data: &Path) -> io::Result<File> {
        let path = Self::path(data);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        open_lock_file(&path)
    }

    /// Holds the directory for direct use, `None` while a machine has it.
    ///
    /// # Errors
    /// The lock file cannot be used.
    pub fn try_shared(data: &Path) -> io::Result<Option<Self>> {
        Self::try_lock(data, FlockOperation::NonBlockingLockShared)
    }

    /// Holds the directory for a machine, `None` while anybody has it.
    ///
    /// # Errors
    /// The lock file cannot be used.
    pub fn try_exclusive(data: &Path) -> io::Result<Option<Self>> {
        Self::try_lock(data, FlockOperation::NonBlockingLockExclusive)
    }

    fn try_lock(data: &Path, operation: FlockOperation) -> io::Result<Option<Self>> {
        let file = Self::open(data)?;
        match flock(&file, operation) {
            Ok(()) => Ok(Some(Self { file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The lock's descriptor: whoever inherits it holds the lock too.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_excludes_direct_users() {
        let dir = std::env::temp_dir().join(format!("hullbox-datalock-{}", std::process::id()));
        let one = DataLock::try_shared(&dir).unwrap().unwrap();
        let two = DataLock::try_shared(&dir).unwrap().unwrap();
        assert!(DataLock::try_exclusive(&dir).unwrap().is_none());
        drop((one, two));
        let machine = DataLock::try_exclusive(&dir).unwrap().unwrap();
        let inherited = machine.file().try_clone().unwrap();
        drop(machine);
        assert!(DataLock::try_shared(&dir).unwrap().is_none());
        drop(inherited);
        assert!(DataLock::try_shared(&dir).unwrap().is_some());
        fs::remove_dir_all(dir).unwrap();
    }
}
