//! The store's operations, alone, together, and killed.

mod common;

use common::archive::{Layout, config, docker, gzip, image, small_layer, zstd};
use common::store::{count, load, named, unused};
use common::testing::TarBuilder;
use hullbox_image::{
    ImageId, ImageUse, ImportOptions, LoadOptions, Reference, RemoveError, Removed, ResolveError,
    Source, Store,
};

fn layer(name: &str) -> Vec<u8> {
    TarBuilder::default().file(name, name.as_bytes()).finish()
}

#[test]
fn an_image_is_found_by_every_name_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let loaded = load(
        &mut store,
        &named(&[&small_layer()], &["debian:12", "quay.io/a/b:c"]),
    );
    let id = loaded[0].id;
    let hex = id.hex();
    for name in [
        "debian:12",
        "docker.io/library/debian:12",
        "quay.io/a/b:c",
        &hex,
        &hex[..12],
        &hex[..1],
        &format!("sha256:{hex}"),
        &format!("sha256:{}", &hex[..12]),
        &format!("debian@sha256:{hex}"),
    ] {
        let image = store.resolve(name).unwrap();
        assert_eq!((image.id, image.layers.len()), (id, 1), "{name}");
    }
    for name in [
        "debian",
        "b:c",
        "nothing",
        "",
        "Debian:12",
        &format!("ubuntu@sha256:{hex}"),
    ] {
        assert!(
            matches!(store.resolve(name), Err(ResolveError::NotFound(_))),
            "{name}"
        );
    }
    let image = store.resolve("debian:12").unwrap();
    let cmd = image.config.config().as_ref().unwrap().cmd().clone();
    assert_eq!(cmd, Some(vec!["/hello".to_owned()]));
    assert_eq!(image.layers[0].size_bytes % 4096, 0);
    // The same from another process's view.
    let again = Store::open(dir.path()).unwrap();
    assert_eq!(again.resolve("debian:12").unwrap().layers, image.layers);
}

#[test]
fn listings_are_those_of_docker() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    load(&mut store, &named(&[&small_layer()], &["b:1", "a:1"]));
    load(&mut store, &named(&[&layer("x")], &[]));
    let lines: Vec<_> = store
        .list()
        .unwrap()
        .into_iter()
        .map(|i| (i.repository, i.tag, i.size_bytes, i.created))
        .collect();
    let some = |text: &str| Some(text.to_owned());
    let created = Some(1_767_323_045);
    assert_eq!(
        lines,
        [
            (None, None, 1, created),
            (some("a"), some("1"), 6, created),
            (some("b"), some("1"), 6, created),
        ]
    );
    let inspect = store.inspect("a:1").unwrap();
    assert_eq!(inspect.repo_tags, ["a:1", "b:1"]);
    assert_eq!(inspect.config.cmd, Some(vec!["/hello".to_owned()]));
    assert_eq!(inspect.created, "2026-01-02T03:04:05Z");
    assert_eq!(inspect.root_fs.layers.len(), 1);
}

#[test]
fn layers_are_kept_once_and_as_long_as_needed() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let (base, top, other) = (layer("base"), layer("top"), layer("other"));
    load(&mut store, &named(&[&base, &top], &["a"]));
    load(&mut store, &named(&[&base, &other], &["b"]));
    load(&mut store, &named(&[&base, &other], &["b"]));
    assert_eq!(count(dir.path(), "layers"), 3);
    let a = store.resolve("a").unwrap();
    assert_eq!(a.layers[0], store.resolve("b").unwrap().layers[0]);
    let removed = store.remove("a", false, &mut unused).unwrap();
    assert_eq!(
        removed,
        [Removed::Untagged("a:latest".into()), Removed::Deleted(a.id)]
    );
    assert_eq!(count(dir.path(), "layers"), 2);
    assert_eq!(count(dir.path(), "blobs/sha256"), 1);
    store.remove("b", false, &mut unused).unwrap();
    assert_eq!(
        count(dir.path(), "layers") + count(dir.path(), "blobs/sha256"),
        0
    );
    assert_eq!(count(dir.path(), "staging"), 0);
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn names_move_and_images_without_names_stay() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let old = load(&mut store, &named(&[&layer("old")], &["a:1"]))[0].id;
    let new = load(&mut store, &named(&[&layer("new")], &["a:1"]))[0].id;
    assert_eq!(store.resolve("a:1").unwrap().id, new);
    assert_eq!(store.resolve(&old.short()).unwrap().id, old);
    let name = Reference::parse("other/name:2").unwrap();
    assert_eq!(store.tag("a:1", &name).unwrap(), new);
    assert_eq!(store.resolve("other/name:2").unwrap().id, new);
    assert!(matches!(
        store.tag("nothing", &name),
        Err(ResolveError::NotFound(_))
    ));
}

