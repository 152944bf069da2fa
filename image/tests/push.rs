//! What leaves the store: manifests byte for byte, layers that are compressed always alike, and
//! layouts and archives by the names that containers' tools give them.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::archive::{LAYER, Layout, gzip, small_layer, zstd};
use common::have;
use common::pull::Remote;
use common::store::{count, load, named, unused};
use common::testing::TarBuilder;
use hullbox_image::{
    CheckOptions, Digest, LayerCompression, LayerInfo, LoadError, PruneOptions, PushOptions,
    PushPlan, Reference, SaveError, Store, Transport,
};
use serde_json::{Value, json};
use std::io::{Read, Seek};
use std::path::Path;
use std::process::Command;

fn open(dir: &Path) -> Store {
    Store::open(dir.join("store")).unwrap()
}

fn layers() -> [Vec<u8>; 2] {
    let base = TarBuilder::default()
        .dir("etc")
        .file("etc/a", &[7; 100_000])
        .finish();
    [base, TarBuilder::default().file("etc/.wh.a", b"").finish()]
}

fn compressed(compression: LayerCompression) -> PushOptions {
    PushOptions {
        compression: Some(compression),
    }
}

/// The blobs of a plan, made here, each checked against what it says it is.
fn make_all(store: &Store, plan: &PushPlan) -> Vec<(LayerInfo, Vec<u8>)> {
    (0..plan.layers.len())
        .map(|index| {
            let mut blob = store.layer_blob(plan, index).unwrap();
            let mut bytes = Vec::new();
            blob.read_to_end(&mut bytes).unwrap();
            assert_eq!(Digest::of(&bytes), blob.info().digest);
            assert_eq!(bytes.len() as u64, blob.info().size_bytes);
            // An upload that is asked to go back can.
            blob.seek(std::io::SeekFrom::Start(10)).unwrap();
            let mut rest = Vec::new();
            blob.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, bytes[10..]);
            (blob.info().clone(), bytes)
        })
        .collect()
}

#[test]
fn what_was_pulled_goes_out_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let [base, top] = layers();
    let packed = [gzip(&base), gzip(&top)];
    let remote = Remote::packed(&[&base, &top], &packed, LAYER, "quay.io/a:1", |manifest| {
        manifest["annotations"] = json!({"odd": "one"});
    });
    remote.pull(&mut store).unwrap();
    let plan = store
        .push_plan("quay.io/a:1", PushOptions::default())
        .unwrap();
    let manifest = plan.manifest.clone().unwrap();
    assert_eq!(manifest.bytes, remote.request.manifest);
    assert_eq!(manifest.digest, remote.manifest_digest());
    assert_eq!(plan.config, remote.request.config);
    for (layer, blob) in plan.layers.iter().zip(&packed) {
        assert_eq!(layer.blob.as_ref().unwrap().digest, Digest::of(blob));
        assert_eq!(layer.origins, ["quay.io/a"]);
        assert!(!layer.local, "another program's gzip");
    }
    let same: Vec<_> = plan
        .layers
        .iter()
        .map(|l| l.blob.clone().unwrap())
        .collect();
    assert_eq!(plan.manifest_for(&same).unwrap(), manifest);
    assert!(plan.manifest_for(&same[1..]).is_err());
    // To another repository: it is then known there too.
    let name = Reference::parse("quay.io/b:2").unwrap();
    store.pushed(&plan, &name, &manifest, &same).unwrap();
    let again = store
        .push_plan("quay.io/a:1", PushOptions::default())
        .unwrap();
    assert_eq!(again.layers[0].origins, ["quay.io/a", "quay.io/b"]);
    let inspect = store.inspect("quay.io/a:1").unwrap();
    let pushed = format!("quay.io/b@{}", manifest.digest);
    assert!(inspect.repo_digests.contains(&pushed));
    assert!(store.resolve(&pushed).is_ok());
    // Where nobody has the blobs any more, others are made, and the rest stays as it was.
    let made = make_all(&store, &plan);
    let infos: Vec<_> = made.iter().map(|(info, _)| info.clone()).collect();
    let other = plan.manifest_for(&infos).unwrap();
    assert_ne!(other.digest, manifest.digest);
    let document: Value = serde_json::from_slice(&other.bytes).unwrap();
    assert_eq!(document["annotations"], json!({"odd": "one"}));
}

