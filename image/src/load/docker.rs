//! docker-archives: manifest.json lists images by the names of their parts.

use super::error::LoadError;
use super::manifest::DockerImage;
use super::parts::{self, Blobs, LayerPart, PlannedImage};
use crate::digest::Digest;
use crate::reference::Reference;

/// Images of one archive.
const MAX_IMAGES: usize = 1024;

pub(super) fn plan(manifest: &[u8], blobs: &mut dyn Blobs) -> Result<Vec<PlannedImage>, LoadError> {
    let images: Vec<DockerImage> = serde_json::from_slice(manifest)
        .map_err(|error| LoadError::Json("manifest.json".to_owned(), error))?;
    if images.len() > MAX_IMAGES {
        return Err(LoadError::TooMany {
            what: "images",
            limit: MAX_IMAGES as u64,
        });
    }
    images.into_iter().map(|image| one(image, blobs)).collect()
}

fn one(image: DockerImage, blobs: &mut dyn Blobs) -> Result<PlannedImage, LoadError> {
    let config = parts::required(blobs, &image.config)?;
    if let Some(expected) = digest_in_name(&image.config) {
        parts::check_digest(&image.config, &expected, &Digest::of(&config))?;
    }
    let names = image
        .repo_tags
        .unwrap_or_default()
        .iter()
        .map(|name| Reference::parse(name).map_err(|e| LoadError::Name(name.clone(), e)))
        .collect::<Result<_, _>>()?;
    let diff_ids = parts::diff_ids(&image.config, &config, blobs.limits())?;
    let paths = image.layers.unwrap_or_default();
    if paths.len() != diff_ids.len() {
        return Err(LoadError::Contradiction(
            image.config,
            "it has another number of layers than the manifest",
        ));
    }
    let mut layers = Vec::new();
    for path in paths {
        let index = blobs.layer(&path)?;
        layers.push(LayerPart {
            // The DiffID covers the layer; a digest in its name is held to it nevertheless.
            raw: blob_digest(&path).map(|digest| (digest, None)),
            name: path,
            index,
        });
    }
    Ok(PlannedImage {
        config_name: image.config,
        config,
        manifest: None,
        layers,
        names,
    })
}

/// The digest that a configuration's name promises: `HEX.json` or `blobs/sha256/HEX`.
fn digest_in_name(path: &str) -> Option<Digest> {
    path.strip_suffix(".json")
        .and_then(Digest::from_hex)
        .or_else(|| blob_digest(path))
}

fn blob_digest(path: &str) -> Option<Digest> {
    Digest::from_hex(path.strip_prefix("blobs/sha256/")?)
}
