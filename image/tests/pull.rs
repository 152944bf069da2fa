//! Images that arrive in pieces: resumed, shared between pulls, verified, and forgotten again.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::archive::{LAYER, gzip, zstd};
use common::pull::{Breaks, Remote, task};
use common::store::{count, unused};
use common::testing::TarBuilder;
use hullbox_image::{
    CheckOptions, Digest, LayerState, LayerStep, Limits, LoadError, PruneOptions, PullError,
    Reference, Severity, Store,
};
use serde_json::json;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that do not compress, always the same.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn layer(name: &str, bytes: usize) -> Vec<u8> {
    let data = noise(bytes, Digest::of(name.as_bytes()).as_bytes()[0].into());
    TarBuilder::default().file(name, &data).finish()
}

/// A layer that means something on top of others only.
fn dependent_layer() -> Vec<u8> {
    TarBuilder::default()
        .file("a/new", b"new")
        .file("a/.wh.gone", b"")
        .hard_link("again", "first")
        .finish()
}

fn three_layers(name: &str) -> Remote {
    let [a, b] = [layer("first", 700_000), layer("second", 50_000)];
    Remote::new(&[&a, &b, &dependent_layer()], name)
}

fn open(dir: &Path) -> Store {
    Store::open(dir.join("store")).unwrap()
}

fn is_sound(store: &mut Store) {
    let report = store.check(CheckOptions::default(), &mut unused).unwrap();
    let bad = |finding: &&hullbox_image::Finding| finding.severity > Severity::Note;
    assert_eq!(report.findings.iter().find(bad), None);
}

#[test]
fn a_pulled_image_is_like_a_loaded_one_and_known_by_its_digests() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let remote = three_layers("quay.io/a/b:1");
    let (loaded, bytes) = remote.pull(&mut store).unwrap();
    let all: usize = remote.blobs.values().map(Vec::len).sum();
    assert_eq!(bytes, all as u64);
    assert_eq!(store.resolve("quay.io/a/b:1").unwrap().id, loaded.id);
    assert_eq!(store.resolve("quay.io/a/b:1").unwrap().layers.len(), 3);
    let index = remote.request.index.unwrap();
    for digest in [index, remote.manifest_digest()] {
        let image = store.resolve(&format!("quay.io/a/b@{digest}")).unwrap();
        assert_eq!(image.id, loaded.id);
    }
    let name = Reference::parse("quay.io/a/b:1").unwrap();
    assert_eq!(store.known_digest(&name).unwrap(), Some((loaded.id, index)));
    assert_eq!(store.images_by_digest(&name, &index).unwrap(), [loaded.id]);
    let inspect = store.inspect("quay.io/a/b:1").unwrap();
    assert_eq!(inspect.repo_digests, [format!("quay.io/a/b@{index}")]);
    let lines = store.list().unwrap();
    assert_eq!(lines[0].digest, Some(index));
    let config = remote.request.config.clone();
    assert_eq!(store.stored_config(loaded.id.digest()), Some(config));
    for part in ["partial", "staging"] {
        assert_eq!(count(store.root(), part), 0, "{part}");
    }
    is_sound(&mut store);
    // The same once more, and under another name: nothing is fetched.
    assert_eq!(remote.pull(&mut store).unwrap(), (loaded.clone(), 0));
    let other = three_layers("docker.io/library/c:2");
    assert_eq!(other.pull(&mut store).unwrap().1, 0);
    let inspect = store.inspect("c:2").unwrap();
    let expected = [format!("c@{index}"), format!("quay.io/a/b@{index}")];
    assert_eq!(inspect.repo_digests, expected);
}

#[test]
fn a_layer_that_the_store_has_in_another_dress_is_not_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let a = layer("a", 10_000);
    Remote::new(&[&a], "gzipped:1").pull(&mut store).unwrap();
    let media_type = LAYER.replace("gzip", "zstd");
    let other = Remote::packed(&[&a], &[zstd(&a)], &media_type, "zstd:1", |_| {});
    let pull = store.begin_pull(other.request.clone()).unwrap();
    assert_eq!(pull.wanted().unwrap()[0].state, LayerState::Had);
    pull.finish(&mut store).unwrap();
    let one = store.resolve("gzipped:1").unwrap().id;
    assert_eq!(store.resolve("zstd:1").unwrap().id, one);
}

