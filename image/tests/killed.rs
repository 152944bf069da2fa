//! A store whose operations are killed at any moment. Alone in its program: a process that is
//! being started holds copies of its parent's locks for a moment.

mod common;

use common::archive::small_layer;
use common::kills;
use common::store::{count, load, named, unused};
use common::testing::TarBuilder;
use hullbox_image::Store;

/// Not a test: what the next one runs and kills.
#[test]
#[ignore = "a child process of another test"]
fn child_that_loads_and_removes() {
    let Some(root) = std::env::var_os(kills::STORE) else {
        return;
    };
    let big: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    let base = TarBuilder::default().file("big", &big).finish();
    let top = TarBuilder::default()
        .file("d/.wh.x", b"")
        .file("d/y", b"")
        .finish();
    let archive = named(&[&base, &top], &["victim"]);
    loop {
        let mut store = Store::open(&root).unwrap();
        load(&mut store, &archive);
        store.remove("victim", false, &mut unused).unwrap();
    }
}

#[test]
fn a_killed_operation_leaves_a_valid_store() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let mut store = Store::open(&root).unwrap();
    let kept = load(&mut store, &named(&[&small_layer()], &["kept"]))[0].id;
    drop(store);
    kills::at_many_moments("child_that_loads_and_removes", &root, |store| {
        assert_eq!(count(&root, "staging"), 0, "swept at open");
        for summary in store.list().unwrap() {
            let image = store.resolve(&summary.id.hex()).unwrap();
            for layer in &image.layers {
                assert_eq!(layer.path.metadata().unwrap().len(), layer.size_bytes);
            }
        }
        assert_eq!(store.resolve("kept").unwrap().id, kept);
        let is_there = store.resolve("victim").is_ok();
        if is_there {
            store.remove("victim", false, &mut unused).unwrap();
        }
        assert_eq!(count(&root, "layers"), 1, "nothing without an owner");
        assert_eq!(count(&root, "blobs/sha256"), 1);
        is_there
    });
}
