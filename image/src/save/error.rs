//! Why images are not saved.

use super::layer::RegenerateError;
use crate::store::{ResolveError, StoreError};
use std::io;
use std::path::PathBuf;

/// Why images were not saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// An image was not found.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A layer's tar cannot be made again.
    #[error("cannot make layer {layer} of image {image} again")]
    Layer {
        /// The layer's DiffID.
        layer: String,
        /// Short id of the image.
        image: String,
        /// Why not.
        #[source]
        source: RegenerateError,
    },
    /// The archive cannot be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// A file of the layout cannot be written.
    #[error("cannot write {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Several images cannot have one name.
    #[error("the name {0:?} is for one image")]
    OneName(String),
    /// The index of a layout that is to be added to.
    #[error("{0} is not the index of an OCI layout")]
    Index(PathBuf, #[source] serde_json::Error),
    /// The layout's directory has something in it.
    #[error("directory {0} is not empty")]
    NotEmpty(PathBuf),
    /// The store.
    #[error("the image store failed")]
    Store(#[from] StoreError),
}