#[test]
fn removal_follows_dockers_rules() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let id = load(
        &mut store,
        &named(&[&small_layer()], &["a:1", "a:2", "b:1"]),
    )[0]
    .id;
    let stopped = |_: &ImageId| {
        Some(ImageUse::Stopped {
            container: "c1".into(),
        })
    };
    let running = |_: &ImageId| {
        Some(ImageUse::Running {
            container: "c2".into(),
        })
    };
    // A name goes by itself while there are others, used or not.
    let removed = store.remove("b:1", false, &mut { running }).unwrap();
    assert_eq!(removed, [Removed::Untagged("b:1".into())]);
    // By id, several names need force.
    assert!(matches!(
        store.remove(&id.short(), false, &mut unused),
        Err(RemoveError::ManyNames { .. })
    ));
    store.remove("a:2", false, &mut unused).unwrap();
    // The last name takes the image along, which a container may hold on to.
    let error = store.remove("a:1", false, &mut { stopped }).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "conflict: unable to remove repository reference \"a:1\" (must force) - \
             container c1 is using its referenced image {}",
            id.short()
        )
    );
    assert!(matches!(
        store.remove(&id.short(), false, &mut { stopped }),
        Err(RemoveError::UsedByStopped { .. })
    ));
    assert!(matches!(
        store.remove(&id.short(), true, &mut { running }),
        Err(RemoveError::UsedByRunning { .. })
    ));
    let removed = store.remove("a:1", true, &mut { running }).unwrap();
    assert_eq!(removed, [Removed::Untagged("a:1".into())]);
    assert_eq!(store.resolve(&id.hex()).unwrap().id, id);
    let removed = store.remove(&id.short(), false, &mut unused).unwrap();
    assert_eq!(removed, [Removed::Deleted(id)]);
    assert!(matches!(
        store.remove("a:1", false, &mut unused),
        Err(RemoveError::Resolve(ResolveError::NotFound(_)))
    ));
}

#[test]
fn short_ids_may_be_ambiguous() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let mut ids: Vec<String> = Vec::new();
    // Seventeen images share a first digit somewhere.
    for i in 0..17 {
        let mut config = config(&[]);
        config["author"] = i.into();
        config["author"] = format!("{i}").into();
        let archive = docker(config.to_string().as_bytes(), &[], &[], true);
        ids.push(load(&mut store, &archive)[0].id.hex());
    }
    let twice = ids
        .iter()
        .find(|a| ids.iter().filter(|b| b[..1] == a[..1]).count() > 1)
        .unwrap();
    assert!(matches!(
        store.resolve(&twice[..1]),
        Err(ResolveError::Ambiguous(_))
    ));
}

#[test]
fn every_form_of_an_image_is_the_same_image() {
    let (base, top) = (layer("base"), layer("top"));
    let layers: [&[u8]; 2] = [&base, &top];
    let mut layout = Layout::new();
    let manifest = layout.image(&layers, |_| {});
    layout.index(&[manifest]);
    let plain = image(&layers);
    let text = config(&layers).to_string();
    let packed = docker(text.as_bytes(), &[&gzip(&base), &zstd(&top)], &[], true);
    let mut ids = Vec::new();
    for archive in [
        plain.clone(),
        gzip(&plain),
        zstd(&plain),
        packed,
        layout.tar(),
        gzip(&layout.tar()),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path().join("s")).unwrap();
        ids.push(load(&mut store, &archive)[0].id);
        let file = dir.path().join("x.tar");
        std::fs::write(&file, &archive).unwrap();
        let source = Source::Path(&file);
        let again = store
            .load(source, &LoadOptions::default(), &mut |_| {})
            .unwrap();
        ids.push(again[0].id);
        assert_eq!(count(&dir.path().join("s"), "layers"), 2);
    }
    let dir = tempfile::tempdir().unwrap();
    layout.write_to(&dir.path().join("debian"));
    let mut store = Store::open(dir.path().join("s")).unwrap();
    let path = dir.path().join("debian");
    let source = Source::Path(&path);
    ids.push(
        store
            .load(source, &LoadOptions::default(), &mut |_| {})
            .unwrap()[0]
            .id,
    );
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn layouts_get_the_names_they_say() {
    let annotated = |annotations: serde_json::Value| {
        let mut layout = Layout::new();
        let mut manifest = layout.image(&[&small_layer()], |_| {});
        manifest["annotations"] = annotations;
        layout.index(&[manifest]);
        layout
    };
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path().join("s")).unwrap();
    let mut names = |annotations, base: Option<&str>| {
        let options = LoadOptions {
            base_name: base.map(|name| Reference::parse(name).unwrap()),
            ..LoadOptions::default()
        };
        let archive = annotated(annotations).tar();
        let mut stream = &archive[..];
        let source = Source::Stream(&mut stream);
        let loaded = store.load(source, &options, &mut |_| {}).unwrap();
        loaded[0]
            .names
            .iter()
            .map(Reference::familiar)
            .collect::<Vec<_>>()
    };
    let short = "org.opencontainers.image.ref.name";
    let whole = "io.containerd.image.name";
    assert!(names(serde_json::json!({short: "12"}), None).is_empty());
    assert_eq!(
        names(serde_json::json!({short: "12"}), Some("debian")),
        ["debian:12"]
    );
    assert_eq!(names(serde_json::json!({short: "a/b:c"}), None), ["a/b:c"]);
    let both = serde_json::json!({whole: "docker.io/library/x:1", short: "1"});
    assert_eq!(names(both, Some("y")), ["x:1"]);
}

