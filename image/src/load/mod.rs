//! Loading: an archive or a layout, from a path or a stream, into the store.
//!
//! An archive is read once, front to back, because standard input cannot seek and the manifest
//! may come last. Whatever could be a layer is converted as it streams by, into the staging
//! area, and hashed on the way; what could be a manifest or a configuration is kept in memory.
//! At the end the manifest says which of it is wanted, everything wanted is compared with its
//! digests, and only then does the store change.

mod archive;
mod assemble;
mod convert;
mod directory;
mod docker;
mod error;
mod manifest;
mod oci;
mod parts;
mod plan;
mod session;
mod syncs;

pub(crate) use archive::{bad_entry, normal};
pub(crate) use assemble::Finisher;
pub(crate) use convert::{Form, LayerFiles, StagedLayer, convert_blob};
pub use error::LoadError;
pub(crate) use manifest::{Descriptor, DockerImage, Manifest};
pub(crate) use parts::{LayerPart, image_config};
use plan::Choice;
pub use session::Progress;
pub(crate) use session::Session;
pub(crate) use syncs::Syncs;

use crate::digest::ImageId;
use crate::reference::Reference;
use crate::store::Store;
use std::fs::File;
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
    /// What the source has to be; by default that is found out.
    pub kind: Option<ArchiveKind>,
    /// The one image that is wanted, as the source names it: a name, or an OCI layout's tag.
    pub only: Option<String>,
}

/// The two forms in which sources describe their images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveKind {
    /// `manifest.json`, as `docker save` writes it.
    Docker,
    /// `index.json`, as the OCI specification has it.
    Oci,
}

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Loaded {
    /// Its identity.
    pub id: ImageId,
    /// The names it has been given; an image without a name is reached by its id.
    pub names: Vec<Reference>,
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
        let mut choice = Choice {
            base_name: options.base_name.as_ref(),
            kind: options.kind,
            only: options.only.as_deref(),
        };
        let from_path;
        let images = {
            let mut session = Session::new(self)?;
            let plan = match source {
                Source::Stream(stream) => {
                    let watched = session.watch(stream, None, progress);
                    archive::read(&mut session, watched, choice)?
                }
                Source::Path(path) => {
                    from_path = name_from_path(path);
                    choice.base_name = choice.base_name.or(from_path.as_ref());
                    let file = open(path)?;
                    let metadata = file
                        .metadata()
                        .map_err(|e| LoadError::Read(path.display().to_string(), e))?;
                    if metadata.is_dir() {
                        directory::read(&mut session, &file, choice, progress)?
                    } else {
                        let total = metadata.is_file().then_some(metadata.len());
                        let watched = session.watch(&file, total, progress);
                        archive::read(&mut session, watched, choice)?
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