#[test]
fn layers_are_compressed_alike_and_their_digests_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let [base, top] = layers();
    load(&mut store, &named(&[&base, &top], &["x:1"]));
    let plan = store.push_plan("x:1", PushOptions::default()).unwrap();
    assert_eq!(plan.manifest, None);
    assert!(plan.layers.iter().all(|layer| layer.blob.is_none()));
    let made = make_all(&store, &plan);
    // Another program's decompressor gives back the tars.
    for ((info, bytes), tar) in made.iter().zip([&base, &top]) {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..])
            .read_to_end(&mut plain)
            .unwrap();
        assert_eq!(&plain, tar);
        assert_eq!(info.media_type.as_deref(), Some(LAYER));
    }
    let infos: Vec<_> = made.iter().map(|(info, _)| info.clone()).collect();
    let manifest = plan.manifest_for(&infos).unwrap();
    // The next plan knows them before anything is compressed, and makes the same.
    let again = store.push_plan("x:1", PushOptions::default()).unwrap();
    let known: Vec<_> = again
        .layers
        .iter()
        .map(|l| l.blob.clone().unwrap())
        .collect();
    assert_eq!(known, infos);
    assert!(again.layers.iter().all(|layer| layer.local));
    assert_eq!(make_all(&store, &again), made);
    // In another store too.
    let other_dir = tempfile::tempdir().unwrap();
    let mut other = open(other_dir.path());
    load(&mut other, &named(&[&base, &top], &["x:1"]));
    let plan = other.push_plan("x:1", PushOptions::default()).unwrap();
    assert_eq!(make_all(&other, &plan), made);
    // What it was pushed as it is from now on.
    let name = Reference::parse("quay.io/x:1").unwrap();
    store.pushed(&again, &name, &manifest, &infos).unwrap();
    let later = store.push_plan("x:1", PushOptions::default()).unwrap();
    assert_eq!(later.manifest, Some(manifest));
    assert_eq!(
        store
            .check(CheckOptions::default(), &mut unused)
            .unwrap()
            .findings,
        []
    );
    // What was compressed for an image goes with it.
    store.remove("x:1", false, &mut unused).unwrap();
    store.prune(&PruneOptions::default(), &mut unused).unwrap();
    load(&mut store, &named(&[&base, &top], &["x:1"]));
    let plan = store.push_plan("x:1", PushOptions::default()).unwrap();
    assert!(plan.layers.iter().all(|layer| layer.blob.is_none()));
}

#[test]
fn a_compression_that_is_asked_for_is_used_for_all_layers() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let [base, top] = layers();
    let remote = Remote::new(&[&base, &top], "quay.io/a:1");
    remote.pull(&mut store).unwrap();
    let plan = |compression| {
        store
            .push_plan("quay.io/a:1", compressed(compression))
            .unwrap()
    };
    let none = plan(LayerCompression::None);
    for ((info, bytes), tar) in make_all(&store, &none).iter().zip([&base, &top]) {
        assert_eq!(bytes, tar);
        assert_eq!(info.digest, *info.diff_id.digest());
    }
    assert!(none.layers.iter().all(|layer| layer.local));
    let zstd = plan(LayerCompression::Zstd(3));
    assert!(zstd.layers.iter().all(|layer| layer.blob.is_none()));
    let made = make_all(&store, &zstd);
    assert!(made[0].1.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]));
    let infos: Vec<_> = made.iter().map(|(info, _)| info.clone()).collect();
    let document: Value =
        serde_json::from_slice(&zstd.manifest_for(&infos).unwrap().bytes).unwrap();
    let media_type = "application/vnd.oci.image.layer.v1.tar+zstd";
    assert_eq!(document["layers"][0]["mediaType"], media_type);
    let again = plan(LayerCompression::Zstd(3));
    assert_eq!(again.layers[0].blob.as_ref(), Some(&infos[0]));
    assert!(plan(LayerCompression::Zstd(4)).layers[0].blob.is_none());
    // What was pulled is still what goes out when nothing is asked for.
    let plain = store
        .push_plan("quay.io/a:1", PushOptions::default())
        .unwrap();
    assert_eq!(plain.manifest.unwrap().bytes, remote.request.manifest);
}

#[test]
fn an_image_made_of_a_pulled_one_has_its_blobs_below() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let base = small_layer();
    let remote = Remote::new(&[&base], "quay.io/base:1");
    let parent = remote.pull(&mut store).unwrap().0.id;
    let options = hullbox_image::DeriveOptions {
        name: Some(Reference::parse("mine:1").unwrap()),
        ..hullbox_image::DeriveOptions::default()
    };
    let layer = TarBuilder::default().file("new", b"new").finish();
    store
        .derive(&parent, &mut &layer[..], &options, &mut |_| {})
        .unwrap();
    let plan = store.push_plan("mine:1", PushOptions::default()).unwrap();
    assert_eq!(plan.manifest, None);
    let below = plan.layers[0].blob.as_ref().unwrap();
    assert_eq!(below.digest, Digest::of(&gzip(&base)));
    assert_eq!(plan.layers[0].origins, ["quay.io/base"]);
    assert!(plan.layers[1].blob.is_none());
}

fn place(text: &str) -> Transport {
    Transport::parse(text).unwrap().unwrap()
}

