//! Saving a guest, in the process that runs it.

use super::error::{SavedGuestError, file_error};
use super::restore::origin;
use crate::disk::clone_sparse_unless;
use crate::templates;
use hullbox_backend::saving::{DESCRIPTION_FILE, Description};
use hullbox_host::paths::DISK_FILE;
use hullbox_vmm::{RunningVm, SaveError, Unsealed};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a guest whose workload is frozen may take to come to rest.
const REST_LIMIT: Duration = Duration::from_secs(10);

/// What is to be saved, and where.
#[derive(Debug)]
pub(crate) struct Work {
    /// An empty directory.
    pub(crate) dir: PathBuf,
    /// The data directory, whose secret it is sealed with.
    pub(crate) data: PathBuf,
    /// The container's own disk, if it has one.
    pub(crate) disk: Option<PathBuf>,
    pub(crate) about: Description,
}

impl Work {
    /// Has the guest stand still while what changes is written down.
    pub(crate) fn write(
        &self,
        running: &mut RunningVm,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Unsealed, SavedGuestError> {
        let written = running
            .pause_at_rest_unless(REST_LIMIT, cancelled)
            .map_err(SavedGuestError::Save)
            .and_then(|()| self.write_at_rest(running, cancelled));
        running.resume();
        written
    }

    fn write_at_rest(
        &self,
        running: &mut RunningVm,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Unsealed, SavedGuestError> {
        if let Some(disk) = &self.disk {
            let copy = self.dir.join(DISK_FILE);
            clone_sparse_unless(disk, &copy, cancelled).map_err(file_error(&copy))?;
        }
        running
            .write_down(&self.dir, cancelled)
            .map_err(SavedGuestError::Save)
    }

    /// Makes a snapshot of that. The guest goes on meanwhile.
    pub(crate) fn seal(&self, unsealed: Unsealed) -> Result<(), SavedGuestError> {
        let about = serde_json::to_vec(&self.about).map_err(SavedGuestError::Description)?;
        write_file(&self.dir.join(DESCRIPTION_FILE), &about)?;
        let key = templates::secret(&self.data)?;
        unsealed
            .seal(&key, origin(&about), &[DISK_FILE])
            .map_err(|error| SavedGuestError::Save(SaveError::Write(error)))
    }
}

fn write_file(path: &Path, contents: &[u8]) -> Result<(), SavedGuestError> {
    let write = || {
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(contents)?;
        file.sync_all()
    };
    write().map_err(file_error(path))
}
