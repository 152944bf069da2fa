//! OCI layouts: index.json leads to manifests, manifests to configurations and layers.

use super::error::LoadError;
use super::manifest::{Descriptor, Manifest};
use super::parts::{self, Blobs, LayerPart, PlannedImage};
use super::plan::Choice;
use crate::reference::Reference;

/// Indexes within indexes.
const MAX_DEPTH: usize = 4;
/// Images of one layout.
const MAX_IMAGES: usize = 1024;

pub(super) fn plan(
    index: &[u8],
    blobs: &mut dyn Blobs,
    choice: Choice<'_>,
) -> Result<Vec<PlannedImage>, LoadError> {
    let Manifest::Index(descriptors) = Manifest::parse("index.json", index, None)? else {
        return Err(LoadError::Unexpected {
            name: "index.json".to_owned(),
            expected: "an image index",
        });
    };
    if descriptors.len() > MAX_IMAGES {
        return Err(LoadError::TooMany {
            what: "images",
            limit: MAX_IMAGES as u64,
        });
    }
    if descriptors.is_empty() {
        return Err(LoadError::NotAnImage);
    }
    let mut images = Vec::new();
    let wanted =
        |descriptor: &&Descriptor| choice.only.is_none_or(|only| is_called(descriptor, only));
    if let Some(only) = choice.only
        && !descriptors.iter().any(|descriptor| wanted(&descriptor))
    {
        return Err(LoadError::NotInside(only.to_owned()));
    }
    for descriptor in descriptors.iter().filter(wanted).filter(|d| d.may_run()) {
        let names = name(descriptor, choice.base_name)?.into_iter().collect();
        images.push(one(descriptor, names, blobs)?);
    }
    if images.is_empty() {
        return Err(LoadError::Platform);
    }
    Ok(images)
}

/// Whether a layout gives an image this name, or this tag.
fn is_called(descriptor: &Descriptor, name: &str) -> bool {
    let bare = descriptor.annotation("org.opencontainers.image.ref.name");
    let whole = descriptor.annotation("io.containerd.image.name");
    bare == Some(name) || whole == Some(name)
}

/// The image a descriptor leads to, through indexes to the one for this platform.
fn one(
    descriptor: &Descriptor,
    names: Vec<Reference>,
    blobs: &mut dyn Blobs,
) -> Result<PlannedImage, LoadError> {
    let mut descriptor = descriptor.clone();
    for _ in 0..MAX_DEPTH {
        let bytes = verified(&descriptor, blobs)?;
        let declared = descriptor.media_type.as_deref();
        match Manifest::parse(&descriptor.path(), &bytes, declared)? {
            Manifest::Index(choices) => descriptor = choose(choices)?,
            Manifest::Image { config, layers } => {
                return image(bytes, &config, &layers, names, blobs);
            }
        }
    }
    Err(LoadError::Unexpected {
        name: descriptor.path(),
        expected: "an image's manifest, but one more index",
    })
}

/// The best of an index: what says it is for us, before what says nothing.
fn choose(choices: Vec<Descriptor>) -> Result<Descriptor, LoadError> {
    let declared = choices
        .iter()
        .position(|choice| choice.platform.is_some() && choice.may_run());
    let silent = || choices.iter().position(|choice| choice.platform.is_none());
    let index = declared.or_else(silent).ok_or(LoadError::Platform)?;
    choices.into_iter().nth(index).ok_or(LoadError::Platform)
}

fn image(
    manifest: Vec<u8>,
    config: &Descriptor,
    layers: &[Descriptor],
    names: Vec<Reference>,
    blobs: &mut dyn Blobs,
) -> Result<PlannedImage, LoadError> {
    let config_bytes = verified(config, blobs)?;
    let diff_ids = parts::diff_ids(&config.path(), &config_bytes, blobs.limits())?;
    if diff_ids.len() != layers.len() {
        return Err(LoadError::Contradiction(
            config.path(),
            "it has another number of layers than the manifest",
        ));
    }
    let mut parts = Vec::new();
    for layer in layers {
        parts.push(LayerPart {
            name: layer.path(),
            index: blobs.layer(&layer.path())?,
            raw: Some((layer.digest, Some(layer.size))),
            media_type: layer.media_type.clone(),
        });
    }
    Ok(PlannedImage {
        config_name: config.path(),
        config: config_bytes,
        manifest: Some(manifest),
        layers: parts,
        names,
    })
}

/// A small blob that is what its descriptor says.
fn verified(descriptor: &Descriptor, blobs: &mut dyn Blobs) -> Result<Vec<u8>, LoadError> {
    let path = descriptor.path();
    let bytes = parts::required(blobs, &path)?;
    descriptor.verify(&path, &bytes)?;
    Ok(bytes)
}

/// The name a layout gives an image: a whole one, or a tag to put behind `base_name`.
fn name(
    descriptor: &Descriptor,
    base_name: Option<&Reference>,
) -> Result<Option<Reference>, LoadError> {
    let whole = descriptor.annotation("io.containerd.image.name");
    let bare = descriptor.annotation("org.opencontainers.image.ref.name");
    let parse = |name: &str| {
        Reference::parse(name)
            .map(Some)
            .map_err(|error| LoadError::Name(name.to_owned(), error))
    };
    match (whole, bare, base_name) {
        (Some(name), ..) => parse(name),
        (None, Some(name), _) if name.contains(['/', ':', '@']) => parse(name),
        (None, Some(tag), Some(base)) => base
            .with_tag(tag)
            .map(Some)
            .map_err(|error| LoadError::Name(tag.to_owned(), error)),
        (None, Some(_) | None, _) => Ok(None),
    }
}
