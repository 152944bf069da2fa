//! The machine's data disk: one sparse ext4 image that stands for the data directory, so that
//! databases, overlays and loop devices in it see a real filesystem of the machine's own kernel.

use super::plan::find_program;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why there is no data disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The formatting program is missing.
    #[error("mke2fs was not found; install the package e2fsprogs")]
    NoMke2fs,
    /// It failed.
    #[error("cannot format the machine's data disk: {0}")]
    Format(String),
    /// The image cannot be made.
    #[error("cannot make the machine's data disk {}", path.display())]
    Io {
        /// The image.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Makes the image unless it is there. Whoever is killed meanwhile leaves only a staged file,
/// which the next one replaces; the caller holds the machine's lock.
///
/// # Errors
/// [`DiskError`].
pub fn ensure(path: &Path, size_gib: u32) -> Result<(), DiskError> {
    if path.exists() {
        return Ok(());
    }
    let io_error = |source| DiskError::Io {
        path: path.to_owned(),
        source,
    };
    let program = find_program("mke2fs", &[]).ok_or(DiskError::NoMke2fs)?;
    let staged = path.with_extension("new");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&staged)
        .map_err(io_error)?;
    file.set_len(u64::from(size_gib) << 30).map_err(io_error)?;
    // Of the machine's root, whoever's the machine is.
    let options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0";
    let output = Command::new(program)
        .args(["-q", "-F", "-t", "ext4", "-m", "0", "-E", options])
        .arg(&staged)
        .stdin(Stdio::null())
        .output()
        .map_err(io_error)?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(DiskError::Format(words));
    }
    file.sync_all().map_err(io_error)?;
    fs::rename(&staged, path).map_err(io_error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_new_disk_is_sparse() {
        let dir = std::env::temp_dir().join(format!("hullbox-disk-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("data.ext4");
        ensure(&path, 4).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(meta.len(), 4 << 30);
        assert!(meta.blocks() * 512 < 200 << 20);
        assert_eq!(meta.mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(dir).unwrap();
    }
}
