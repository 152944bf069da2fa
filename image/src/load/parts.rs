//! The parts of a source that make an image, and what is checked of each.

use super::error::LoadError;
use crate::digest::{DiffId, Digest};
use crate::limits::Limits;
use crate::reference::Reference;
use oci_spec::image::ImageConfiguration;

/// The parts of a source, by name.
pub(super) trait Blobs {
    /// A small part's bytes, if it is there.
    fn small(&mut self, name: &str) -> Result<Option<Vec<u8>>, LoadError>;
    /// The number, in the session, of a layer.
    fn layer(&mut self, name: &str) -> Result<usize, LoadError>;
    fn limits(&self) -> &Limits;
}

/// An image whose parts were found.
#[derive(Debug)]
pub(super) struct PlannedImage {
    pub config_name: String,
    pub config: Vec<u8>,
    pub manifest: Option<Vec<u8>>,
    pub layers: Vec<LayerPart>,
    pub names: Vec<Reference>,
}

/// A layer of it.
#[derive(Debug)]
pub(crate) struct LayerPart {
    pub name: String,
    /// Its number in the session.
    pub index: usize,
    /// What is promised of its blob.
    pub raw: Option<(Digest, Option<u64>)>,
    /// What a manifest says that its blob is.
    pub media_type: Option<String>,
}

pub(super) fn required(blobs: &mut dyn Blobs, name: &str) -> Result<Vec<u8>, LoadError> {
    blobs
        .small(name)?
        .ok_or_else(|| LoadError::Missing(name.to_owned()))
}

pub(super) fn check_digest(name: &str, expected: &Digest, found: &Digest) -> Result<(), LoadError> {
    if expected == found {
        return Ok(());
    }
    Err(LoadError::Digest {
        name: name.to_owned(),
        expected: *expected,
        found: *found,
    })
}

pub(super) fn check_size(name: &str, expected: u64, found: u64) -> Result<(), LoadError> {
    if expected == found {
        return Ok(());
    }
    Err(LoadError::Size {
        name: name.to_owned(),
        expected,
        found,
    })
}

/// Parses a configuration and what of it the store relies on.
pub(crate) fn image_config(
    name: &str,
    bytes: &[u8],
    limits: &Limits,
) -> Result<(ImageConfiguration, Vec<DiffId>), LoadError> {
    let config =
        crate::config::parse(bytes).map_err(|error| LoadError::Json(name.to_owned(), error))?;
    if config.rootfs().typ() != "layers" {
        return Err(LoadError::Unexpected {
            name: name.to_owned(),
            expected: "the configuration of an image made of layers",
        });
    }
    let texts = config.rootfs().diff_ids();
    if texts.len() > limits.max_layers {
        return Err(LoadError::TooMany {
            what: "layers in one image",
            limit: limits.max_layers as u64,
        });
    }
    let diff_ids = texts
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, _>>()
        .map_err(|_| LoadError::Unexpected {
            name: name.to_owned(),
            expected: "a configuration with sha256 DiffIDs",
        })?;
    Ok((config, diff_ids))
}

pub(super) fn diff_ids(
    name: &str,
    config: &[u8],
    limits: &Limits,
) -> Result<Vec<DiffId>, LoadError> {
    image_config(name, config, limits).map(|(_, diff_ids)| diff_ids)
}
