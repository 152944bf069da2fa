//! Loading: an archive or a layout, from a path or a stream, into the store.
//!
//! An archive is read once, front to back, because standard input cannot seek and the manifest
//! may come last. Whatever could be a layer is converted as it streams by, into the staging
//! area, and hashed on the way; what could be a manifest or a configuration is kept in memory.
//! At the end the manifest says which of it is wanted, everything wanted is compared with its
//! digests, and only then does the store change.

mod archive;
mod assemble;
mod directory;
mod docker;
mod manifest;
mod oci;
mod session;

pub(crate) use assemble::{Finisher, LayerPart, image_config};
pub(crate) use session::Session;

use crate::compress::StreamError;
use crate::digest::{Digest, ImageId};
use crate::layer::LayerError;
use crate::reference::{Reference, ReferenceError};
use crate::store::{Store, StoreError};
use hullbox_tar::TarError;
use std::fs::File;
use std::io::{self, Read};
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
    #[error("the archive has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many it may have.
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
    fn from_read(name: &str, error: io::Error) -> Self {
        match stream_error(&error) {
            Some(refused) => Self::Refused(name.to_owned(), refused),
            None => Self::Read(name.to_owned(), error),
        }
    }

    fn from_archive(error: TarError) -> Self {
        match error {
            TarError::Read(error) => Self::from_read("the archive", error),
            other => Self::Archive(other),
        }
    }
}

/// The limit that an [`io::Error`] carries.
fn stream_error(error: &io::Error) -> Option<StreamError> {
    error.get_ref()?.downcast_ref().cloned()
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
        let mut options = options.clone();
        let images = {
            let mut session = Session::new(self)?;
            let plan = match source {
                Source::Stream(stream) => {
                    let watched = session.watch(stream, None, progress);
                    archive::read(&mut session, watched, &options)?
                }
                Source::Path(path) => {
                    if options.base_name.is_none() {
                        options.base_name = name_from_path(path);
                    }
                    let file = open(path)?;
                    let metadata = file
                        .metadata()
                        .map_err(|e| LoadError::Read(path.display().to_string(), e))?;
                    if metadata.is_dir() {
                        directory::read(&mut session, &file, &options, progress)?
                    } else {
                        let total = metadata.is_file().then_some(metadata.len());
                        let watched = session.watch(&file, total, progress);
                        archive::read(&mut session, watched, &options)?
                    }
                }
            };
            assemble::assemble(session, plan)?
        };
        let (staging, images) = images;
        let loaded = images
            .iter()
            .map(|image| Loaded {
                id: image.id,
                names: image.names.clone(),
            })
            .collect();
        self.commit(staging, &images)?;
        Ok(loaded)
    }
}

pub(crate) fn open(path: &Path) -> Result<File, LoadError> {
    File::open(path).map_err(|error| LoadError::Read(path.display().to_string(), error))
}

/// `./debian.tar.gz` suggests `debian`.
fn name_from_path(path: &Path) -> Option<Reference> {
    let name = path.file_name()?.to_str()?;
    let stem = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".oci"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(name);
    Reference::parse(stem)
        .ok()
        .filter(|name| name.tag() == Some("latest") && !stem.contains(':'))
}
