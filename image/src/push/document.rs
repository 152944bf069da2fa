//! Manifests: those that images came with, and those that are made for them.

use super::compression::LayerCompression;
use crate::digest::Digest;
use crate::load::{LoadError, Manifest};
use crate::store::LayerInfo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Docker's types of layers, and the specification's for the same.
const DOCKER_LAYERS: [(&str, &str); 2] = [
    (
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.oci.image.layer.v1.tar+gzip",
    ),
    (
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.oci.image.layer.v1.tar",
    ),
];

/// A manifest, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawManifest {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
}

impl RawManifest {
    /// A stored manifest. Nothing, if it is none.
    pub(super) fn of(digest: Digest, bytes: Vec<u8>) -> Option<Self> {
        let document: Value = serde_json::from_slice(&bytes).ok()?;
        // Docker's always say what they are.
        let media_type = document.get("mediaType").and_then(Value::as_str);
        let media_type = media_type.unwrap_or(MANIFEST).to_owned();
        Some(Self {
            bytes,
            media_type,
            digest,
        })
    }

    /// What it says beside its parts.
    pub(super) fn annotations(&self) -> Option<Value> {
        let own: Value = serde_json::from_slice(&self.bytes).ok()?;
        own.get("annotations")
            .filter(|own| own.is_object())
            .cloned()
    }

    /// Whether these are its layers.
    pub(super) fn names(&self, layers: &[LayerInfo]) -> bool {
        let parsed: Result<Manifest, LoadError> = Manifest::parse("manifest", &self.bytes, None);
        let Ok(Manifest::Image { layers: own, .. }) = parsed else {
            return false;
        };
        let own = own.iter().map(|layer| &layer.digest);
        own.eq(layers.iter().map(|layer| &layer.digest))
    }
}

/// A manifest of the OCI specification's that says the image's layers are these.
pub(super) fn build(
    config: &[u8],
    annotations: Option<Value>,
    layers: &[LayerInfo],
) -> RawManifest {
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| {
            json!({
                "mediaType": media_type(layer),
                "digest": layer.digest,
                "size": layer.size_bytes,
            })
        })
        .collect();
    let mut document = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": CONFIG,
            "digest": Digest::of(config),
            "size": config.len(),
        },
        "layers": layers,
    });
    if let Some(annotations) = annotations {
        document["annotations"] = annotations;
    }
    let bytes = document.to_string().into_bytes();
    RawManifest {
        digest: Digest::of(&bytes),
        bytes,
        media_type: MANIFEST.to_owned(),
    }
}

fn media_type(layer: &LayerInfo) -> &str {
    let own = layer.media_type.as_deref();
    let own = own.unwrap_or_else(|| LayerCompression::default().media_type());
    let same = DOCKER_LAYERS.iter().find(|(docker, _)| *docker == own);
    same.map_or(own, |(_, oci)| oci)
}
