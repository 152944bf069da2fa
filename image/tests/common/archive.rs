//! Archives made by hand, with every part replaceable by a lie.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "helpers of tests, each of which uses some of them"
)]

use super::testing::TarBuilder;
use hullbox_image::Digest;
use serde_json::{Value, json};
use std::io::Write;

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// A tar with one small file.
pub fn small_layer() -> Vec<u8> {
    TarBuilder::default().file("hello", b"hello\n").finish()
}

/// A configuration whose layers, uncompressed, are these.
pub fn config(layers: &[&[u8]]) -> Value {
    let diff_ids: Vec<_> = layers.iter().map(|l| Digest::of(l).to_string()).collect();
    json!({
        "created": "2026-01-02T03:04:05Z",
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/hello"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
}

/// A docker-archive with its manifest first or last.
pub fn docker(config: &[u8], layers: &[&[u8]], tags: &[&str], manifest_first: bool) -> Vec<u8> {
    let names: Vec<_> = (0..layers.len())
        .map(|i| format!("{i}/layer.tar"))
        .collect();
    let config_name = format!("{}.json", Digest::of(config).hex());
    let manifest = json!([{"Config": config_name, "RepoTags": tags, "Layers": names}]).to_string();
    let mut tar = TarBuilder::default();
    if manifest_first {
        tar.file("manifest.json", manifest.as_bytes());
    }
    for (name, layer) in names.iter().zip(layers) {
        tar.file(name, layer);
    }
    tar.file(&config_name, config);
    if !manifest_first {
        tar.file("manifest.json", manifest.as_bytes());
    }
    tar.finish()
}

/// The docker-archive of one image made of these layer tars.
pub fn image(layers: &[&[u8]]) -> Vec<u8> {
    let config = config(layers).to_string();
    docker(config.as_bytes(), layers, &["test:1"], false)
}

/// An OCI layout: files by name.
pub struct Layout {
    pub files: Vec<(String, Vec<u8>)>,
}

/// A descriptor of these bytes.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({
        "mediaType": media_type,
        "digest": Digest::of(bytes).to_string(),
        "size": bytes.len(),
    })
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

impl Layout {
    pub fn new() -> Self {
        let oci_layout = json!({"imageLayoutVersion": "1.0.0"}).to_string();
        Self {
            files: vec![("oci-layout".into(), oci_layout.into())],
        }
    }

    /// Adds a blob and answers its descriptor.
    pub fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let path = format!("blobs/sha256/{}", Digest::of(bytes).hex());
        if !self.files.iter().any(|(name, _)| *name == path) {
            self.files.push((path, bytes.to_vec()));
        }
        descriptor(media_type, bytes)
    }

    /// Adds an image of gzipped layers; `change` may spoil its manifest.
    pub fn image(&mut self, layers: &[&[u8]], change: impl FnOnce(&mut Value)) -> Value {
        let config = self.blob(CONFIG, config(layers).to_string().as_bytes());
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| self.blob(LAYER, &gzip(layer)))
            .collect();
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": layers,
        });
        change(&mut manifest);
        self.blob(MANIFEST, manifest.to_string().as_bytes())
    }

    pub fn index(&mut self, manifests: &[Value]) {
        let index = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
        self.files.push(("index.json".into(), index.into()));
    }

    pub fn tar(&self) -> Vec<u8> {
        let mut tar = TarBuilder::default();
        for (name, bytes) in &self.files {
            tar.file(name, bytes);
        }
        tar.finish()
    }

    pub fn write_to(&self, dir: &std::path::Path) {
        for (name, bytes) in &self.files {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
}
