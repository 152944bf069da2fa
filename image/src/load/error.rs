//! Why nothing is loaded.

use crate::compress::StreamError;
use crate::digest::Digest;
use crate::layer::LayerError;
use crate::reference::ReferenceError;
use crate::store::StoreError;
use hullbox_tar::TarError;
use std::io;

/// Why nothing was loaded. The store is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// It is no image in any known form.
    #[error("not an image: neither a docker-archive nor an OCI layout")]
    NotAnImage,
    /// The source cannot be read.
    #[error("cannot read {}", .0.escape_debug())]
    Read(String, #[source] io::Error),
    /// The archive is not a sound tar.
    #[error("the archive is damaged")]
    Archive(#[source] TarError),
    /// An entry of the archive itself.
    #[error("the archive's entry {0:?} {1}")]
    ArchiveEntry(String, &'static str),
    /// A bomb, or more than anyone needs.
    #[error("{} is refused", .0.escape_debug())]
    Refused(String, #[source] StreamError),
    /// Too many of something.
    #[error("there are more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many it may have.
        limit: u64,
    },
    /// Something is larger than it may be.
    #[error("{name:?} has more than {limit} bytes")]
    Oversized {
        /// What.
        name: String,
        /// Bytes that it may have.
        limit: u64,
    },
    /// A part that is spoken of is not there.
    #[error("{0:?} is missing")]
    Missing(String),
    /// A part that is not what it has to be.
    #[error("{name:?} is not {expected}")]
    Unexpected {
        /// The part.
        name: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A part that is not valid JSON of its kind.
    #[error("{0:?} cannot be understood")]
    Json(String, #[source] serde_json::Error),
    /// A part that contradicts itself or another.
    #[error("{0:?} is contradictory: {1}")]
    Contradiction(String, &'static str),
    /// A blob of another digest.
    #[error("{name:?} was changed or damaged: its digest is {found}, not {expected}")]
    Digest {
        /// The blob.
        name: String,
        /// What it has to be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// A blob of another size.
    #[error("{name:?} was changed or damaged: it has {found} bytes, not {expected}")]
    Size {
        /// The blob.
        name: String,
        /// What it has to have.
        expected: u64,
        /// What it has.
        found: u64,
    },
    /// A layer whose content is not what the configuration says.
    #[error("layer {name:?} was changed or damaged: its DiffID is {found}, not {expected}")]
    DiffId {
        /// The layer's blob.
        name: String,
        /// What it has to be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// The one image that is wanted is not there.
    #[error("the source has no image named {0:?}")]
    NotInside(String),
    /// An image of none of the platforms that can be run.
    #[error("the image has no variant for linux/amd64")]
    Platform,
    /// A bad name.
    #[error("the image's name {0:?} is not valid")]
    Name(String, #[source] ReferenceError),
    /// A layer that cannot be converted.
    #[error("layer {0:?} cannot be used")]
    Layer(String, #[source] LayerError),
    /// The store.
    #[error("the image store failed")]
    Store(#[from] StoreError),
}

impl LoadError {
    /// A reading error, which may be a limit in disguise.
    pub(crate) fn from_read(name: &str, error: io::Error) -> Self {
        match stream_error(&error) {
            Some(refused) => Self::Refused(name.to_owned(), refused),
            None => Self::Read(name.to_owned(), error),
        }
    }

    pub(crate) fn from_archive(error: TarError) -> Self {
        match error {
            TarError::Read(error) => Self::from_read("the archive", error),
            other => Self::Archive(other),
        }
    }
}

/// The limit that an [`io::Error`] carries.
pub(super) fn stream_error(error: &io::Error) -> Option<StreamError> {
    error.get_ref()?.downcast_ref().cloned()
}