#[test]
fn a_broken_connection_leaves_bytes_that_are_not_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let remote = three_layers("x");
    let pull = store.begin_pull(remote.request.clone()).unwrap();
    let first = task(&pull, 0);
    let bytes = &remote.blobs[&first.info().digest];
    let error = first
        .feed(Breaks {
            bytes,
            after: 300_000,
        })
        .unwrap_err();
    assert!(matches!(error, PullError::Source(..)), "{error:?}");
    // In the same pull, a bit further, and in the next one.
    let again = task(&pull, 0);
    assert_eq!(again.partial_bytes(), 300_000);
    let rest = remote.rest(&again);
    again
        .feed(Breaks {
            bytes: rest,
            after: 1000,
        })
        .unwrap_err();
    drop(pull);
    assert!(store.resolve("x").is_err());
    let usage = store.partial_use().unwrap();
    assert_eq!((usage.count, usage.active), (1, 0));
    assert!(usage.reclaimable_bytes >= 301_000);
    let pull = store.begin_pull(remote.request.clone()).unwrap();
    let states: Vec<_> = pull.wanted().unwrap().iter().map(|w| w.state).collect();
    let missing = LayerState::Missing;
    assert_eq!(states, [LayerState::Partial(301_000), missing, missing]);
    remote.feed(&pull).unwrap();
    pull.finish(&mut store).unwrap();
    is_sound(&mut store);
    assert_eq!(count(store.root(), "partial"), 0);
}

#[test]
fn a_layer_that_was_converted_is_there_for_the_next_pull() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let remote = three_layers("x");
    let pull = store.begin_pull(remote.request.clone()).unwrap();
    for index in [0, 2] {
        let task = task(&pull, index);
        let rest = remote.rest(&task);
        task.feed(rest).unwrap();
    }
    drop(pull);
    let pull = store.begin_pull(remote.request.clone()).unwrap();
    let states: Vec<_> = pull.wanted().unwrap().iter().map(|w| w.state).collect();
    let converted = LayerState::Converted;
    assert_eq!(states, [converted, LayerState::Missing, converted]);
    let error = store.begin_pull(remote.request.clone()).unwrap();
    assert!(matches!(
        error.finish(&mut store),
        Err(PullError::Incomplete(_))
    ));
    let fed = remote.feed(&pull).unwrap();
    assert_eq!(fed, remote.blobs[&pull.layers()[1].digest].len() as u64);
    pull.finish(&mut store).unwrap();
    is_sound(&mut store);
    assert_eq!(count(store.root(), "partial"), 0);
}

#[test]
fn ten_pulls_at_once_fetch_every_layer_once() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let remote = three_layers("x");
    let fed = AtomicU64::new(0);
    let start = Barrier::new(10);
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let mut store = open(dir.path());
                start.wait();
                let (_, bytes) = remote.pull(&mut store).unwrap();
                fed.fetch_add(bytes, Ordering::Relaxed);
            });
        }
    });
    let all: usize = remote.blobs.values().map(Vec::len).sum();
    assert_eq!(fed.into_inner(), all as u64);
    let mut store = open(dir.path());
    is_sound(&mut store);
    assert_eq!(count(store.root(), "partial"), 0);
    assert_eq!(count(store.root(), "staging"), 0);
}

#[test]
fn a_layer_that_another_pull_fetches_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let remote = three_layers("x");
    let one = store.begin_pull(remote.request.clone()).unwrap();
    let two = store.begin_pull(remote.request.clone()).unwrap();
    let first = task(&one, 0);
    assert!(two.try_layer(0).unwrap().is_none());
    assert_eq!(
        store.partial_use().unwrap().active,
        0,
        "nothing is there yet"
    );
    let other = two.try_layer(1).unwrap();
    assert!(matches!(other, Some(LayerStep::Fetch(_))));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| two.layer(0).unwrap());
        let rest = remote.rest(&first);
        first.feed(rest).unwrap();
        assert!(matches!(waiting.join().unwrap(), LayerStep::Had));
    });
    // Dropped without a word: the next one gets the layer.
    drop(other);
    assert!(matches!(
        one.try_layer(1).unwrap(),
        Some(LayerStep::Fetch(_))
    ));
}

