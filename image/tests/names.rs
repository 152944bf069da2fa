//! Names, their manifests and their digests: one image may be in several manifests.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::archive::{LAYER, Layout, gzip, zstd};
use common::pull::Remote;
use common::store::{count, load, unused};
use common::testing::TarBuilder;
use hullbox_image::{
    CheckOptions, Digest, ImageUse, PruneOptions, PushOptions, RawManifest, Reference, RemoveError,
    Removed, Severity, Store,
};
use serde_json::json;
use std::path::Path;

fn open(dir: &Path) -> Store {
    Store::open(dir.join("store")).unwrap()
}

fn layer(name: &str) -> Vec<u8> {
    TarBuilder::default().file(name, name.as_bytes()).finish()
}

fn name(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// One image as two manifests: its layer with gzip, and with zstd.
fn two(gzipped: &str, zstded: &str) -> [Remote; 2] {
    let layer = layer("a");
    let zstd_type = LAYER.replace("gzip", "zstd");
    [
        Remote::packed(&[&layer], &[gzip(&layer)], LAYER, gzipped, |_| {}),
        Remote::packed(&[&layer], &[zstd(&layer)], &zstd_type, zstded, |_| {}),
    ]
}

/// What a push of this name sends, where the layers are as its manifest says.
fn sent(store: &Store, text: &str) -> RawManifest {
    let plan = store.push_plan(text, PushOptions::default()).unwrap();
    let layers: Vec<_> = plan
        .layers
        .iter()
        .map(|layer| layer.blob.clone().unwrap())
        .collect();
    plan.manifest_for(&layers).unwrap()
}

fn is_sound(store: &mut Store) {
    let report = store.check(CheckOptions::default(), &mut unused).unwrap();
    let bad = |finding: &&hullbox_image::Finding| finding.severity > Severity::Note;
    assert_eq!(report.findings.iter().find(bad), None);
}

#[test]
fn every_name_is_pushed_with_the_manifest_it_was_pulled_with() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let [a, b] = two("quay.io/x:a", "quay.io/x:b");
    let id = a.pull(&mut store).unwrap().0.id;
    assert_eq!(b.pull(&mut store).unwrap().0.id, id);
    let is = |store: &Store, text: &str, remote: &Remote| {
        let bytes = sent(store, text).bytes;
        assert_eq!(bytes, remote.request.manifest, "{text}");
    };
    is(&store, "quay.io/x:a", &a);
    is(&store, "quay.io/x:b", &b);
    // By its digest too, and whoever is tagged from it.
    for (remote, tag) in [(&a, "quay.io/y:a"), (&b, "quay.io/y:b")] {
        let by_digest = format!("quay.io/x@{}", remote.request.index.unwrap());
        is(&store, &by_digest, remote);
        store.tag(&by_digest, &name(tag)).unwrap();
        is(&store, tag, remote);
    }
    store.tag("quay.io/x:a", &name("z:1")).unwrap();
    is(&store, "z:1", &a);
    // Each tag is known by its own digest, so that neither is fetched again for nothing.
    let index = |remote: &Remote| Some((id, remote.request.index.unwrap()));
    assert_eq!(store.known_digest(&name("quay.io/x:a")).unwrap(), index(&a));
    assert_eq!(store.known_digest(&name("quay.io/x:b")).unwrap(), index(&b));
    assert_eq!(store.known_digest(&name("quay.io/y:a")).unwrap(), None);
    let lines = store.list().unwrap();
    let digest_of = |tag: &str| {
        let named = |line: &&hullbox_image::ImageSummary| {
            line.repository.as_deref() == Some("quay.io/x") && line.tag.as_deref() == Some(tag)
        };
        lines.iter().find(named).unwrap().digest
    };
    assert_eq!(digest_of("a"), a.request.index);
    assert_eq!(digest_of("b"), b.request.index);
    // As in Docker: what registries know, and not what else it is called here.
    let mut expected =
        [&a, &b].map(|remote| format!("quay.io/x@{}", remote.request.index.unwrap()));
    expected.sort();
    assert_eq!(store.inspect("z:1").unwrap().repo_digests, expected);
    is_sound(&mut store);

    // A tag that is moved, and one that goes, leave the others what they have.
    store.tag("quay.io/x:b", &name("z:1")).unwrap();
    is(&store, "z:1", &b);
    store.remove("quay.io/x:b", false, &mut unused).unwrap();
    store.remove("z:1", false, &mut unused).unwrap();
    is(&store, "quay.io/y:b", &b);
    is(&store, "quay.io/x:a", &a);
    is_sound(&mut store);
    store.remove("quay.io/x:a", false, &mut unused).unwrap();
    is(&store, "quay.io/y:a", &a);
    is_sound(&mut store);
    let all = PruneOptions {
        all: true,
        ..PruneOptions::default()
    };
    store.prune(&all, &mut unused).unwrap();
    assert_eq!(count(store.root(), "blobs/sha256"), 0);
}

