//! Why a pull does not go on.

use crate::digest::Digest;
use crate::load::LoadError;
use crate::store::StoreError;
use std::io;

/// Why an image was not taken in. The store is as it was, but for partial downloads.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The manifest, the configuration or a layer is not what it has to be.
    #[error(transparent)]
    Content(#[from] LoadError),
    /// Reading from where the layer comes failed. What was read stays for the next time.
    #[error("cannot read layer {0}")]
    Source(Digest, #[source] io::Error),
    /// The layer ended early. What was read stays for the next time.
    #[error("layer {digest} ended after {found} of {expected} bytes")]
    CutOff {
        /// The layer's blob.
        digest: Digest,
        /// Bytes that its descriptor promises.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// The layer does not end where it should.
    #[error("layer {digest} has more than the {expected} bytes of its descriptor")]
    TooLong {
        /// The layer's blob.
        digest: Digest,
        /// Bytes that its descriptor promises.
        expected: u64,
    },
    /// What an earlier pull had left of the layer was damaged, and is removed.
    #[error("what was left of an earlier download of layer {0} was damaged and is removed")]
    Partial(Digest, #[source] Box<LoadError>),
    /// A layer was not fetched.
    #[error("layer {0} was not fetched")]
    Incomplete(Digest),
    /// A layer is still being fetched.
    #[error("layers of the image are still being fetched")]
    Busy,
    /// The store.
    #[error("the image store failed")]
    Store(#[from] StoreError),
}

impl PullError {
    /// Whether the layer can be asked for once more: an earlier pull's remains were to blame.
    #[must_use]
    pub const fn retry_from_start(&self) -> bool {
        matches!(self, Self::Partial(..))
    }
}
