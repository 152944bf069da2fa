//! What a push takes: which blobs the layers should be, and where those can be had.

use super::compression::LayerCompression;
use super::document::{self, RawManifest};
use crate::digest::{DiffId, Digest, ImageId};
use crate::load::{LoadError, Manifest};
use crate::reference::Reference;
use crate::save::RegenerateError;
use crate::store::{
    Found, KnownBlob, LayerInfo, NewBlob, NewLayer, NewRepoDigest, ResolveError, Store, StoreError,
    Travel,
};
use serde::{Deserialize, Serialize};
use std::io;

/// Why an image is not pushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The image was not found.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A layer's tar cannot be made again.
    #[error("cannot make layer {0} again")]
    Layer(DiffId, #[source] RegenerateError),
    /// The compressed layer cannot be written.
    #[error("cannot compress layer {0}")]
    Compress(DiffId, #[source] io::Error),
    /// The layers are not those of the image.
    #[error("the image has {expected} layers, not {found}")]
    Layers {
        /// How many it has.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// The store.
    #[error("the image store failed")]
    Store(#[from] StoreError),
}

/// How an image is to be pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PushOptions {
    /// How every layer is compressed. By default layers go out as they came in, and those that
    /// came from nowhere are compressed with [`LayerCompression::default`].
    pub compression: Option<LayerCompression>,
}

/// What is to be pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushPlan {
    /// The image.
    pub image: ImageId,
    /// The manifest that it was pulled or loaded with under the name that was asked for, byte for byte.
    pub manifest: Option<RawManifest>,
    /// The configuration, byte for byte; its digest is the image's id.
    pub config: Vec<u8>,
    /// Lowest first. A layer may be there twice.
    pub layers: Vec<PushLayer>,
    /// As asked for.
    pub options: PushOptions,
}

/// A layer that is to be pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushLayer {
    /// Digest of its tar.
    pub diff_id: DiffId,
    /// The blob it should be; nothing is known where the layer was never compressed.
    pub blob: Option<LayerInfo>,
    /// Whether [`Store::layer_blob`] makes this very blob. Otherwise it can be had from its
    /// origins alone, and what is made here has another digest.
    pub local: bool,
    /// Repositories (`docker.io/library/debian`) that have or had the blob.
    pub origins: Vec<String>,
}

impl Store {
    /// Finds out what pushing an image takes.
    ///
    /// # Errors
    /// [`PushError`].
    pub fn push_plan(&self, text: &str, options: PushOptions) -> Result<PushPlan, PushError> {
        let found = self.find(text)?;
        let config = self.raw_config(text, &found.id)?;
        let stack = self.stack_of(&found.id)?;
        let manifest = self.raw_manifest(&found)?;
        let told = match (&manifest, options.compression) {
            (Some(manifest), None) => told_blobs(manifest, &stack),
            _ => None,
        };
        let mut layers = Vec::new();
        for (at, layer) in stack.iter().enumerate() {
            let told = told.as_ref().map(|told| &told[at]);
            layers.push(self.push_layer(layer, told, options.compression)?);
        }
        Ok(PushPlan {
            image: found.id,
            manifest,
            config,
            layers,
            options,
        })
    }

    fn push_layer(
        &self,
        layer: &NewLayer,
        told: Option<&LayerInfo>,
        compression: Option<LayerCompression>,
    ) -> Result<PushLayer, PushError> {
        let known = self.blobs_of(&layer.diff_id)?;
        let blob = match told {
            Some(told) => Some(told.clone()),
            None => choose(layer, &known, compression),
        };
        let (mut local, mut origins) = (false, Vec::new());
        if let Some(blob) = &blob {
            let made = |one: &KnownBlob| one.info.digest == blob.digest && one.made.is_some();
            local = blob.digest == *layer.diff_id.digest() || known.iter().any(made);
            origins = self.origins_of(&blob.digest)?;
        }
        Ok(PushLayer {
            diff_id: layer.diff_id,
            blob,
            local,
            origins,
        })
    }

    /// The manifest that an image has by this name, if it is undamaged.
    fn raw_manifest(&self, found: &Found) -> Result<Option<RawManifest>, StoreError> {
        let Some((digest, bytes)) = self.manifest_bytes(found)? else {
            return Ok(None);
        };
        Ok(RawManifest::of(digest, bytes))
    }

    /// Remembers that an image is now in a repository, as this manifest with these blobs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn pushed(
        &mut self,
        plan: &PushPlan,
        name: &Reference,
        manifest: &RawManifest,
        layers: &[LayerInfo],
    ) -> Result<(), StoreError> {
        let repository = name.name();
        let blobs = layers.iter().map(|info| NewBlob {
            info: info.clone(),
            verified: false,
            made: None,
            origin: Some(repository.clone()),
        });
        let travel = Travel {
            blobs: blobs.collect(),
            repo_digests: vec![NewRepoDigest {
                repository: repository.clone(),
                digest: manifest.digest,
                manifest: manifest.digest,
                shown: true,
            }],
        };
        self.remember(&plan.image, name, &travel, &manifest.bytes)
    }
}

/// The blobs that a manifest says the layers are.
fn told_blobs(manifest: &RawManifest, stack: &[NewLayer]) -> Option<Vec<LayerInfo>> {
    let parsed: Result<Manifest, LoadError> = Manifest::parse("manifest", &manifest.bytes, None);
    let Ok(Manifest::Image { layers, .. }) = parsed else {
        return None;
    };
    let infos = layers
        .into_iter()
        .zip(stack)
        .map(|(told, layer)| LayerInfo {
            digest: told.digest,
            size_bytes: told.size,
            media_type: told.media_type,
            diff_id: layer.diff_id,
        });
    let infos: Vec<_> = infos.collect();
    (infos.len() == stack.len()).then_some(infos)
}

/// Of the blobs that a layer is known as, the one to push.
fn choose(
    layer: &NewLayer,
    known: &[KnownBlob],
    compression: Option<LayerCompression>,
) -> Option<LayerInfo> {
    let Some(compression) = compression else {
        // What others have too, before what only this program makes.
        let is_plain = |one: &&KnownBlob| one.info.digest == *layer.diff_id.digest();
        let packed = known.iter().find(|one| !is_plain(one));
        return packed.map(|one| one.info.clone());
    };
    if compression == LayerCompression::None {
        let size_bytes = layer.facts.proof?.tar_bytes;
        return Some(LayerInfo {
            digest: *layer.diff_id.digest(),
            size_bytes,
            media_type: Some(compression.media_type().to_owned()),
            diff_id: layer.diff_id,
        });
    }
    let text = compression.to_string();
    let made = |one: &&KnownBlob| one.made.as_deref() == Some(&text);
    known.iter().find(made).map(|one| one.info.clone())
}

impl PushPlan {
    /// The configuration's digest.
    #[must_use]
    pub fn config_digest(&self) -> Digest {
        *self.image.digest()
    }

    /// The manifest that says the layers are these blobs, lowest first: where they are those that
    /// the image came with, the one it came with, byte for byte.
    ///
    /// # Errors
    /// [`PushError::Layers`].
    pub fn manifest_for(&self, layers: &[LayerInfo]) -> Result<RawManifest, PushError> {
        if layers.len() != self.layers.len() {
            return Err(PushError::Layers {
                expected: self.layers.len(),
                found: layers.len(),
            });
        }
        if let Some(manifest) = &self.manifest
            && manifest.names(layers)
        {
            return Ok(manifest.clone());
        }
        let annotations = self.manifest.as_ref().and_then(RawManifest::annotations);
        Ok(document::build(&self.config, annotations, layers))
    }
}
