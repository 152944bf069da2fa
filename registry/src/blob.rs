//! Blobs as streams.

use crate::error::BlobError;
use bytes::Bytes;

/// A blob on its way here.
#[derive(Debug)]
pub struct BlobStream {
    offset_bytes: u64,
}

impl BlobStream {
    /// The next bytes, or `None` at the verified end.
    ///
    /// # Errors
    /// [`BlobError`]; the stream is over then.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        Ok(None)
    }

    /// Where the next bytes belong.
    #[must_use]
    pub const fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// Leaves the digest to the reader, who hashes the bytes anyway. The length is still compared.
    #[must_use]
    pub fn hashed_by_reader(self) -> Self {
        self
    }
}