#[test]
fn places_are_written_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let [base, top] = layers();
    let id = load(&mut store, &named(&[&base, &top], &["x:1", "x:2"]))[0].id;
    let other = load(&mut store, &named(&[&small_layer()], &["y:1"]))[0].id;
    let at = |name: &str| dir.path().join(name).display().to_string();
    for (to, images, found) in [
        (format!("oci:{}:first", at("layout")), "x:1", "layout:first"),
        (format!("oci-archive:{}:v1", at("a.tar")), "x:1", "a:v1"),
        (format!("docker-archive:{}:z:9", at("d.tar")), "x:1", "z:9"),
    ] {
        store.save_to(&[images.to_owned()], &place(&to)).unwrap();
        let fresh = tempfile::tempdir().unwrap();
        let mut store = open(fresh.path());
        let loaded = store.load_from(&place(&to), &mut |_| {}).unwrap();
        assert_eq!(loaded.len(), 1, "{to}");
        assert_eq!(store.resolve(found).unwrap().id, id, "{to}");
        let missing = to
            .rsplit_once(':')
            .unwrap()
            .0
            .trim_end_matches(":z")
            .to_owned()
            + ":no";
        let error = store.load_from(&place(&missing), &mut |_| {}).unwrap_err();
        assert!(
            matches!(error, LoadError::NotInside(_)),
            "{missing}: {error:?}"
        );
        if have("skopeo") {
            let args = ["inspect", "--config", "--raw", &to];
            let output = Command::new("skopeo").args(args).output().unwrap();
            assert_eq!(Digest::of(&output.stdout), *id.digest(), "{to}");
        }
    }
    // A second image in the same layout, and another in the first one's place.
    let to = |tag: &str| place(&format!("oci:{}:{tag}", at("layout")));
    store.save_to(&["y:1".to_owned()], &to("second")).unwrap();
    let mut fresh = Store::open(dir.path().join("fresh")).unwrap();
    let all = place(&format!("oci:{}", at("layout")));
    assert_eq!(fresh.load_from(&all, &mut |_| {}).unwrap().len(), 2);
    store.save_to(&["y:1".to_owned()], &to("first")).unwrap();
    let loaded = fresh.load_from(&to("first"), &mut |_| {}).unwrap();
    assert_eq!(loaded[0].id, other);
    // What cannot be, and leaves what was there.
    let images = ["x:1".to_owned(), "y:1".to_owned()];
    let archive = place(&format!("docker-archive:{}:z:9", at("d.tar")));
    let before = std::fs::read(dir.path().join("d.tar")).unwrap();
    let error = store.save_to(&images, &archive).unwrap_err();
    assert!(matches!(error, SaveError::OneName(_)), "{error:?}");
    assert_eq!(std::fs::read(dir.path().join("d.tar")).unwrap(), before);
    std::fs::create_dir(dir.path().join("full")).unwrap();
    std::fs::write(dir.path().join("full/x"), b"").unwrap();
    let full = place(&format!("oci:{}", at("full")));
    let error = store.save_to(&images, &full).unwrap_err();
    assert!(matches!(error, SaveError::NotEmpty(_)), "{error:?}");
    for (kind, name) in [
        ("oci", "d.tar"),
        ("oci-archive", "layout"),
        ("docker-archive", "layout"),
    ] {
        let from = place(&format!("{kind}:{}", at(name)));
        let error = store.load_from(&from, &mut |_| {}).unwrap_err();
        assert!(matches!(error, LoadError::Unexpected { .. }), "{error:?}");
    }
    let wrong = place(&format!("oci-archive:{}", at("d.tar")));
    let error = store.load_from(&wrong, &mut |_| {}).unwrap_err();
    assert!(matches!(error, LoadError::NotAnImage), "{error:?}");
    let files = std::fs::read_dir(dir.path()).unwrap().flatten();
    let parts = files.filter(|f| f.file_name().to_string_lossy().ends_with(".part"));
    assert_eq!(parts.count(), 0);
}

#[test]
fn a_loaded_layout_goes_out_as_it_came_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let mut layout = Layout::new();
    let [base, _] = layers();
    let manifest = layout.image(&[&base], |_| {});
    layout.index(std::slice::from_ref(&manifest));
    let id = load(&mut store, &layout.tar())[0].id;
    let plan = store
        .push_plan(&id.to_string(), PushOptions::default())
        .unwrap();
    assert_eq!(
        manifest["digest"],
        plan.manifest.unwrap().digest.to_string()
    );
    let blob = plan.layers[0].blob.clone().unwrap();
    assert_eq!(blob.digest, Digest::of(&gzip(&base)));
    // And a pull of the same layer fetches nothing.
    let packed = Remote::packed(&[&base], &[zstd(&base)], LAYER, "other:1", |_| {});
    assert_eq!(packed.pull(&mut store).unwrap().1, 0);
    assert_eq!(count(store.root(), "layers"), 1);
}
