//! What is pushed, and how.

use crate::names::ImageName;
use std::fmt;
use std::io::Read;
use std::sync::Arc;

/// How a blob came to be in the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Exists,
    /// The registry had it in another repository.
    Mounted,
    /// Its bytes were sent.
    Uploaded,
}

/// A blob to push. It is read on a blocking thread, from another offset after a stall.
pub trait BlobSource: Send + Sync + 'static {
    /// Its bytes from `offset_bytes` on.
    ///
    /// # Errors
    /// What keeps it from being read.
    fn open(&self, offset_bytes: u64) -> std::io::Result<Box<dyn Read + Send>>;
}

impl<F> BlobSource for F
where
    F: Fn(u64) -> std::io::Result<Box<dyn Read + Send>> + Send + Sync + 'static,
{
    fn open(&self, offset_bytes: u64) -> std::io::Result<Box<dyn Read + Send>> {
        self(offset_bytes)
    }
}

/// How a blob is pushed.
#[derive(Clone, Default)]
pub struct PushOptions {
    /// Repositories of the same registry that may have the blob.
    pub mount_from: Vec<ImageName>,
    /// Send pieces of this many bytes, a request each, instead of one stream.
    pub chunk_bytes: Option<u64>,
    /// Is told how many bytes have been handed to the connection; it may go back.
    pub progress: Option<Arc<dyn Fn(u64) + Send + Sync>>,
}

impl fmt::Debug for PushOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushOptions")
            .field("mount_from", &self.mount_from)
            .field("chunk_bytes", &self.chunk_bytes)
            .finish_non_exhaustive()
    }
}
