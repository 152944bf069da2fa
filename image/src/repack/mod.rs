//! Archives as OCI layouts and back, for copies from place to place: no layer is unpacked, and no store
//! is needed. What a layout has is compared with its digests by whoever copies from it.

mod pack;
mod unpack;

pub use pack::pack;
pub use unpack::lay_out;

use crate::digest::Digest;
use crate::load::LoadError;
use crate::save::SaveError;
use sha2::{Digest as _, Sha256};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The media type of configurations in manifests that are made here.
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of manifests that are made here.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of a layout's index.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Where a layout's blobs are.
const BLOBS: &str = "blobs/sha256";

/// Why an archive is not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepackError {
    /// What is read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// What is written.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// No image was named, and there is not one alone.
    #[error("there are {0} images: name one, behind a colon")]
    Which(usize),
    /// A docker-archive has no place for more than one platform.
    #[error("a docker-archive holds an image of one platform, and not an index")]
    Index,
}

fn write_failed(path: &Path) -> impl Fn(io::Error) -> RepackError {
    move |source| {
        RepackError::Save(SaveError::File {
            path: path.to_owned(),
            source,
        })
    }
}

fn read_failed(path: &Path) -> impl Fn(io::Error) -> RepackError {
    move |source| RepackError::Load(LoadError::Read(path.display().to_string(), source))
}

fn blob_path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join(BLOBS).join(digest.hex())
}

/// A small document of a layout as it is, whatever its name promises.
fn document(path: &Path, max_bytes: u64) -> Result<Vec<u8>, RepackError> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(read_failed(path))?;
    let mut bytes = Vec::new();
    let mut limited = file.take(max_bytes + 1);
    limited.read_to_end(&mut bytes).map_err(read_failed(path))?;
    if bytes.len() as u64 > max_bytes {
        return Err(RepackError::Load(LoadError::Oversized {
            name: path.display().to_string(),
            limit: max_bytes,
        }));
    }
    Ok(bytes)
}

/// A writer that knows what it has written.
struct Hashed<W> {
    inner: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W> Hashed<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
            bytes: 0,
        }
    }

    fn finish(self) -> (Digest, u64) {
        (Digest::from_hasher(self.hasher), self.bytes)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..len]);
        self.bytes += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