#[test]
fn lies_are_found_out_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let remote = three_layers("x");
    let real = remote.blobs.values().max_by_key(|blob| blob.len()).unwrap();
    let feed = |store: &Store, bytes: &[u8]| {
        let pull = store.begin_pull(remote.request.clone()).unwrap();
        task(&pull, 0).feed(bytes).unwrap_err()
    };
    let mut flipped = real.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let other = gzip(&layer("other", 700_000));
    let other = [&other[..], &vec![0; real.len()]].concat();
    let longer = [&real[..], b"x"].concat();
    assert!(matches!(
        feed(&store, &flipped),
        PullError::Content(LoadError::Digest { .. } | LoadError::Layer(..))
    ));
    assert!(matches!(feed(&store, &longer), PullError::TooLong { .. }));
    assert!(matches!(
        feed(&store, &other[..real.len()]),
        PullError::Content(_)
    ));
    let endless = feed(&store, &vec![0; 4 * real.len()]);
    assert!(matches!(
        endless,
        PullError::Content(_) | PullError::TooLong { .. }
    ));
    assert_eq!(count(store.root(), "partial"), 0);
    // What is cut off is kept: it may be right.
    assert!(matches!(
        feed(&store, &real[..1000]),
        PullError::CutOff { found: 1000, .. }
    ));
    assert_eq!(store.partial_use().unwrap().count, 1);
    assert_eq!(count(store.root(), "staging"), 0);
    assert_eq!(count(store.root(), "layers"), 0);
    remote.pull(&mut store).unwrap();
    is_sound(&mut store);
}

#[test]
fn a_damaged_part_of_an_earlier_pull_is_told_and_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let a = layer("a", 500_000);
    let remote = Remote::new(&[&a], "x");
    let digest = *remote.blobs.keys().next().unwrap();
    let part = store.root().join(format!("partial/{}.part", digest.hex()));
    let pull = store.begin_pull(remote.request.clone()).unwrap();
    for damage in [vec![0; 200_000], remote.blobs[&digest][..200_000].to_vec()] {
        let mut damage = damage;
        damage[100_000] ^= 4;
        std::fs::write(&part, damage).unwrap();
        let bad = task(&pull, 0);
        assert_eq!(bad.partial_bytes(), 200_000);
        let rest = remote.rest(&bad);
        let error = bad.feed(rest).unwrap_err();
        assert!(error.retry_from_start(), "{error:?}");
        assert!(!part.exists());
    }
    // One that is longer than the blob can be is no part of it.
    std::fs::write(&part, vec![7; remote.blobs[&digest].len() + 1]).unwrap();
    let bad = task(&pull, 0);
    assert_eq!(bad.partial_bytes(), 0);
    drop(bad);
    // All of it was there already.
    std::fs::write(&part, &remote.blobs[&digest]).unwrap();
    assert_eq!(remote.feed(&pull).unwrap(), 0);
    pull.finish(&mut store).unwrap();
    is_sound(&mut store);
}

