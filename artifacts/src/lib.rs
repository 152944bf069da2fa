//! The guest kernel, its initramfs, the empty disk and the benchmark's probe: embedded in the
//! program, unpacked once.
//!
//! A file is unpacked into the data directory under a name that holds its hash, staged and
//! renamed, so that it is whole whenever it is there; a newer program unpacks its own beside it.
#![forbid(unsafe_code)]

use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

struct Embedded {
    name: &'static str,
    hash: &'static str,
    len: u64,
    /// Offset and length of what is not a hole, ascending.
    extents: &'static [(u64, u64)],
    /// The extents, one after the other.
    zstd: &'static [u8],
}

const EMBEDDED: &[Embedded] = include!(concat!(env!("OUT_DIR"), "/artifacts.rs"));

/// What a microVM is started from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Artifact {
    /// The uncompressed kernel image.
    Kernel,
    /// The initramfs: the guest agent and nothing else.
    Initramfs,
    /// An empty ext4 filesystem, sparse.
    EmptyDisk,
    /// The static program that `bench` runs behind every wall.
    Probe,
}

impl Artifact {
    const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "vmlinux",
            Self::Initramfs => "initramfs.cpio",
            Self::EmptyDisk => "empty.ext4",
            Self::Probe => "hullbox-probe",
        }
    }

    /// The environment variable that replaces it by a file.
    #[must_use]
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Kernel => "HULLBOX_KERNEL",
            Self::Initramfs => "HULLBOX_INITRAMFS",
            Self::EmptyDisk => "HULLBOX_EMPTY_DISK",
            Self::Probe => "HULLBOX_PROBE",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Initramfs => "initramfs",
            Self::EmptyDisk => "empty disk",
            Self::Probe => "probe",
        }
    }
}

/// Why an artifact is not to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// Plain `cargo build` without `make build` before it.
    #[error("this build carries no {}: run make build, or set {}", .0.words(), .0.variable())]
    NotEmbedded(Artifact),
    /// An override that leads nowhere.
    #[error("cannot use {} from {variable}", path.display())]
    Override {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be unpacked.
    #[error("cannot unpack the {} to {}", artifact.words(), path.display())]
    Unpack {
        /// Which.
        artifact: Artifact,
        /// Where to.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Whether the program carries it, or an override names one.
#[must_use]
pub fn is_available(artifact: Artifact) -> bool {
    std::env::var_os(artifact.variable()).is_some_and(|path| !path.is_empty())
        || EMBEDDED.iter().any(|item| item.name == artifact.name())
}

/// The file, unpacked into the data directory if this is the first time.
///
/// # Errors
/// [`ArtifactError`].
pub fn path(artifact: Artifact, data: &Path) -> Result<PathBuf, ArtifactError> {
    let variable = artifact.variable();
    if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return match File::open(&path) {
            Ok(_) => Ok(path),
            Err(source) => Err(ArtifactError::Override {
                variable,
                path,
                source,
            }),
        };
    }
    let item = EMBEDDED
        .iter()
        .find(|item| item.name == artifact.name())
        .ok_or(ArtifactError::NotEmbedded(artifact))?;
    let dir = data.join("artifacts");
    let path = dir.join(format!("{}-{}", item.name, item.hash));
    match fs::metadata(&path) {
        Ok(meta) if meta.len() == item.len => return Ok(path),
        _ => {}
    }
    let unpacked = unpack(item, &dir, &path);
    unpacked.map_err(|source| ArtifactError::Unpack {
        artifact,
        path: path.clone(),
        source,
    })?;
    Ok(path)
}

fn unpack(item: &Embedded, dir: &Path, path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    // One staging name, guarded by a lock: what a killed unpacker left is overwritten, not kept.
    let staged = dir.join(format!("{}.staging", item.name));
    let file = lock_staged(&staged)?;
    if fs::metadata(path).is_ok_and(|meta| meta.len() == item.len) {
        // Somebody else was faster.
        return fs::remove_file(&staged);
    }
    file.set_len(0)?;
    file.set_len(item.len)?;
    let mut decoder = zstd::Decoder::with_buffer(item.zstd)?;
    let mut buffer = vec![0; 256 * 1024];
    for (offset, length) in item.extents {
        let mut at = *offset;
        let end = offset + length;
        while at < end {
            let want = buffer
                .len()
                .min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let chunk = &mut buffer[..want];
            decoder.read_exact(chunk)?;
            file.write_all_at(chunk, at)?;
            at += u64::try_from(want).unwrap_or(u64::MAX);
        }
    }
    // Read-only: nothing may ever change it, and the kernel is mapped from it.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o400))?;
    file.sync_all()?;
    fs::rename(&staged, path)?;
    File::open(dir)?.sync_all()
}

/// Opens and locks the staging file. By the time the lock is had, the file may have been renamed
/// to its final name, where it must not be touched again: then another one is made.
fn lock_staged(staged: &Path) -> io::Result<File> {
    loop {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(staged)?;
        flock(&file, FlockOperation::LockExclusive)?;
        match fs::symlink_metadata(staged) {
            Ok(there) if there.ino() == file.metadata()?.ino() => return Ok(file),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacking_is_exact_sparse_and_repeatable() {
        let dir = std::env::temp_dir().join(format!("hullbox-artifact-{}", std::process::id()));
        let data = [vec![1u8; 4096], vec![2u8; 300_000]].concat();
        let frame = zstd::encode_all(&data[..], 3).unwrap();
        let item = Embedded {
            name: "empty.ext4",
            hash: "00",
            len: 64 << 20,
            extents: &[(4096, 4096), (32 << 20, 300_000)],
            zstd: Box::leak(frame.into_boxed_slice()),
        };
        let path = dir.join("out");
        for _ in 0..2 {
            unpack(&item, &dir, &path).unwrap();
            let read = fs::read(&path).unwrap();
            assert_eq!(read.len(), 64 << 20);
            assert_eq!(read[4096..8192], data[..4096]);
            assert_eq!(read[32 << 20..][..300_000], data[4096..]);
            assert!(read[8192..32 << 20].iter().all(|byte| *byte == 0));
            let blocks = fs::metadata(&path).unwrap().blocks();
            assert!(blocks * 512 < 1 << 20, "{blocks} blocks");
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_truncated_frame_leaves_nothing_under_the_name() {
        let dir = std::env::temp_dir().join(format!("hullbox-artifact2-{}", std::process::id()));
        let frame = zstd::encode_all(&[7u8; 100][..], 3).unwrap();
        let item = Embedded {
            name: "vmlinux",
            hash: "00",
            len: 8192,
            extents: &[(0, 8192)],
            zstd: Box::leak(frame.into_boxed_slice()),
        };
        assert!(unpack(&item, &dir, &dir.join("out")).is_err());
        assert!(!dir.join("out").exists());
        fs::remove_dir_all(dir).unwrap();
    }
}
