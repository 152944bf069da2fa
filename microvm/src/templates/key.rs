//! The secret that makes a data directory's snapshots its own.

use super::error::TemplateError;
use super::files::{directory, lock};
use hullbox_vmm::SnapshotKey;
use rustix::rand::{GetRandomFlags, getrandom};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

fn path(data: &Path) -> PathBuf {
    directory(data).join("key")
}

/// The secret, which must be there.
pub(super) fn read(data: &Path) -> Result<SnapshotKey, TemplateError> {
    let path = path(data);
    read_at(&path).map_err(|source| TemplateError::Key { path, source })
}

fn read_at(path: &Path) -> io::Result<SnapshotKey> {
    let mut file = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)?;
    let metadata = file.metadata()?;
    let own = metadata.uid() == rustix::process::geteuid().as_raw();
    if !metadata.is_file() || metadata.mode() & 0o077 != 0 || !own {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it is not private to this user",
        ));
    }
    let mut bytes = [0; SnapshotKey::LEN];
    file.read_exact(&mut bytes)?;
    Ok(SnapshotKey::new(bytes))
}

/// The secret, made if it is missing. Its caller holds the lock.
pub(super) fn read_or_make(data: &Path) -> Result<SnapshotKey, TemplateError> {
    let path = path(data);
    match read_at(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other.map_err(|source| TemplateError::Key { path, source }),
    }
    make(&path)
        .and_then(|()| read_at(&path))
        .map_err(|source| TemplateError::Key { path, source })
}

fn make(path: &Path) -> io::Result<()> {
    let mut bytes = [0; SnapshotKey::LEN];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    let staged = path.with_extension("staging");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&staged)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&staged, path)
}

/// The secret that makes a data directory's snapshots its own, made if there is none.
pub(crate) fn secret(data: &Path) -> Result<SnapshotKey, TemplateError> {
    match read(data) {
        Err(TemplateError::Key { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let _lock = lock(data, true).map_err(|error| TemplateError::Key {
                path: directory(data),
                source: io::Error::other(error),
            })?;
            read_or_make(data)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::make_directory;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_secret_is_made_once_and_is_private() {
        let data = tempfile::tempdir().unwrap();
        make_directory(data.path()).unwrap();
        assert!(read(data.path()).is_err());
        read_or_make(data.path()).unwrap();
        let path = path(data.path());
        let first = fs::read(&path).unwrap();
        assert_ne!(first, [0; 32]);
        read_or_make(data.path()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), first);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(data.path()).is_err());
        assert!(read_or_make(data.path()).is_err());
    }
}
