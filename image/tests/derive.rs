//! New images from a parent and one layer, and back out of the store as archives.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::archive::{config, docker, gzip, small_layer};
use common::store::{count, load};
use common::testing::TarBuilder;
use hullbox_image::{
    ArchiveFormat, ConfigPatch, DeriveError, DeriveOptions, Digest, ImageId, LoadOptions,
    Reference, SaveError, Source, Store,
};
use hullbox_model::image::read_config;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

fn derive(store: &mut Store, parent: &ImageId, layer: &[u8]) -> Result<ImageId, DeriveError> {
    derive_with(store, parent, layer, &options("new:1"))
}

fn derive_with(
    store: &mut Store,
    parent: &ImageId,
    mut layer: &[u8],
    options: &DeriveOptions,
) -> Result<ImageId, DeriveError> {
    store.derive(parent, &mut layer, options, &mut |_| {})
}

fn options(name: &str) -> DeriveOptions {
    DeriveOptions {
        name: Some(Reference::parse(name).unwrap()),
        created: 1_800_000_000,
        created_by: "/bin/sh -c x".into(),
        ..DeriveOptions::default()
    }
}

fn save(store: &Store, images: &[&str], format: ArchiveFormat) -> Result<Vec<u8>, SaveError> {
    let images: Vec<String> = images.iter().map(|&i| i.to_owned()).collect();
    let mut out = Vec::new();
    store.save(&images, format, &mut out)?;
    Ok(out)
}

/// Every file of a store but the locks and the index, with its digest.
fn files(root: &Path) -> BTreeMap<String, Digest> {
    let mut found = BTreeMap::new();
    for dir in ["layers", "recipes", "blobs/sha256", "staging"] {
        for entry in std::fs::read_dir(root.join(dir)).unwrap() {
            let path = entry.unwrap().path();
            let digest = Digest::of(&std::fs::read(&path).unwrap_or_default());
            found.insert(path.display().to_string(), digest);
        }
    }
    found
}

/// A layer with everything that is hard to make again: long and short files, one replaced and
/// one removed by a later entry, holes, links, long names, attributes, trailing bytes.
fn rich_layer() -> Vec<u8> {
    let noise = |n: usize| -> Vec<u8> {
        let mut state = n as u32 | 1;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..n).map(|_| next()).collect()
    };
    let mut tar = TarBuilder::default();
    tar.dir("etc").file("etc/hosts", b"127.0.0.1 localhost\n");
    for size in [0, 1, 511, 512, 2048, 2049, 4095, 4096, 4097, 300_000] {
        tar.file(&format!("etc/size{size}"), &noise(size));
    }
    let mut holey = vec![0; 100_000];
    holey[50_000..50_010].fill(1);
    tar.file("etc/zeros", &holey);
    tar.file("etc/twice", &noise(9000))
        .file("etc/twice", &noise(5000));
    tar.file("etc/gone", &noise(6000)).dir("etc/gone");
    tar.symlink("etc/link", "hosts")
        .hard_link("etc/hard", "etc/size300000");
    let long = "n".repeat(180);
    tar.pax(&[
        ("path", format!("etc/{long}").as_bytes()),
        ("SCHILY.xattr.user.x", b"y"),
        ("comment", b"nobody reads this"),
    ]);
    tar.file("short", &noise(7000));
    // Old GNU's sparse form: 5 bytes at 8192 of 10,000.
    tar.entry(b'S', "etc/sparse", b"abcde")
        .raw(257, b"ustar  \0");
    tar.raw(386, b"00000020000\0").raw(398, b"00000000005\0");
    tar.raw(483, b"00000023420\0").done();
    let mut bytes = tar.finish();
    bytes.resize(bytes.len() + 5000, 0);
    bytes.extend_from_slice(b"what follows the end");
    bytes
}

/// On top of [`small_layer`]: implied parents, whiteouts, a hard link to the layer below.
fn dependent_layer() -> Vec<u8> {
    TarBuilder::default()
        .file("not/described/file", &[5; 9000])
        .file(".wh.gone", b"")
        .hard_link("again", "hello")
        .finish()
}

