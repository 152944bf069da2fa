//! What is asked for: the image as its manifest and its configuration describe it.

use crate::digest::{ChainId, DiffId, Digest};
use crate::limits::Limits;
use crate::load::{Descriptor, LoadError, Manifest, image_config};
use crate::reference::Reference;
use crate::store::LayerInfo;
use serde::{Deserialize, Serialize};

/// An image as whoever has it describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    /// The manifest, byte for byte.
    pub manifest: Vec<u8>,
    /// The media type that it was declared with.
    pub media_type: Option<String>,
    /// The configuration, byte for byte.
    pub config: Vec<u8>,
    /// Digest of the index that led to the manifest.
    pub index: Option<Digest>,
    /// The repository it comes from; tag and digest do not matter.
    pub origin: Option<Reference>,
    /// Names that it is given. Those with a digest give it none.
    pub names: Vec<Reference>,
}

/// A layer's place in the image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    /// Its blob's number.
    pub blob: usize,
    pub diff_id: DiffId,
    pub chain: ChainId,
}

/// What the two documents say.
pub(super) struct Examined {
    /// Every blob once, in the order of the manifest.
    pub blobs: Vec<LayerInfo>,
    /// Lowest first.
    pub positions: Vec<Position>,
    pub created: Option<i64>,
}

/// Reads and compares the two documents.
pub(super) fn examine(request: &PullRequest, limits: &Limits) -> Result<Examined, LoadError> {
    for (what, document) in [("manifest", &request.manifest), ("config", &request.config)] {
        if document.len() as u64 > limits.max_json_bytes {
            return Err(LoadError::Oversized {
                name: what.to_owned(),
                limit: limits.max_json_bytes,
            });
        }
    }
    let media_type = request.media_type.as_deref();
    let parsed = Manifest::parse("manifest", &request.manifest, media_type)?;
    let Manifest::Image { config, layers } = parsed else {
        return Err(LoadError::Unexpected {
            name: "manifest".to_owned(),
            expected: "an image's manifest, but an index",
        });
    };
    config.verify("config", &request.config)?;
    let (document, diff_ids) = image_config("config", &request.config, limits)?;
    if layers.len() != diff_ids.len() {
        return Err(LoadError::Contradiction(
            "config".to_owned(),
            "it has another number of layers than the manifest",
        ));
    }
    let (blobs, positions) = arrange(layers, diff_ids, limits)?;
    let created = document.created().as_deref();
    Ok(Examined {
        blobs,
        positions,
        created: created.and_then(crate::time::parse_rfc3339),
    })
}

/// Each blob once, and which blob each layer is.
fn arrange(
    layers: Vec<Descriptor>,
    diff_ids: Vec<DiffId>,
    limits: &Limits,
) -> Result<(Vec<LayerInfo>, Vec<Position>), LoadError> {
    let mut blobs: Vec<LayerInfo> = Vec::new();
    let mut positions = Vec::new();
    let mut chain = None;
    let mut total: u64 = 0;
    for (layer, diff_id) in layers.into_iter().zip(diff_ids) {
        let info = LayerInfo {
            digest: layer.digest,
            size_bytes: layer.size,
            media_type: layer.media_type,
            diff_id,
        };
        let here = ChainId::extend(chain.as_ref(), &diff_id);
        chain = Some(here);
        let known = blobs.iter().position(|blob| blob.digest == info.digest);
        if let Some(known) = known
            && (blobs[known].diff_id, blobs[known].size_bytes) != (diff_id, info.size_bytes)
        {
            return Err(LoadError::Contradiction(
                info.digest.to_string(),
                "two layers of the image are this blob and differ",
            ));
        }
        let blob = known.unwrap_or_else(|| {
            total = total.saturating_add(info.size_bytes);
            blobs.push(info.clone());
            blobs.len() - 1
        });
        if info.size_bytes > limits.max_layer_bytes || total > limits.max_total_layer_bytes {
            return Err(LoadError::Oversized {
                name: info.digest.to_string(),
                limit: limits.max_layer_bytes,
            });
        }
        positions.push(Position {
            blob,
            diff_id,
            chain: here,
        });
    }
    Ok((blobs, positions))
}
