//! What tests do with a store.

use super::archive::{config, docker};
use hullbox_image::{ImageId, ImageUse, LoadOptions, Loaded, Source, Store};
use std::path::Path;

pub fn load(store: &mut Store, archive: &[u8]) -> Vec<Loaded> {
    let mut stream = archive;
    store
        .load(
            Source::Stream(&mut stream),
            &LoadOptions::default(),
            &mut |_| {},
        )
        .unwrap()
}

/// No image is used by a container.
pub fn unused(_: &ImageId) -> Option<ImageUse> {
    None
}

/// A docker-archive of these layers under these names.
pub fn named(layers: &[&[u8]], tags: &[&str]) -> Vec<u8> {
    docker(config(layers).to_string().as_bytes(), layers, tags, true)
}

/// How many files a directory of the store has.
pub fn count(root: &Path, dir: &str) -> usize {
    std::fs::read_dir(root.join(dir)).unwrap().count()
}
