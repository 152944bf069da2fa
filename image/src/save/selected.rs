//! The images that are saved, and their layers, which every form of archive has alike.

use super::error::SaveError;
use super::layer::{RegenerateError, layer_tar};
use super::sink::Sink;
use crate::digest::{DiffId, ImageId};
use crate::reference::Reference;
use crate::store::{NewLayer, Store};
use std::collections::BTreeSet;

/// An image to be saved.
pub(super) struct SelectedImage {
    pub id: ImageId,
    pub names: Vec<Reference>,
    /// What a layout calls it instead of its names.
    pub label: Option<String>,
    pub config: Vec<u8>,
    pub layers: Vec<NewLayer>,
}

/// Writes every layer of these images once, under the name that `name_of` gives it.
pub(super) fn layers(
    store: &Store,
    chosen: &[SelectedImage],
    sink: &mut dyn Sink,
    name_of: fn(&DiffId) -> String,
) -> Result<(), SaveError> {
    let mut written = BTreeSet::new();
    for image in chosen {
        for layer in &image.layers {
            if !written.insert(layer.diff_id) {
                continue;
            }
            let fail = |source| SaveError::Layer {
                layer: layer.diff_id.to_string(),
                image: image.id.short(),
                source,
            };
            let bytes = tar_bytes(layer).map_err(fail)?;
            sink.file(&name_of(&layer.diff_id), bytes, &mut |out| {
                layer_tar(store, &layer.key, &layer.diff_id, &layer.facts, out)
                    .map(drop)
                    .map_err(fail)
            })?;
        }
    }
    Ok(())
}

pub(super) fn tar_bytes(layer: &NewLayer) -> Result<u64, RegenerateError> {
    let proof = layer.facts.proof.ok_or(RegenerateError::NoRecipe)?;
    Ok(proof.tar_bytes)
}
