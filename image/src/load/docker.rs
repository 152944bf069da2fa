//! docker-archives: manifest.json lists images by the names of their parts.

use super::error::LoadError;
use super::manifest::DockerImage;
use super::parts::{self, Blobs, LayerPart, PlannedImage};
use crate::digest::Digest;
use crate::reference::Reference;

/// Images of one archive.
const MAX_IMAGES: usize = 1024;

pub(super) fn plan(
    manifest: &[u8],
    blobs: &mut dyn Blobs,
    only: Option<&str>,
) -> Result<Vec<PlannedImage>, LoadError> {
    let images: Vec<DockerImage> = serde_json::from_slice(manifest)
        .map_err(|error| LoadError::Json("manifest.json".to_owned(), error))?;
    if images.len() > MAX_IMAGES {
        return Err(LoadError::TooMany {
            what: "images",
            limit: MAX_IMAGES as u64,
        });
    }
    let Some(only) = only else {
        return images.into_iter().map(|image| one(image, blobs)).collect();
    };
    let wanted = images.into_iter().find_map(|mut image| {
        let is_it =
            |name: &String| Reference::parse(name).is_ok_and(|name| name.to_string() == only);
        let tags = image.repo_tags.take()?;
        image.repo_tags = Some(tags.into_iter().filter(is_it).take(1).collect());
        image
            .repo_tags
            .as_ref()
            .is_some_and(|tags| !tags.is_empty())
            .then_some(image)
    });
    let wanted = wanted.ok_or_else(|| LoadError::NotInside(only.to_owned()))?;
    Ok(vec![one(wanted, blobs)?])
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
            media_type: None,
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
