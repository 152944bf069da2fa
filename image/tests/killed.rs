//! A store whose operations are killed at any moment. Alone in its program: a process that is
//! being started holds copies of its parent's locks for a moment.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::archive::{config, docker, small_layer};
use common::testing::TarBuilder;
use hullbox_image::{ImageId, ImageUse, LoadOptions, Loaded, Source, Store};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn load(store: &mut Store, archive: &[u8]) -> Vec<Loaded> {
    let mut stream = archive;
    store
        .load(
            Source::Stream(&mut stream),
            &LoadOptions::default(),
            &mut |_| {},
        )
        .unwrap()
}

fn unused(_: &ImageId) -> Option<ImageUse> {
    None
}

fn named(layers: &[&[u8]], tags: &[&str]) -> Vec<u8> {
    docker(config(layers).to_string().as_bytes(), layers, tags, true)
}

fn count(root: &Path, dir: &str) -> usize {
    std::fs::read_dir(root.join(dir)).unwrap().count()
}

/// Not a test: what the next one runs and kills.
#[test]
#[ignore = "a child process of another test"]
fn child_that_loads_and_removes() {
    let Some(root) = std::env::var_os("STORE_UNDER_TEST") else {
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
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut delay = 20;
    let mut found_victim = 0;
    while Instant::now() < deadline {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_loads_and_removes", "--ignored"])
            .env("STORE_UNDER_TEST", &root)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
        delay = delay * 17 % 331 + 10;
        let mut store = Store::open(&root).unwrap();
        assert_eq!(count(&root, "staging"), 0, "swept at open");
        for summary in store.list().unwrap() {
            let image = store.resolve(&summary.id.hex()).unwrap();
            for layer in &image.layers {
                assert_eq!(layer.path.metadata().unwrap().len(), layer.size_bytes);
            }
        }
        assert_eq!(store.resolve("kept").unwrap().id, kept);
        if store.resolve("victim").is_ok() {
            found_victim += 1;
            store.remove("victim", false, &mut unused).unwrap();
        }
        assert_eq!(count(&root, "layers"), 1, "nothing without an owner");
        assert_eq!(count(&root, "blobs/sha256"), 1);
    }
    eprintln!("the victim was there {found_victim} times");
}
