//! Saving a guest, in the process that runs it.

use super::{ABOUT, About, SnapshotsError, file_error, origin};
use crate::paths::DISK_FILE;
use crate::templates;
use crate::vm;
use hullbox_vmm::RunningVm;
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
    pub(crate) about: About,
}

impl Work {
    /// Has the guest stand still while it is written down.
    pub(crate) fn save(&self, running: &mut RunningVm) -> Result<(), SnapshotsError> {
        let saved = running
            .pause_at_rest(REST_LIMIT)
            .map_err(SnapshotsError::Save)
            .and_then(|()| self.write(running));
        running.resume();
        saved
    }

    fn write(&self, running: &mut RunningVm) -> Result<(), SnapshotsError> {
        if let Some(disk) = &self.disk {
            let copy = self.dir.join(DISK_FILE);
            vm::copy_disk(disk, &copy).map_err(file_error(&copy))?;
            let file = File::open(&copy).and_then(|file| file.sync_all());
            file.map_err(file_error(&copy))?;
        }
        let about = serde_json::to_vec(&self.about).map_err(SnapshotsError::About)?;
        write_file(&self.dir.join(ABOUT), &about)?;
        let key = templates::secret(&self.data)?;
        let origin = origin(&about);
        running
            .save(&self.dir, &key, origin, &[DISK_FILE])
            .map_err(SnapshotsError::Save)
    }
}

fn write_file(path: &Path, contents: &[u8]) -> Result<(), SnapshotsError> {
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
