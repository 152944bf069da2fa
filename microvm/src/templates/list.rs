//! Looking at templates, and removing them.

use super::build::About;
use super::files::{LockError, directory, lock, place};
use super::template::origin;
use hullbox_backend::bundle::GuestSize;
use hullbox_host::paths::directories_in;
use serde::Serialize;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A template, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its key.
    pub id: String,
    /// Virtual CPUs of its guests; 0 if it does not say.
    pub vcpus: u8,
    /// Memory of its guests, in MiB.
    pub memory_mib: u32,
    /// When it was made, in seconds since 1970.
    pub made_s: u64,
    /// What it takes on the disk, in bytes.
    pub disk_bytes: u64,
    /// Whether guests begin there; otherwise it is of another kernel, host or version, or what a
    /// killed builder left.
    pub current: bool,
}

/// Why templates cannot be listed or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// A file or directory.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The lock.
    #[error("cannot lock the templates")]
    Lock(#[source] LockError),
    /// No template has an id that begins so, or several have.
    #[error("{} template has an id that begins with {prefix}", if *.found == 0 { "no" } else { "more than one" })]
    Unknown {
        /// What was asked for.
        prefix: String,
        /// How many there are.
        found: usize,
    },
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> ListError {
    let path = path.to_owned();
    move |source| ListError::File { path, source }
}

/// All templates, in the order of their ids.
///
/// # Errors
/// [`ListError::File`].
pub fn list(data: &Path) -> Result<Vec<Listed>, ListError> {
    let dir = directory(data);
    let all = directories_in(&dir).map_err(file_error(&dir))?;
    Ok(all.iter().map(|dir| look_at(dir, data)).collect())
}

fn look_at(dir: &Path, data: &Path) -> Listed {
    let id = dir.file_name().unwrap_or_default().to_string_lossy();
    let about = fs::read(dir.join("about.json")).ok();
    let about = about.and_then(|text| serde_json::from_slice::<About>(&text).ok());
    let sizes = ["memory", "state"].map(|name| {
        fs::metadata(dir.join(name)).map_or(0, |metadata| metadata.blocks().saturating_mul(512))
    });
    let current = about.as_ref().is_some_and(|about| {
        let size = GuestSize {
            vcpus: about.vcpus,
            memory_mib: about.memory_mib,
            disks: about.disks,
        };
        origin(size, data).is_ok_and(|origin| place(&origin, data) == dir)
    });
    Listed {
        id: id.into_owned(),
        vcpus: about.as_ref().map_or(0, |about| about.vcpus),
        memory_mib: about.as_ref().map_or(0, |about| about.memory_mib),
        made_s: about.as_ref().map_or(0, |about| about.made_s),
        disk_bytes: sizes.iter().sum(),
        current,
    }
}

/// Removes the template whose id begins so, and tells its id. Guests that began there run on.
///
/// # Errors
/// [`ListError`].
pub fn remove(prefix: &str, data: &Path) -> Result<String, ListError> {
    let _lock = lock(data, true).map_err(ListError::Lock)?;
    let mut found: Vec<_> = list(data)?
        .into_iter()
        .map(|one| one.id)
        .filter(|id| !prefix.is_empty() && id.starts_with(prefix))
        .collect();
    match (found.pop(), found.len()) {
        (Some(id), 0) => {
            delete(&directory(data).join(&id))?;
            Ok(id)
        }
        (last, others) => Err(ListError::Unknown {
            prefix: prefix.to_owned(),
            found: others + usize::from(last.is_some()),
        }),
    }
}

/// Removes what is stale, or everything, and tells what that was.
///
/// # Errors
/// [`ListError`].
pub fn prune(all: bool, data: &Path) -> Result<Vec<Listed>, ListError> {
    let _lock = lock(data, true).map_err(ListError::Lock)?;
    let mut stale = list(data)?;
    stale.retain(|one| all || !one.current);
    // What was tried in vain may be tried again.
    for entry in fs::read_dir(directory(data))
        .into_iter()
        .flatten()
        .flatten()
    {
        if entry.path().extension().is_some_and(|end| end == "failed") {
            // One that stays is looked at for an hour at most.
            let _ = fs::remove_file(entry.path());
        }
    }
    for one in &stale {
        delete(&directory(data).join(&one.id))?;
    }
    Ok(stale)
}

/// Removes the template with this id, whose guest was of no use, unless somebody is at work on
/// templates just now.
///
/// # Errors
/// [`ListError`].
pub(crate) fn discard(id: &str, data: &Path) -> Result<(), ListError> {
    match lock(data, false).map_err(ListError::Lock)? {
        Some(_lock) => delete(&directory(data).join(id)),
        None => Ok(()),
    }
}

/// Out of sight at once, then away: nobody meets half a template.
fn delete(dir: &Path) -> Result<(), ListError> {
    let doomed = dir.with_extension("staging");
    if doomed != dir {
        // Left by somebody who was killed.
        let _ = fs::remove_dir_all(&doomed);
        fs::rename(dir, &doomed).map_err(file_error(dir))?;
    }
    fs::remove_dir_all(&doomed).map_err(file_error(&doomed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stale_is_listed_and_pruned() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        assert_eq!(list(data).unwrap(), []);
        assert!(prune(false, data).unwrap().is_empty());
        let dir = directory(data);
        for name in ["aa11", "aa22", "bb33.staging"] {
            fs::create_dir(dir.join(name)).unwrap();
            fs::write(dir.join(name).join("memory"), [1; 10_000]).unwrap();
            // Of a shape that no guest has.
            fs::write(dir.join(name).join("about.json"), "{\"vcpus\":true}").unwrap();
        }
        fs::write(dir.join("cc44.failed"), "").unwrap();
        let all = list(data).unwrap();
        let ids: Vec<_> = all.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids, ["aa11", "aa22", "bb33.staging"]);
        assert!(
            all.iter()
                .all(|one| !one.current && one.disk_bytes >= 10_000)
        );

        let refused = |prefix: &str, wanted: usize| {
            let error = remove(prefix, data).unwrap_err();
            assert!(
                matches!(error, ListError::Unknown { found, .. } if found == wanted),
                "{error}"
            );
        };
        refused("aa", 2);
        refused("cc", 0);
        refused("", 0);
        refused("../", 0);
        assert_eq!(remove("aa2", data).unwrap(), "aa22");
        assert_eq!(prune(false, data).unwrap().len(), 2);
        let left: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["lock"]);
    }
}