#[test]
fn documents_that_do_not_fit_are_refused_before_anything_is_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let a = layer("a", 100);
    let packed = [gzip(&a)];
    let spoil = |change: fn(&mut serde_json::Value)| {
        Remote::packed(&[&a], &packed, LAYER, "x", change).request
    };
    let mut cases = vec![
        spoil(|manifest| manifest["layers"] = json!([])),
        spoil(|manifest| manifest["config"]["size"] = json!(1)),
        spoil(|manifest| manifest["layers"][0]["size"] = json!(u64::MAX)),
        spoil(|manifest| manifest["layers"][0]["mediaType"] = json!("text/plain")),
        spoil(|manifest| manifest["schemaVersion"] = json!(1)),
        spoil(|manifest| manifest["manifests"] = json!([])),
    ];
    let sound = spoil(|_| {});
    let with = |change: &dyn Fn(&mut hullbox_image::PullRequest)| {
        let mut request = sound.clone();
        change(&mut request);
        request
    };
    cases.push(with(&|request| request.config.push(b' ')));
    cases.push(with(&|request| request.manifest.truncate(10)));
    cases.push(with(&|request| request.manifest = vec![b'['; 100 << 20]));
    cases.push(with(&|request| {
        request.media_type = Some("text/plain".into())
    }));
    for request in cases {
        let error = store.begin_pull(request).unwrap_err();
        assert!(matches!(error, PullError::Content(_)), "{error:?}");
    }
    // Another tar than the configuration says.
    let b = layer("b", 100);
    let mut lie = Remote::packed(&[&a], &[gzip(&b)], LAYER, "x", |_| {});
    lie.request.index = None;
    let pull = store.begin_pull(lie.request.clone()).unwrap();
    let error = lie.feed(&pull).unwrap_err();
    assert!(matches!(
        error,
        PullError::Content(LoadError::DiffId { .. })
    ));
    drop(pull);
    for part in ["partial", "staging", "layers"] {
        assert_eq!(count(store.root(), part), 0, "{part}");
    }
}

#[test]
fn one_blob_twice_in_an_image_is_fetched_once_and_must_be_one_thing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let [a, b] = [layer("a", 1000), layer("b", 1000)];
    let remote = Remote::new(&[&a, &b, &a], "x");
    let pull = store.begin_pull(remote.request.clone()).unwrap();
    assert_eq!(pull.layers().len(), 2);
    remote.feed(&pull).unwrap();
    pull.finish(&mut store).unwrap();
    assert_eq!(store.resolve("x").unwrap().layers.len(), 3);
    let lie = Remote::packed(&[&a, &b], &[gzip(&a), gzip(&a)], LAYER, "y", |_| {});
    assert!(matches!(
        store.begin_pull(lie.request).unwrap_err(),
        PullError::Content(LoadError::Contradiction(..))
    ));
}

#[test]
fn bombs_and_budgets_stop_a_layer() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        expansion_grace_bytes: 1 << 20,
        max_expansion: 50,
        max_total_layer_bytes: 40 << 20,
        ..Limits::default()
    };
    let store = open(dir.path()).with_limits(limits);
    let bomb = TarBuilder::default().file("z", &vec![0; 16 << 20]).finish();
    let remote = Remote::new(&[&bomb], "x");
    let pull = store.begin_pull(remote.request.clone()).unwrap();
    let error = remote.feed(&pull).unwrap_err();
    assert!(
        matches!(error, PullError::Content(LoadError::Refused(..))),
        "{error:?}"
    );
    drop(pull);
    assert_eq!(count(store.root(), "partial"), 0);
    assert_eq!(count(store.root(), "staging"), 0);
}

#[test]
fn a_layer_of_many_entries_gets_the_memory_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let with = |bytes| {
        let limits = Limits {
            max_layer_memory_bytes: bytes,
            ..Limits::default()
        };
        open(dir.path()).with_limits(limits)
    };
    let mut tar = TarBuilder::default();
    for n in 0..5000 {
        tar.file(&format!("file-{n}"), b"x");
    }
    let remote = Remote::new(&[&tar.finish()], "x");
    // More than a sixth of this, and less than all.
    let mut store = with(1 << 20);
    let (loaded, bytes) = remote.pull(&mut store).unwrap();
    assert_eq!(bytes, remote.blobs.values().next().unwrap().len() as u64);
    assert_eq!(store.resolve("x").unwrap().id, loaded.id);
    store.remove("x", false, &mut unused).unwrap();
    let mut store = with(100_000);
    let error = remote.pull(&mut store).unwrap_err();
    assert!(error.to_string().contains("layer"), "{error}");
    assert!(matches!(error, PullError::Content(LoadError::Layer(..))));
}