#[test]
fn a_tag_that_is_pulled_anew_has_the_new_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let [a, b] = two("quay.io/x:1", "quay.io/x:1");
    a.pull(&mut store).unwrap();
    b.pull(&mut store).unwrap();
    assert_eq!(sent(&store, "quay.io/x:1").bytes, b.request.manifest);
    // The old one can still be had by its digest, until that goes.
    let old = format!("quay.io/x@{}", a.request.index.unwrap());
    assert_eq!(sent(&store, &old).bytes, a.request.manifest);
    let blobs = count(store.root(), "blobs/sha256");
    store.remove(&old, false, &mut unused).unwrap();
    assert_eq!(count(store.root(), "blobs/sha256"), blobs - 1);
    assert!(store.resolve(&old).is_err());
    // A push in another form does not change what the name stands for, and is not taken for it.
    let plan = store
        .push_plan("quay.io/x:1", PushOptions::default())
        .unwrap();
    let other = RawManifest {
        bytes: a.request.manifest.clone(),
        digest: a.manifest_digest(),
        media_type: String::new(),
    };
    store
        .pushed(&plan, &name("quay.io/x:1"), &other, &[])
        .unwrap();
    assert_eq!(sent(&store, "quay.io/x:1").bytes, b.request.manifest);
    let known = store.known_digest(&name("quay.io/x:1")).unwrap();
    assert_eq!(known.unwrap().1, b.request.index.unwrap());
    is_sound(&mut store);
}

#[test]
fn a_loaded_image_has_the_manifest_it_was_loaded_with() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let [a, _] = two("quay.io/x:1", "unused");
    a.pull(&mut store).unwrap();
    let mut layout = Layout::new();
    let mut loaded = layout.image(&[&layer("a")], |_| {});
    loaded["annotations"] = json!({"io.containerd.image.name": "docker.io/library/l:1"});
    layout.index(&[loaded.clone()]);
    load(&mut store, &layout.tar());
    assert_eq!(
        store.resolve("l:1").unwrap().id,
        store.resolve("quay.io/x:1").unwrap().id
    );
    assert_eq!(sent(&store, "quay.io/x:1").bytes, a.request.manifest);
    let digest = loaded["digest"].as_str().unwrap();
    assert_eq!(sent(&store, "l:1").digest.to_string(), digest);
    let expected = [
        format!("l@{digest}"),
        format!("quay.io/x@{}", a.request.index.unwrap()),
    ];
    assert_eq!(store.inspect("l:1").unwrap().repo_digests, expected);
    // No registry has told the digest: it stands for the names that have it.
    let removed = store
        .remove(&format!("l@{digest}"), false, &mut unused)
        .unwrap();
    assert_eq!(removed, [Removed::Untagged("l:1".to_owned())]);
    is_sound(&mut store);
}

/// Makes an index of the version before, with what that would have kept.
fn as_third_version(root: &Path) {
    let db = rusqlite::Connection::open(root.join("images.db")).unwrap();
    db.execute_batch(
        "ALTER TABLE names DROP COLUMN manifest; ALTER TABLE names DROP COLUMN digest;
         ALTER TABLE repo_digests DROP COLUMN manifest; PRAGMA user_version = 3;",
    )
    .unwrap();
}

#[test]
fn a_store_with_one_manifest_an_image_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let [a, b] = two("quay.io/x:1", "quay.io/y:1");
    a.pull(&mut store).unwrap();
    store.tag("quay.io/x:1", &name("local:1")).unwrap();
    let root = store.root().to_owned();
    let before = (store.inspect("local:1").unwrap(), sent(&store, "local:1"));
    drop(store);
    as_third_version(&root);
    let mut store = Store::open(&root).unwrap();
    let after = (store.inspect("local:1").unwrap(), sent(&store, "local:1"));
    // What an older version showed of names that no registry knows is still shown.
    assert_eq!(after.0.repo_tags, before.0.repo_tags);
    assert!(
        before
            .0
            .repo_digests
            .iter()
            .all(|one| after.0.repo_digests.contains(one))
    );
    assert_eq!(after.1, before.1);
    let x = name("quay.io/x:1");
    assert_eq!(
        store.known_digest(&x).unwrap().unwrap().1,
        a.request.index.unwrap()
    );
    is_sound(&mut store);
    // There was the manifest that came last, for all names. Of a name whose digest leads to another
    // manifest the digest is not taken for it: the next pull brings what belongs to the name.
    b.pull(&mut store).unwrap();
    drop(store);
    as_third_version(&root);
    let gone = a.manifest_digest().hex();
    std::fs::remove_file(root.join("blobs/sha256").join(gone)).unwrap();
    let mut store = Store::open(&root).unwrap();
    is_sound(&mut store);
    assert_eq!(sent(&store, "quay.io/y:1").bytes, b.request.manifest);
    assert_eq!(store.known_digest(&x).unwrap(), None);
    assert!(
        store
            .resolve(&format!("quay.io/x@{}", a.request.index.unwrap()))
            .is_ok()
    );
    assert_eq!(a.pull(&mut store).unwrap().1, 0);
    assert_eq!(sent(&store, "quay.io/x:1").bytes, a.request.manifest);
    assert_eq!(sent(&store, "quay.io/y:1").bytes, b.request.manifest);
    is_sound(&mut store);
}

