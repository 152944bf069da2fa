//! A store killed at any moment of making an image of changes. Alone in its program: a process
//! that is being started holds copies of its parent's locks for a moment.

mod common;

use common::archive::{image, small_layer};
use common::kills;
use common::testing::TarBuilder;
use hullbox_image::{
    ArchiveFormat, CheckOptions, DeriveOptions, LoadOptions, Reference, Source, Store,
};

/// Not a test: what the next one runs and kills.
#[test]
#[ignore = "a child process of another test"]
fn child_that_derives_and_removes() {
    let Some(root) = std::env::var_os(kills::STORE) else {
        return;
    };
    let big: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    let layer = TarBuilder::default()
        .file("not/described/big", &big)
        .hard_link("again", "hello")
        .finish();
    loop {
        let mut store = Store::open(&root).unwrap();
        let parent = store.resolve("test:1").unwrap().id;
        let options = DeriveOptions {
            name: Some(Reference::parse("victim").unwrap()),
            ..DeriveOptions::default()
        };
        let mut stream = &layer[..];
        store
            .derive(&parent, &mut stream, &options, &mut |_| {})
            .unwrap();
        store.remove("victim", false, &mut |_| None).unwrap();
    }
}

#[test]
fn a_killed_derivation_leaves_a_valid_store() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let mut store = Store::open(&root).unwrap();
    let archive = image(&[&small_layer()]);
    let mut stream = &archive[..];
    let source = Source::Stream(&mut stream);
    store
        .load(source, &LoadOptions::default(), &mut |_| {})
        .unwrap();
    drop(store);
    kills::at_many_moments("child_that_derives_and_removes", &root, |store| {
        let report = store.check(CheckOptions::default(), &mut |_| None).unwrap();
        assert_eq!(report.findings, []);
        let is_there = store.resolve("victim").is_ok();
        if is_there {
            let images = ["victim".to_owned()];
            store
                .save(&images, ArchiveFormat::Docker, &mut std::io::sink())
                .unwrap();
            store.remove("victim", false, &mut |_| None).unwrap();
        }
        for part in ["layers", "recipes", "blobs/sha256"] {
            let files = std::fs::read_dir(root.join(part)).unwrap().count();
            assert_eq!(files, 1, "nothing without an owner in {part}");
        }
        is_there
    });
}