#[test]
fn layers_are_saved_as_they_were_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let layers = [rich_layer(), small_layer(), dependent_layer()];
    let packed = gzip(&layers[0]);
    let config = config(&[&layers[0], &layers[1], &layers[2]]).to_string();
    let blobs = [&packed[..], &layers[1], &layers[2]];
    let archive = docker(config.as_bytes(), &blobs, &["rich:1", "rich:2"], true);
    let id = load(&mut store, &archive)[0].id;
    for format in [ArchiveFormat::Docker, ArchiveFormat::Oci] {
        let saved = save(&store, &["rich"], format).unwrap();
        for layer in &layers {
            let at = saved.windows(layer.len()).position(|part| part == layer);
            assert!(at.is_some(), "every layer is there, byte for byte");
        }
        assert_eq!(saved, save(&store, &["rich"], format).unwrap());
        let other = tempfile::tempdir().unwrap();
        let mut other = Store::open(other.path()).unwrap();
        let loaded = load(&mut other, &saved);
        assert!(loaded.iter().all(|image| image.id == id));
        for name in ["rich:1", "rich:2"] {
            assert_eq!(other.resolve(name).unwrap().id, id);
        }
        assert!(
            other
                .check(Default::default(), &mut |_| None)
                .unwrap()
                .is_sound()
        );
    }
    let layout = dir.path().join("layout");
    store.save_layout(&["rich:2".into()], &layout).unwrap();
    let again = store.save_layout(&["rich:2".into()], &layout);
    assert!(matches!(again, Err(SaveError::NotEmpty(_))));
    let other = tempfile::tempdir().unwrap();
    let mut other = Store::open(other.path()).unwrap();
    let options = LoadOptions::default();
    let loaded = other
        .load(Source::Path(&layout), &options, &mut |_| {})
        .unwrap();
    assert_eq!(loaded[0].id, id);
    assert!(other.resolve("rich:1").is_err(), "only what was asked for");
    let saved = save(&store, &[&id.short()], ArchiveFormat::Docker).unwrap();
    let other = tempfile::tempdir().unwrap();
    let mut other = Store::open(other.path()).unwrap();
    assert_eq!(load(&mut other, &saved)[0].names, []);
}

#[test]
fn an_image_is_its_parent_and_one_layer_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let base = small_layer();
    let parent = load(&mut store, &common::archive::image(&[&base]))[0].id;
    let layer = dependent_layer();
    let options = DeriveOptions {
        config: ConfigPatch {
            env: Some(vec!["A=1".into()]),
            user: Some("app".into()),
            volumes: Some(vec!["/data".into()]),
            ..ConfigPatch::default()
        },
        changes: vec!["ENV B=2".into(), "LABEL x=y".into()],
        author: "Ada".into(),
        message: "more".into(),
        ..options("new:1")
    };
    let id = derive_with(&mut store, &parent, &layer, &options).unwrap();
    let image = store.resolve("new:1").unwrap();
    assert_eq!((image.id, image.layers.len()), (id, 2));
    assert_eq!(
        image.layers[0],
        store.resolve(&parent.hex()).unwrap().layers[0]
    );
    assert_eq!(*image.layers[1].diff_id.digest(), Digest::of(&layer));
    assert_eq!(count(dir.path(), "layers"), 2);
    let inspect = store.inspect("new:1").unwrap();
    let wanted = serde_json::json!({
        "Cmd": ["/hello"], "Env": ["A=1", "B=2"], "User": "app",
        "Volumes": {"/data": {}}, "Labels": {"x": "y"},
    });
    assert_eq!(inspect.config, read_config(&wanted));
    assert_eq!((&inspect.author[..], &inspect.comment[..]), ("Ada", "more"));
    let history = store.history("new:1").unwrap();
    assert_eq!(
        history.len(),
        2,
        "the parent tells of no history: {history:?}"
    );
    assert_eq!(history[0].id, Some(id));
    assert_eq!(history[0].tags, ["new:1"]);
    assert_eq!(
        history.iter().map(|h| h.size_bytes).sum::<u64>(),
        9000 + 6 + 6
    );
    // The parent may go; what its child needs stays.
    store.remove("test:1", false, &mut |_| None).unwrap();
    let saved = save(&store, &["new:1"], ArchiveFormat::Docker).unwrap();
    let other = tempfile::tempdir().unwrap();
    let mut other = Store::open(other.path()).unwrap();
    assert_eq!(load(&mut other, &saved)[0].id, id);
    let theirs = other.resolve("new:1").unwrap();
    for (ours, theirs) in image.layers.iter().zip(&theirs.layers) {
        let read = |layer: &hullbox_image::LayerFile| std::fs::read(&layer.path).unwrap();
        assert_eq!(read(ours), read(theirs), "the same filesystems");
    }
}

#[test]
fn no_changes_make_no_layer() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let parent = load(&mut store, &common::archive::image(&[&small_layer()]))[0].id;
    let empty = TarBuilder::default().finish();
    let id = derive(&mut store, &parent, &empty).unwrap();
    assert_ne!(id, parent);
    assert_eq!(store.resolve("new:1").unwrap().layers.len(), 1);
    let history = store.history("new:1").unwrap();
    assert!(history.iter().any(|h| h.is_empty && h.size_bytes == 0));
    assert_eq!(count(dir.path(), "layers"), 1);
}

