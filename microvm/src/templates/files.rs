//! Where templates are, and who may change them.

use hullbox_host::paths::{ensure_private_dir, open_lock_file};
use hullbox_vmm::Origin;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The templates cannot be locked.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {}", path.display())]
pub struct LockError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

pub(super) fn directory(data: &Path) -> PathBuf {
    data.join("templates")
}

/// The directory of the template with this origin.
pub(super) fn place(origin: &Origin, data: &Path) -> PathBuf {
    let mut name = String::with_capacity(32);
    for byte in &origin[..16] {
        name.push_str(&format!("{byte:02x}"));
    }
    directory(data).join(name)
}

/// Makes the directory of all templates.
pub(super) fn make_directory(data: &Path) -> io::Result<()> {
    ensure_private_dir(&directory(data)).map_err(io::Error::other)
}

fn lock_error(path: &Path) -> impl FnOnce(io::Error) -> LockError {
    let path = path.to_owned();
    move |source| LockError { path, source }
}

/// Takes the right to change what is in the directory of templates.
pub(super) fn lock(data: &Path, wait: bool) -> Result<Option<File>, LockError> {
    let path = directory(data);
    make_directory(data).map_err(lock_error(&path))?;
    let path = path.join("lock");
    let file = open_lock_file(&path).map_err(lock_error(&path))?;
    let operation = if wait {
        FlockOperation::LockExclusive
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    match flock(&file, operation) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::AGAIN) => Ok(None),
        Err(errno) => Err(lock_error(&path)(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_names_of_directories() {
        let origin = [0xab; 32];
        let dir = place(&origin, Path::new("/data"));
        assert_eq!(dir, Path::new("/data/templates").join("ab".repeat(16)));
    }
}
