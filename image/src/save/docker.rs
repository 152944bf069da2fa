//! docker-archives: `HEX.tar` a layer, `HEX.json` a configuration, and manifest.json.

use super::error::SaveError;
use super::selected::{SelectedImage, layers};
use super::sink::Sink;
use crate::digest::DiffId;
use crate::reference::Reference;
use crate::store::Store;
use serde_json::{Map, Value, json};

pub(super) fn write(
    store: &Store,
    chosen: &[SelectedImage],
    sink: &mut dyn Sink,
) -> Result<(), SaveError> {
    layers(store, chosen, sink, layer_name)?;
    let mut manifest = Vec::new();
    let mut repositories = Map::new();
    for image in chosen {
        let config = format!("{}.json", image.id.hex());
        sink.bytes(&config, &image.config)?;
        let paths: Vec<_> = image
            .layers
            .iter()
            .map(|l| layer_name(&l.diff_id))
            .collect();
        let tags: Vec<_> = image.names.iter().map(Reference::familiar).collect();
        for name in &image.names {
            remember(&mut repositories, name, image);
        }
        manifest.push(json!({
            "Config": config,
            "RepoTags": if tags.is_empty() { Value::Null } else { json!(tags) },
            "Layers": paths,
        }));
    }
    if !repositories.is_empty() {
        let text = Value::Object(repositories).to_string();
        sink.bytes("repositories", text.as_bytes())?;
    }
    sink.bytes(
        "manifest.json",
        Value::Array(manifest).to_string().as_bytes(),
    )
}

/// What Docker before 1.10 read, and some tools still look at: names by their topmost layer.
fn remember(repositories: &mut Map<String, Value>, name: &Reference, image: &SelectedImage) {
    let Some(top) = image.layers.last() else {
        return;
    };
    let tags = repositories
        .entry(name.familiar_name())
        .or_insert_with(|| json!({}));
    tags[name.tag().unwrap_or("latest")] = top.diff_id.hex().into();
}

fn layer_name(diff_id: &DiffId) -> String {
    format!("{}.tar", diff_id.hex())
}