#[test]
fn a_hostile_layer_leaves_the_store_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let parent = load(&mut store, &common::archive::image(&[&small_layer()]))[0].id;
    let before = (files(dir.path()), store.list().unwrap());
    let whole = TarBuilder::default()
        .file("a", b"a")
        .file("b", b"b")
        .finish();
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("no tar", b"#!/bin/sh\n".repeat(100)),
        ("cut off between entries", whole[..1024].to_vec()),
        ("cut off in an entry", whole[..1030].to_vec()),
        ("cut off before its end", whole[..2048].to_vec()),
        ("..", TarBuilder::default().file("../x", b"x").finish()),
        (
            "forged whiteout",
            TarBuilder::default()
                .entry(b'3', "x", b"")
                .device(0, 0)
                .finish(),
        ),
        (
            "missing link",
            TarBuilder::default().hard_link("x", "nowhere").finish(),
        ),
        ("a bomb", gzip(&vec![0; 300 << 20])),
    ];
    for (what, layer) in hostile {
        let result = derive(&mut store, &parent, &layer);
        assert!(result.is_err(), "{what}");
        let after = (files(dir.path()), store.list().unwrap());
        assert!(after == before, "{what} changed the store");
    }
    let mut cut = options("new:1");
    cut.changes = vec!["RUN x".into()];
    let refused = derive_with(&mut store, &parent, &whole, &cut);
    assert!(matches!(refused, Err(DeriveError::Change(..))));
    let unknown = Digest::of(b"unknown").into();
    let refused = derive(&mut store, &unknown, &whole);
    assert!(matches!(refused, Err(DeriveError::Parent(_))));
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let mut broken = (&whole[..512]).chain(Broken);
    let refused = store.derive(&parent, &mut broken, &options("new:1"), &mut |_| {});
    assert!(refused.is_err());
    assert!((files(dir.path()), store.list().unwrap()) == before);
}

#[test]
fn layers_do_not_grow_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let limits = hullbox_image::Limits {
        max_layers: 3,
        ..Default::default()
    };
    let mut store = Store::open(dir.path()).unwrap().with_limits(limits);
    let mut id = load(&mut store, &common::archive::image(&[&small_layer()]))[0].id;
    for n in 0..2 {
        let layer = TarBuilder::default().file(&n.to_string(), b"x").finish();
        id = derive(&mut store, &id, &layer).unwrap();
    }
    let layer = TarBuilder::default().file("more", b"x").finish();
    let refused = derive(&mut store, &id, &layer);
    assert!(matches!(refused, Err(DeriveError::TooManyLayers(3))));
}

#[test]
fn a_full_disk_leaves_the_store_as_it_was() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can mount a small disk");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("disk");
    let args = ["-t", "tmpfs", "-o", "size=2m", "tmpfs"].map(std::ffi::OsStr::new);
    let _disk = common::Mount::new(&args, &at);
    let mut store = Store::open(at.join("store")).unwrap();
    let parent = load(&mut store, &common::archive::image(&[&small_layer()]))[0].id;
    let root = at.join("store");
    let before = (files(&root), store.list().unwrap());
    let big: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    let layer = TarBuilder::default().file("big", &big).finish();
    let error = derive(&mut store, &parent, &layer).unwrap_err();
    let mut text = error.to_string();
    let mut next = std::error::Error::source(&error);
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    assert!(text.contains("No space left"), "{text}");
    assert!((files(&root), store.list().unwrap()) == before);
    let small = TarBuilder::default().file("small", b"x").finish();
    derive(&mut store, &parent, &small).unwrap();
}

/// What `commit` is when the container's side fails after its layer's end.
#[test]
fn an_image_that_is_not_kept_moves_no_name_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let mut store = Store::open(&root).unwrap();
    let layer = small_layer();
    let config = config(&[&layer]).to_string();
    let archive = docker(config.as_bytes(), &[&layer], &["new:1"], true);
    let old = load(&mut store, &archive)[0].id;
    let before = files(&root);
    let new = TarBuilder::default().file("new", b"x").finish();
    let derived = store
        .prepare(&old, &mut &new[..], &options("new:1"), &mut |_| {})
        .unwrap();
    assert_eq!(store.resolve("new:1").unwrap().id, old);
    drop(derived);
    assert_eq!(store.resolve("new:1").unwrap().id, old);
    assert_eq!(files(&root), before);
    // And one that is kept moves it.
    let derived = store
        .prepare(&old, &mut &new[..], &options("new:1"), &mut |_| {})
        .unwrap();
    let id = store.keep(derived).unwrap();
    assert_eq!(store.resolve("new:1").unwrap().id, id);
}
