//! Why a transfer fails.

use super::ends::EndError;
use super::layout::LayoutError;
use hullbox_registry as registry;
use std::fmt;
use std::io;

/// Why an image was not transferred. No text of these holds a credential.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// What was typed is no image's name.
    #[error("invalid reference {text:?}")]
    Name {
        /// As typed.
        text: String,
        /// Why.
        #[source]
        source: registry::NameError,
    },
    /// A file that says how registries are used.
    #[error("cannot use the settings of registries")]
    Settings(#[from] registry::SettingsError),
    /// A key by which images must be signed.
    #[error("cannot use the key")]
    Key(#[from] registry::PolicyError),
    /// The name leads nowhere.
    #[error(transparent)]
    Resolve(#[from] registry::ResolveError),
    /// None of the names that a short one may stand for leads to an image.
    #[error("{text} was not found: {tried}")]
    Nowhere {
        /// As typed.
        text: String,
        /// What was tried.
        tried: Names,
    },
    /// A blob does not come.
    #[error(transparent)]
    Blob(#[from] registry::BlobError),
    /// The registry does not take it.
    #[error(transparent)]
    Push(#[from] registry::PushError),
    /// The store.
    #[error(transparent)]
    End(#[from] EndError),
    /// A layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// What came is no manifest.
    #[error("{name} cannot be used")]
    Manifest {
        /// The image.
        name: String,
        /// Why.
        #[source]
        source: registry::ManifestError,
    },
    /// What is no place for what is asked.
    #[error(
        "{0} is no place for that: names in registries are, and oci:DIR[:TAG]; for copies oci-archive:FILE[:TAG] and docker-archive:FILE[:NAME] too"
    )]
    Place(String),
    /// A text that begins like an archive.
    #[error(transparent)]
    Transport(#[from] hullbox_image::TransportError),
    /// An archive.
    #[error("cannot copy from or to {archive}")]
    Archive {
        /// As typed.
        archive: String,
        /// Why not.
        #[source]
        source: Box<hullbox_image::RepackError>,
    },
    /// A digest where a tag is needed.
    #[error("cannot push {0}: a digest is not a tag")]
    Digest(String),
    /// `--all-tags` with a tag.
    #[error("{0} has a tag, and all tags were asked for")]
    TagWithAll(String),
    /// `--all-tags` of a repository without any.
    #[error("{0} has no tags")]
    NoTags(String),
    /// Logging in or out.
    #[error(transparent)]
    Login(#[from] registry::LoginError),
    /// Threads, or what they were doing.
    #[error("cannot transfer")]
    Runtime(#[from] io::Error),
}

/// Several names, and why each of them led nowhere.
#[derive(Debug)]
pub struct Names(pub(super) Vec<registry::ResolveError>);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "; " };
            write!(f, "{comma}{error}")?;
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                write!(f, ": {cause}")?;
                source = cause.source();
            }
        }
        Ok(())
    }
}

impl TransferError {
    /// Whether a registry denied access.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        use registry::ResolveError::{NotFound, Unavailable};
        let of = |error: &registry::ResolveError| match error {
            NotFound { source, .. } | Unavailable { source, .. } => source.is_denied(),
            _ => false,
        };
        match self {
            Self::Resolve(error) => of(error),
            Self::Nowhere { tried, .. } => tried.0.iter().any(of),
            Self::Push(registry::PushError::Request { source, .. }) => {
                matches!(source, registry::RequestError::Denied { .. })
            }
            _ => false,
        }
    }
}