#[test]
fn a_damaged_manifest_is_found_by_whatever_name_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let [a, b] = two("quay.io/x:a", "quay.io/x:b");
    a.pull(&mut store).unwrap();
    b.pull(&mut store).unwrap();
    let file = store
        .root()
        .join("blobs/sha256")
        .join(a.manifest_digest().hex());
    std::fs::write(&file, b"{}").unwrap();
    let check = |store: &mut Store, repair| {
        let options = CheckOptions {
            repair,
            quick: true,
        };
        store.check(options, &mut unused).unwrap()
    };
    let report = check(&mut store, false);
    let found = |finding: &hullbox_image::Finding| finding.path.as_ref() == Some(&file);
    assert!(report.findings.iter().any(found), "{report:?}");
    assert!(check(&mut store, true).is_sound());
    assert_eq!(check(&mut store, false).findings, []);
    assert_eq!(store.known_digest(&name("quay.io/x:a")).unwrap(), None);
    assert_eq!(sent(&store, "quay.io/x:b").bytes, b.request.manifest);
    a.pull(&mut store).unwrap();
    assert_eq!(sent(&store, "quay.io/x:a").bytes, a.request.manifest);
}

#[test]
fn a_digest_under_a_container_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let [a, b] = two("quay.io/x:1", "quay.io/x:1");
    a.pull(&mut store).unwrap();
    b.pull(&mut store).unwrap();
    let mut used = |_: &_| {
        Some(ImageUse::Stopped {
            container: "c1".into(),
        })
    };
    let [old, new] = [&a, &b].map(|remote| format!("quay.io/x@{}", remote.request.index.unwrap()));
    // With one repository and one tag, moby's isSingleReference.
    for text in [&old, &new, "quay.io/x:1"] {
        let error = store.remove(text, false, &mut used).unwrap_err();
        assert!(matches!(error, RemoveError::NameInUse { .. }), "{error}");
    }
    let removed = store.remove(&old, true, &mut used).unwrap();
    assert_eq!(removed, [Removed::Untagged(old)]);
    // Where another repository has it too, a name goes.
    store.tag("quay.io/x:1", &name("y:1")).unwrap();
    let removed = store.remove(&new, false, &mut used).unwrap();
    assert_eq!(removed, [Removed::Untagged(new)]);
    let digest = Digest::of(b"other");
    let error = store.remove(&format!("quay.io/x@{digest}"), false, &mut used);
    assert!(matches!(error.unwrap_err(), RemoveError::Resolve(_)));
}

#[test]
fn names_by_digest_are_removed_as_docker_removes_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let (a, b) = (layer("a"), layer("b"));
    let old = Remote::new(&[&a], "quay.io/x:1");
    let new = Remote::new(&[&b], "quay.io/x:1");
    let old_id = old.pull(&mut store).unwrap().0.id;
    new.pull(&mut store).unwrap();
    // The tag went to the new one; the old one is still known by its digest.
    let digest = old.request.index.unwrap();
    let lines = store.list().unwrap();
    let line = lines.iter().find(|line| line.id == old_id).unwrap();
    assert_eq!(line.repository.as_deref(), Some("quay.io/x"));
    assert_eq!((line.tag.as_deref(), line.digest), (None, Some(digest)));
    let by_digest = format!("quay.io/x@{digest}");
    let removed = store.remove(&by_digest, false, &mut unused).unwrap();
    let gone = [
        Removed::Untagged(by_digest.clone()),
        Removed::Deleted(old_id),
    ];
    assert_eq!(removed, gone);
    // By its digest a name with a tag loses the digest alone.
    let digest = new.request.index.unwrap();
    let by_digest = format!("quay.io/x@{digest}");
    let removed = store.remove(&by_digest, false, &mut unused).unwrap();
    assert_eq!(removed, [Removed::Untagged(by_digest.clone())]);
    let new_id = new.pull(&mut store).unwrap().0.id;
    // The last tag takes the digests of its repository along.
    let removed = store.remove("quay.io/x:1", false, &mut unused).unwrap();
    let tag = Removed::Untagged("quay.io/x:1".to_owned());
    let digest = Removed::Untagged(by_digest);
    assert_eq!(removed, [tag, digest.clone(), Removed::Deleted(new_id)]);
    // Pulled by digest alone, and pruned, for it has no tag.
    let mut untagged = new.clone();
    untagged.request.names.clear();
    untagged.pull(&mut store).unwrap();
    let pruned = store.prune(&PruneOptions::default(), &mut unused).unwrap();
    assert_eq!(pruned.removed, [digest, Removed::Deleted(new_id)]);
    for part in ["layers", "recipes", "blobs/sha256"] {
        assert_eq!(count(store.root(), part), 0, "{part}");
    }
}
