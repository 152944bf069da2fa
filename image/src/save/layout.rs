//! OCI image layouts. Layers are not compressed: their digests are their DiffIDs then, and the
//! same image makes the same layout everywhere.

use super::error::SaveError;
use super::selected::{SelectedImage, layers, tar_bytes};
use super::sink::{REF_NAME, Sink};
use crate::digest::{DiffId, Digest};
use crate::reference::Reference;
use crate::store::Store;
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

pub(super) fn write(
    store: &Store,
    chosen: &[SelectedImage],
    sink: &mut dyn Sink,
) -> Result<(), SaveError> {
    sink.bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    layers(store, chosen, sink, layer_name)?;
    let mut descriptors = Vec::new();
    for image in chosen {
        let manifest = manifest(image)?.to_string();
        sink.bytes(&blob(image.id.digest()), &image.config)?;
        let digest = Digest::of(manifest.as_bytes());
        sink.bytes(&blob(&digest), manifest.as_bytes())?;
        let plain = json!({
            "mediaType": MANIFEST,
            "digest": digest,
            "size": manifest.len(),
        });
        if let Some(label) = &image.label {
            let mut named = plain;
            named["annotations"] = json!({ REF_NAME: label });
            descriptors.push(named);
            continue;
        }
        if image.names.is_empty() {
            descriptors.push(plain);
            continue;
        }
        for name in &image.names {
            let mut named = plain.clone();
            named["annotations"] = annotations(name);
            descriptors.push(named);
        }
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": descriptors,
    });
    // Last: without it there is no layout.
    sink.bytes("index.json", index.to_string().as_bytes())
}

/// The whole name where containerd and Docker look for it, the tag where the specification does.
fn annotations(name: &Reference) -> Value {
    let tag = name.tag().unwrap_or("latest");
    json!({
        "io.containerd.image.name": format!("{}:{tag}", name.name()),
        REF_NAME: tag,
    })
}

fn manifest(image: &SelectedImage) -> Result<Value, SaveError> {
    let mut layers = Vec::new();
    for layer in &image.layers {
        let size = tar_bytes(layer).map_err(|source| SaveError::Layer {
            layer: layer.diff_id.to_string(),
            image: image.id.short(),
            source,
        })?;
        layers.push(json!({
            "mediaType": LAYER,
            "digest": layer.diff_id,
            "size": size,
        }));
    }
    Ok(json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": CONFIG,
            "digest": image.id,
            "size": image.config.len(),
        },
        "layers": layers,
    }))
}

fn layer_name(diff_id: &DiffId) -> String {
    blob(diff_id.digest())
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