#[test]
fn a_tarball_is_imported() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let tarball = gzip(&small_layer());
    let mut stream = &tarball[..];
    let options = ImportOptions {
        name: Some(Reference::parse("imported").unwrap()),
        changes: vec!["CMD [\"/bin/true\"]".into(), "ENV A=b".into()],
        message: None,
        created: 1_700_000_000,
    };
    let source = Source::Stream(&mut stream);
    let id = store.import(source, &options, &mut |_| {}).unwrap();
    let image = store.resolve("imported").unwrap();
    assert_eq!((image.id, image.layers.len()), (id, 1));
    let config = image.config.config().as_ref().unwrap();
    assert_eq!(config.env().as_ref().unwrap()[0], "A=b");
    assert_eq!(
        store.inspect("imported").unwrap().comment,
        "Imported from -"
    );
    let mut junk = &b"not a tar"[..];
    let source = Source::Stream(&mut junk);
    assert!(store.import(source, &options, &mut |_| {}).is_err());
}

#[test]
fn an_index_of_the_future_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let db = rusqlite::Connection::open(dir.path().join("images.db")).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("newer hullbox"), "{error}");
}

#[test]
fn a_changed_configuration_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let id = load(&mut store, &named(&[], &["a"]))[0].id;
    std::fs::write(dir.path().join("blobs/sha256").join(id.hex()), "{}").unwrap();
    assert!(matches!(store.resolve("a"), Err(ResolveError::Config(..))));
}

#[test]
fn loads_and_removals_at_once_leave_a_valid_store() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let (base, top) = (layer("base"), layer("top"));
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (path, base, top) = (dir.path(), &base, &top);
            scope.spawn(move || {
                let mut store = Store::open(path).unwrap();
                for round in 0..10 {
                    let name = format!("w{worker}:{round}");
                    load(&mut store, &named(&[base, top], &[&name]));
                    let image = store.resolve(&name).unwrap();
                    assert!(image.layers.iter().all(|layer| layer.path.exists()));
                    store.remove(&name, false, &mut unused).unwrap();
                }
            });
        }
    });
    let store = Store::open(dir.path()).unwrap();
    assert!(store.list().unwrap().is_empty());
    assert_eq!(count(dir.path(), "staging"), 0);
    assert_eq!(count(dir.path(), "layers"), 0);
}

/// A source that stops in its middle until it is told to go on.
struct Waits<'a> {
    bytes: &'a [u8],
    stop_at: usize,
    go: &'a std::sync::Barrier,
}

impl std::io::Read for Waits<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.stop_at == 0 {
            self.go.wait();
            self.stop_at = usize::MAX;
        }
        let len = buffer.len().min(self.stop_at).min(self.bytes.len());
        buffer[..len].copy_from_slice(&self.bytes[..len]);
        self.bytes = &self.bytes[len..];
        self.stop_at -= len;
        Ok(len)
    }
}

#[test]
fn a_load_does_not_wait_for_another_that_is_slow() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let (shared, own) = (layer("shared"), layer("own"));
    let slow = named(&[&shared, &own], &["slow"]);
    let go = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| {
            let mut stream = Waits {
                bytes: &slow,
                stop_at: slow.len() / 2,
                go: &go,
            };
            let mut store = Store::open(dir.path()).unwrap();
            let source = Source::Stream(&mut stream);
            store.load(source, &LoadOptions::default(), &mut |_| {})
        });
        // These end while the other stands still: a command of each kind, over its layers too.
        let mut store = Store::open(dir.path()).unwrap();
        for name in ["one", "two", "three"] {
            load(&mut store, &named(&[&shared], &[name]));
            store.remove(name, false, &mut unused).unwrap();
        }
        load(&mut store, &named(&[&shared], &["kept"]));
        assert!(store.resolve("slow").is_err());
        go.wait();
        loading.join().unwrap().unwrap();
        assert_eq!(store.resolve("slow").unwrap().layers.len(), 2);
    });
    assert_eq!(count(dir.path(), "staging"), 0);
    assert_eq!(count(dir.path(), "layers"), 2);
}
