//! Snapshots by name: running containers in microVMs, saved to go on from there any number of times.
//!
//! ```text
//! snapshots/lock      held by the one who makes or removes a snapshot
//! snapshots/NAME/     one snapshot: memory, state (see hullbox_vmm::Snapshot), disk.ext4, about.json
//! snapshots/.NAME/    one that is being made or removed, or was when somebody was killed
//! ```
//!
//! The state is sealed with the secret of the data directory and names the other files by their
//! times of change and contents: who edits any of them makes a snapshot that is refused. A copy, or
//! one that came back from a backup, is as good as the original.

use hullbox_backend::saving::DESCRIPTION_FILE;
use hullbox_host::paths::{directories_in, ensure_private_dir, open_lock_file};
use hullbox_model::value::ValueError;
use hullbox_plan::{ContainerSpec, names};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What a snapshot is of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct About {
    /// Full id of the container that was saved.
    pub container_id: String,
    /// Its name.
    pub container_name: String,
    /// Its image's id, with the algorithm.
    pub image_id: String,
    /// Its image as it was named.
    pub image_ref: String,
    /// When, in seconds since 1970.
    pub created_s: i64,
    /// Its guest has both disks, whether there is something behind them or not.
    pub both_disks: bool,
    /// The container.
    pub spec: ContainerSpec,
}

/// A snapshot, as people see it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What it is of, if it says so.
    pub about: Option<About>,
    /// What it takes on the disk, in bytes.
    pub disk_bytes: u64,
}

/// Why a snapshot cannot be made, used or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotsError {
    /// Not a name.
    #[error("invalid snapshot name {name:?}")]
    Name {
        /// As typed.
        name: String,
        /// Why.
        #[source]
        source: ValueError,
    },
    /// There is one already.
    #[error("there is a snapshot {0:?} already")]
    InUse(String),
    /// There is none.
    #[error("no such snapshot: {0}")]
    NotFound(String),
    /// A file or directory.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not say what it is of.
    #[error("its description cannot be understood")]
    About(#[source] serde_json::Error),
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> SnapshotsError {
    let path = path.to_owned();
    move |source| SnapshotsError::File { path, source }
}

fn directory(data: &Path) -> PathBuf {
    data.join("snapshots")
}

fn check_name(name: &str) -> Result<(), SnapshotsError> {
    names::check(name).map_err(|source| SnapshotsError::Name {
        name: name.to_owned(),
        source,
    })
}

/// Where the snapshot of this name is.
///
/// # Errors
/// [`SnapshotsError::NotFound`] among others.
pub fn find(name: &str, data: &Path) -> Result<PathBuf, SnapshotsError> {
    check_name(name)?;
    let dir = directory(data).join(name);
    if dir.is_dir() {
        Ok(dir)
    } else {
        Err(SnapshotsError::NotFound(name.to_owned()))
    }
}

/// The right to change what is in the directory of snapshots. What somebody left half done is gone
/// then.
fn lock(data: &Path) -> Result<File, SnapshotsError> {
    let dir = directory(data);
    ensure_private_dir(&dir)
        .map_err(io::Error::other)
        .map_err(file_error(&dir))?;
    let path = dir.join("lock");
    let file = open_lock_file(&path).map_err(file_error(&path))?;
    flock(&file, FlockOperation::LockExclusive)
        .map_err(io::Error::from)
        .map_err(file_error(&path))?;
    for half in unfinished(data) {
        fs::remove_dir_all(&half).map_err(file_error(&half))?;
    }
    Ok(file)
}

/// Directories that somebody left behind who was killed, and whether they were removed. None while
/// somebody is at work.
#[must_use]
pub fn abandoned(data: &Path, repair: bool) -> Vec<(PathBuf, bool)> {
    let free = |lock: &File| flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok();
    let lock = File::open(directory(data).join("lock")).ok().filter(free);
    let Some(_held) = lock else {
        return Vec::new();
    };
    let settle = |path: PathBuf| {
        let gone = repair && fs::remove_dir_all(&path).is_ok();
        (path, gone)
    };
    unfinished(data).into_iter().map(settle).collect()
}

/// What somebody left who was killed; without the lock, perhaps what somebody is at.
fn unfinished(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory(data)).into_iter().flatten();
    let hidden = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name.as_encoded_bytes().starts_with(b".")
    };
    entries.flatten().map(|e| e.path()).filter(hidden).collect()
}