#[test]
fn prune_and_check_know_partial_downloads() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let remote = three_layers("x");
    let pull = store.begin_pull(remote.request.clone()).unwrap();
    let second = task(&pull, 1);
    let rest = remote.rest(&second);
    second.feed(rest).unwrap();
    let first = task(&pull, 0);
    let bytes = &remote.blobs[&first.info().digest];
    first
        .feed(Breaks {
            bytes,
            after: 100_000,
        })
        .unwrap_err();
    let busy = task(&pull, 0);
    // One converted, one begun that somebody is at work on.
    let usage = store.usage(&mut unused).unwrap().partial;
    assert_eq!((usage.count, usage.active), (2, 1));
    let pruned = store.prune(&PruneOptions::default(), &mut unused).unwrap();
    assert_eq!(pruned.partial_downloads, 1);
    assert!(pruned.reclaimed_bytes >= 50_000 && pruned.reclaimed_bytes < 200_000);
    assert_eq!(store.partial_use().unwrap().count, 1);
    // What was pruned under the pull it still has.
    let rest = remote.rest(&busy);
    busy.feed(rest).unwrap();
    remote.feed(&pull).unwrap();
    pull.finish(&mut store).unwrap();
    is_sound(&mut store);
    // Left by somebody who was killed.
    let name = Digest::of(b"x").hex();
    let place = store.root().join("partial");
    std::fs::write(place.join(format!("{name}.part")), b"x").unwrap();
    std::fs::write(place.join(format!("{name}.lock")), b"").unwrap();
    std::fs::write(place.join("stray"), b"").unwrap();
    let check = |store: &mut Store, repair| {
        let options = CheckOptions {
            repair,
            quick: true,
        };
        let report = store.check(options, &mut unused).unwrap();
        (report.is_sound(), report.findings.len())
    };
    assert_eq!(check(&mut store, false), (false, 2));
    assert_eq!(check(&mut store, true), (true, 2));
    assert_eq!(check(&mut store, false), (true, 1));
    let young = PruneOptions {
        until: Some(1000),
        ..PruneOptions::default()
    };
    assert_eq!(
        store.prune(&young, &mut unused).unwrap().partial_downloads,
        0
    );
    let pruned = store.prune(&PruneOptions::default(), &mut unused).unwrap();
    assert_eq!(pruned.partial_downloads, 1);
    assert_eq!(count(store.root(), "partial"), 0);
}

#[test]
fn spoiled_documents_and_blobs_never_enter_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let [a, b] = [layer("first", 3000), dependent_layer()];
    let sound = Remote::new(&[&a, &b], "x");
    let dice = noise(200 * 24, 7);
    let mut dice = dice.chunks_exact(8).map(|chunk| {
        let bytes: [u8; 8] = chunk.try_into().unwrap();
        usize::try_from(u64::from_le_bytes(bytes) >> 8).unwrap()
    });
    let (mut refused, mut taken) = (0, 0);
    while let (Some(what), Some(at), Some(how)) = (dice.next(), dice.next(), dice.next()) {
        let mut remote = sound.clone();
        let count = remote.blobs.len();
        let bytes = match what % 4 {
            0 => &mut remote.request.manifest,
            1 => &mut remote.request.config,
            blob => remote.blobs.values_mut().nth(blob % count).unwrap(),
        };
        let at = at % bytes.len();
        match how % 3 {
            0 => bytes[at] ^= 1 << (how / 3 % 8),
            1 => bytes.truncate(at),
            _ => bytes.insert(at, bytes[at]),
        }
        let blobs_are_sound = what % 4 < 2;
        match remote.pull(&mut store) {
            Ok(_) => {
                // Its manifest is another image's, or one that says the same.
                assert!(blobs_are_sound && what % 4 == 0, "{what} {at} {how}");
                taken += 1;
                store.remove("x", true, &mut unused).unwrap();
            }
            Err(_) => refused += 1,
        }
        let all = PruneOptions {
            all: true,
            ..PruneOptions::default()
        };
        store.prune(&all, &mut unused).unwrap();
        for part in ["layers", "recipes", "blobs/sha256", "partial", "staging"] {
            assert_eq!(count_of(&store, part), 0, "{part}: {what} {at} {how}");
        }
    }
    assert_eq!(refused + taken, 200);
    assert!(refused > 150, "{refused}");
}

fn count_of(store: &Store, part: &str) -> usize {
    count(store.root(), part)
}