/// A snapshot that is being made. Dropped before it is finished, it is gone.
#[derive(Debug)]
pub struct Draft {
    staged: PathBuf,
    place: PathBuf,
    _lock: File,
}

impl Draft {
    /// An empty one under this name.
    ///
    /// # Errors
    /// [`SnapshotsError`].
    pub fn begin(name: &str, data: &Path) -> Result<Self, SnapshotsError> {
        check_name(name)?;
        let lock = lock(data)?;
        let place = directory(data).join(name);
        if place.exists() {
            return Err(SnapshotsError::InUse(name.to_owned()));
        }
        let staged = directory(data).join(format!(".{name}"));
        DirBuilder::new()
            .mode(0o700)
            .create(&staged)
            .map_err(file_error(&staged))?;
        Ok(Self {
            staged,
            place,
            _lock: lock,
        })
    }

    /// Where its files are to be written.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.staged
    }

    /// Puts it in its place.
    ///
    /// # Errors
    /// [`SnapshotsError::File`].
    pub fn finish(self) -> Result<(), SnapshotsError> {
        let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
        sync(&self.staged).map_err(file_error(&self.staged))?;
        fs::rename(&self.staged, &self.place).map_err(file_error(&self.place))?;
        let parent = self.place.parent().unwrap_or(&self.place);
        sync(parent).map_err(file_error(parent))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Finished, it is there no longer. The next one cleans up what stays.
        let _ = fs::remove_dir_all(&self.staged);
    }
}

/// What a snapshot is of.
///
/// # Errors
/// [`SnapshotsError`].
pub fn about(dir: &Path) -> Result<About, SnapshotsError> {
    let path = dir.join(DESCRIPTION_FILE);
    let text = fs::read(&path).map_err(file_error(&path))?;
    serde_json::from_slice(&text).map_err(SnapshotsError::About)
}

/// All snapshots, in the order of their names.
///
/// # Errors
/// [`SnapshotsError::File`].
pub fn list(data: &Path) -> Result<Vec<Listed>, SnapshotsError> {
    let dir = directory(data);
    let mut all = Vec::new();
    for dir in directories_in(&dir).map_err(file_error(&dir))? {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        let files = fs::read_dir(&dir).into_iter().flatten().flatten();
        let blocks = files.filter_map(|file| file.metadata().ok().map(|found| found.blocks()));
        all.push(Listed {
            name: name.into_owned(),
            about: about(&dir).ok(),
            disk_bytes: blocks.sum::<u64>().saturating_mul(512),
        });
    }
    Ok(all)
}

/// Removes a snapshot. Containers that began there run on.
///
/// # Errors
/// [`SnapshotsError`].
pub fn remove(name: &str, data: &Path) -> Result<(), SnapshotsError> {
    find(name, data)?;
    let _lock = lock(data)?;
    let dir = find(name, data)?;
    // Out of sight at once: nobody meets half a snapshot.
    let doomed = directory(data).join(format!(".{name}"));
    fs::rename(&dir, &doomed).map_err(file_error(&dir))?;
    fs::remove_dir_all(&doomed).map_err(file_error(&doomed))
}

/// Names of the snapshots that need this image.
#[must_use]
pub fn of_image(image_id: &str, data: &Path) -> Vec<String> {
    let all = list(data).unwrap_or_default();
    let is_its = |one: &Listed| {
        let about = one.about.as_ref();
        about.is_none_or(|about| about.image_id == image_id)
    };
    all.into_iter().filter(is_its).map(|one| one.name).collect()
}

#[cfg(test)]
mod tests;
