//! Hostile images, by the rows of the hardening plan. Every one gives one clear error, leaves the
//! store as it was to the byte, and a canary beside it untouched.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use common::archive;
use common::testing;

use archive::{Layout, config, descriptor, docker, gzip, image, small_layer, zstd};
use hullbox_image::{Digest, Limits, LoadError, LoadOptions, Loaded, Source, Store};
use serde_json::json;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use testing::TarBuilder;

/// A store with an image in it, and a canary where escapes would hit it.
struct Bed {
    dir: tempfile::TempDir,
    store: Store,
    before: BTreeMap<PathBuf, Digest>,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("canary"), "alive").unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let mut bed = Self {
            dir,
            store,
            before: BTreeMap::new(),
        };
        let layer = TarBuilder::default().file("first", b"1").finish();
        bed.load(&image(&[&layer])).unwrap();
        bed.before = snapshot(bed.dir.path());
        bed
    }

    fn load(&mut self, archive: &[u8]) -> Result<Vec<Loaded>, LoadError> {
        let mut stream = archive;
        let source = Source::Stream(&mut stream);
        self.store
            .load(source, &LoadOptions::default(), &mut |_| {})
    }

    /// The load fails, says this, and nothing has changed.
    #[track_caller]
    fn refuses(&mut self, archive: &[u8], message: &str) {
        let error = match self.load(archive) {
            Err(error) => chain(&error),
            Ok(loaded) => panic!("accepted: {loaded:?}, but should say {message:?}"),
        };
        assert!(error.contains(message), "{message:?} is not in: {error}");
        self.is_unchanged();
    }

    #[track_caller]
    fn refuses_layer(&mut self, layer: &[u8], message: &str) {
        self.refuses(&image(&[layer]), message);
    }

    #[track_caller]
    fn is_unchanged(&self) {
        assert_eq!(snapshot(self.dir.path()), self.before);
    }
}

/// An error with its causes, as the program shows it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Every file's digest, directories too; SQLite's shared memory is not content.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, Digest> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.insert(path.clone(), Digest::of(b"directory"));
                dirs.push(path);
            } else if !path.ends_with("images.db-shm") {
                let digest = Digest::of(&std::fs::read(&path).unwrap());
                found.insert(path, digest);
            }
        }
    }
    found
}

fn layer_with(name: &str) -> Vec<u8> {
    TarBuilder::default().file(name, b"evil").finish()
}

fn layer_with_pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = TarBuilder::default();
    tar.pax(records).file("f", b"evil").finish()
}

// Row 1: names.
#[test]
fn names_that_lead_out_are_refused() {
    let mut bed = Bed::new();
    for name in ["../canary", "/../canary", "a/../../canary", "a/..", ".."] {
        bed.refuses_layer(&layer_with(name), "has \"..\" in its name");
    }
    bed.refuses_layer(&layer_with(""), "has an empty name");
    let long = "x".repeat(4096);
    bed.refuses_layer(
        &layer_with_pax(&[("path", format!("a/{}", &long[..4000]).as_bytes())]),
        "component of over 255 bytes",
    );
    bed.refuses_layer(
        &layer_with_pax(&[("path", "x/".repeat(2100).as_bytes())]),
        "name of over 4096 bytes",
    );
    bed.refuses_layer(&layer_with_pax(&[("path", b"a\0b")]), "NUL in its name");
    bed.refuses_layer(
        &layer_with_pax(&[("linkpath", b"a\0b")]),
        "NUL in its link target",
    );
    // Absolute names and names that are not UTF-8 are names.
    let absolute = layer_with("/etc/passwd");
    let odd = layer_with_pax(&[("path", b"caf\xe9")]);
    bed.load(&image(&[&absolute, &odd])).unwrap();
}

// Rows 2 and 3: links. What becomes of them is tested beside the converter.
#[test]
fn links_that_lead_out_lead_nowhere() {
    let mut bed = Bed::new();
    let mut tar = TarBuilder::default();
    let canary = bed.dir.path().join("canary");
    let canary = canary.to_str().unwrap().trim_start_matches('/').to_owned();
    tar.symlink("root", "/").symlink("up", "/../../..");
    tar.hard_link("stolen", &format!("root/{canary}"));
    bed.refuses_layer(&tar.finish(), "is a hard link to");
    let mut tar = TarBuilder::default();
    tar.symlink("up", "/../../..");
    tar.hard_link("stolen", &format!("up/{canary}"));
    bed.refuses_layer(&tar.finish(), "is a hard link to");
    let mut tar = TarBuilder::default();
    tar.symlink("root", "/").symlink("up", "../../../..");
    tar.file(&format!("root/{canary}"), b"dead");
    tar.file(&format!("up/{canary}2"), b"dead");
    bed.load(&image(&[&tar.finish()])).unwrap();
    let canary = std::fs::read(bed.dir.path().join("canary")).unwrap();
    assert_eq!(canary, b"alive");
    assert!(!bed.dir.path().join("canary2").exists());
}

#[test]
fn links_in_circles_are_refused_in_bounded_time() {
    let mut bed = Bed::new();
    // Each link leads through the one before it twice.
    let mut tar = TarBuilder::default();
    tar.dir("l0");
    for i in 1..200 {
        tar.symlink(&format!("l{i}"), &format!("l{}/../l{}", i - 1, i - 1));
    }
    tar.file("l199/x", b"");
    bed.refuses_layer(&tar.finish(), "too many symbolic links");
}

// Row 4: whiteouts.
#[test]
fn whiteouts_of_nothing_sensible_are_refused() {
    let mut bed = Bed::new();
    for name in [".wh.", ".wh..", ".wh...", "a/.wh.."] {
        bed.refuses_layer(&layer_with(name), "is a whiteout of nothing");
    }
    bed.refuses_layer(&layer_with(".wh.a/b"), "is beneath a whiteout");
}

// Row 5: devices and markers.
#[test]
fn a_device_that_is_a_whiteout_is_refused() {
    let mut bed = Bed::new();
    let mut tar = TarBuilder::default();
    tar.entry(b'3', "etc/shadow", b"").device(0, 0);
    bed.refuses_layer(&tar.finish(), "is a device that only a whiteout may be");
    let mut tar = TarBuilder::default();
    tar.entry(b'3', "dev/x", b"").device(4096, 0);
    bed.refuses_layer(&tar.finish(), "device number out of range");
}

// Row 6: headers that disagree, sizes that lie.
#[test]
fn headers_that_lie_are_refused() {
    let mut bed = Bed::new();
    let entry = |set: &dyn Fn(&mut TarBuilder)| {
        let mut tar = TarBuilder::default();
        tar.entry(b'0', "f", b"evil");
        set(&mut tar);
        tar.finish()
    };
    let huge = entry(&|tar| {
        tar.size(0o77_777_777_777);
    });
    bed.refuses_layer(&huge, "the tar is cut off");
    let negative = entry(&|tar| {
        tar.raw(124, &[0xff; 12]);
    });
    bed.refuses_layer(&negative, "bad size");
    let overflow = entry(&|tar| {
        tar.raw(124, &[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    });
    bed.refuses_layer(&overflow, "bad size");
    let junk = entry(&|tar| {
        tar.raw(100, b"rwxr-xr-");
    });
    bed.refuses_layer(&junk, "bad mode");
    let unknown = entry(&|tar| {
        tar.raw(156, b"Z");
    });
    bed.refuses_layer(&unknown, "unsupported type");
    let mut broken = layer_with("f");
    broken[0] ^= 1;
    bed.refuses_layer(
        &[small_layer()[..1024].to_vec(), broken].concat(),
        "wrong checksum",
    );
    for (key, value) in [
        ("size", &b"-1"[..]),
        ("size", b"99999999999999999999999"),
        ("uid", b"0x10"),
        ("mtime", b"now"),
        ("GNU.sparse.map", b"1,2,3"),
    ] {
        bed.refuses_layer(
            &layer_with_pax(&[(key, value)]),
            "a PAX header is malformed",
        );
    }
    bed.refuses_layer(&layer_with_pax(&[("uid", b"4294967295")]), "bad uid");
    let mut tar = TarBuilder::default();
    tar.entry(b'x', "pax", b"").size(0o77_777_777_777);
    bed.refuses_layer(&tar.finish(), "over the limit");
    let mut tar = TarBuilder::default();
    tar.entry(b'x', "pax", b"12 path=a/b");
    bed.refuses_layer(&tar.finish(), "malformed");
}

#[test]
fn sparse_files_that_lie_are_refused() {
    let mut bed = Bed::new();
    let sparse = |size: &[u8], map: &[u8]| {
        layer_with_pax(&[("GNU.sparse.size", size), ("GNU.sparse.map", map)])
    };
    // "evil" is four bytes.
    bed.refuses_layer(&sparse(b"100", b"0,5"), "does not cover the stored bytes");
    bed.refuses_layer(&sparse(b"100", b"98,4"), "reaches past the end");
    bed.refuses_layer(&sparse(b"100", b"0,2,1,2"), "has overlapping segments");
    bed.refuses_layer(
        &sparse(b"100", b"18446744073709551615,4"),
        "reaches past the end",
    );
    bed.refuses_layer(
        &sparse(b"99999999999999", b"0,4"),
        "larger than a file may be",
    );
    // A hundred gigabytes of hole cost nothing.
    bed.load(&image(&[&sparse(b"100000000000", b"99999999996,4")]))
        .unwrap();
    let image = bed.store.resolve("test:1").unwrap();
    let file = std::fs::metadata(&image.layers[0].path).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert!(file.len() > 100_000_000_000 && file.blocks() < 1000);
}

#[test]
fn bombs_are_refused() {
    let mut bed = Bed::new();
    bed.store = Store::open(bed.dir.path().join("store"))
        .unwrap()
        .with_limits(Limits {
            expansion_grace_bytes: 1 << 20,
            ..Limits::default()
        });
    let bomb = TarBuilder::default()
        .file("zeros", &vec![0; 64 << 20])
        .finish();
    let config = config(&[&bomb]).to_string();
    for packed in [gzip(&bomb), zstd(&bomb), gzip(&gzip(&bomb))] {
        let archive = docker(config.as_bytes(), &[&packed], &[], true);
        let doubly = Digest::of(&packed) == Digest::of(&gzip(&gzip(&bomb)));
        let message = if doubly {
            "cannot be read"
        } else {
            "grows more than 200 times"
        };
        bed.refuses(&archive, message);
    }
    bed.refuses(&gzip(&image(&[&bomb])), "grows more than 200 times");
    bed.refuses(&zstd(&image(&[&bomb])), "grows more than 200 times");
}

#[test]
fn too_much_of_anything_is_refused() {
    let mut bed = Bed::new();
    bed.store = Store::open(bed.dir.path().join("store"))
        .unwrap()
        .with_limits(Limits {
            max_layer_entries: 100,
            max_layer_name_bytes: 10_000,
            max_layer_xattr_bytes: 10_000,
            max_layer_bytes: 1 << 20,
            max_total_layer_bytes: 2 << 20,
            max_archive_entries: 50,
            max_json_bytes: 10_000,
            max_layers: 3,
            ..Limits::default()
        });
    let mut many = TarBuilder::default();
    for i in 0..101 {
        many.file(&i.to_string(), b"");
    }
    bed.refuses_layer(&many.finish(), "more than 100 entries");
    let deep = format!("{}f", "d/".repeat(200));
    bed.refuses_layer(
        &layer_with_pax(&[("path", deep.as_bytes())]),
        "more than 100 entries",
    );
    let mut long = TarBuilder::default();
    for i in 0..60 {
        let name = format!("{i}{}", "n".repeat(200));
        long.pax(&[("path", name.as_bytes())]).file("f", b"");
    }
    bed.refuses_layer(&long.finish(), "bytes of names");
    let mut attributes = TarBuilder::default();
    for i in 0..20 {
        let value = vec![i; 1000];
        attributes.pax(&[("SCHILY.xattr.user.a", &value)]);
        attributes.file(&i.to_string(), b"");
    }
    bed.refuses_layer(&attributes.finish(), "bytes of extended attributes");
    let large = TarBuilder::default().file("f", &vec![1; 2 << 20]).finish();
    bed.refuses_layer(&large, "larger than 1048576 bytes");
    let half = TarBuilder::default()
        .file("f", &vec![1; 900 << 10])
        .finish();
    bed.refuses(&image(&[&half, &half, &half]), "larger than");
    let layer = small_layer();
    bed.refuses(&image(&[&layer[..]; 4]), "more than 3 layers");
    let mut entries = TarBuilder::default();
    for i in 0..51 {
        entries.file(&i.to_string(), b"{}");
    }
    bed.refuses(&entries.finish(), "more than 50 entries");
    let config = config(&[]).to_string() + &" ".repeat(10_001);
    bed.refuses(
        &docker(config.as_bytes(), &[], &[], true),
        "more than 10000 bytes",
    );
}

// Row 7: blobs and documents.
#[test]
fn changed_blobs_are_refused() {
    let mut bed = Bed::new();
    let layer = small_layer();
    let other = layer_with("other");
    let honest = config(&[&layer]).to_string();
    // Another layer than the configuration says; one too few; one too many.
    bed.refuses(
        &docker(honest.as_bytes(), &[&other], &[], true),
        "its DiffID is",
    );
    bed.refuses(
        &docker(honest.as_bytes(), &[], &[], true),
        "another number of layers",
    );
    bed.refuses(
        &docker(honest.as_bytes(), &[&layer, &other], &[], true),
        "another number of layers",
    );
    // Cut off, or with something behind it, inside and outside the compression.
    for bad in [
        layer[..1024].to_vec(),
        gzip(&layer[..1024]),
        gzip(&[&layer[..], b"trailing"].concat()),
        [&layer[..], b"trailing"].concat(),
    ] {
        bed.refuses(
            &docker(honest.as_bytes(), &[&bad], &[], true),
            "its DiffID is",
        );
    }
    let packed = gzip(&layer);
    for bad in [
        packed[..packed.len() - 4].to_vec(),
        [&packed[..], b"trailing"].concat(),
        b"no layer at all".repeat(100),
    ] {
        let archive = docker(honest.as_bytes(), &[&bad], &[], true);
        let error = bed.load(&archive).unwrap_err();
        assert!(!chain(&error).is_empty());
        bed.is_unchanged();
    }
    // The archive itself cut off anywhere.
    let whole = image(&[&layer]);
    for cut in (0..whole.len() - 2048).step_by(256) {
        assert!(bed.load(&whole[..cut]).is_err(), "cut at {cut}");
    }
    bed.is_unchanged();
}

#[test]
fn a_single_changed_bit_is_found_wherever_it_is() {
    let mut bed = Bed::new();
    let mut layout = Layout::new();
    let image = layout.image(&[&small_layer()], |_| {});
    layout.index(&[image]);
    for (name, _) in layout.files.clone() {
        if !name.starts_with("blobs/") {
            continue;
        }
        for position in [0, 10, 30] {
            let mut spoiled = Layout::new();
            spoiled.files.clone_from(&layout.files);
            let file = spoiled.files.iter_mut().find(|(n, _)| *n == name).unwrap();
            file.1[position] ^= 1;
            assert!(bed.load(&spoiled.tar()).is_err(), "{name} at {position}");
            let dir = tempfile::tempdir().unwrap();
            spoiled.write_to(dir.path());
            let source = Source::Path(dir.path());
            let loaded = bed.store.load(source, &LoadOptions::default(), &mut |_| {});
            assert!(loaded.is_err(), "{name} at {position}, as a directory");
        }
    }
    bed.is_unchanged();
    bed.load(&layout.tar()).unwrap();
}

#[test]
fn documents_that_lie_are_refused() {
    let mut bed = Bed::new();
    let mut spoiled = |change: &dyn Fn(&mut serde_json::Value), message: &str| {
        let mut layout = Layout::new();
        let image = layout.image(&[&small_layer()], |manifest| change(manifest));
        layout.index(&[image]);
        bed.refuses(&layout.tar(), message);
    };
    spoiled(
        &|m| m["layers"][0]["size"] = json!(-1),
        "cannot be understood",
    );
    spoiled(
        &|m| m["layers"][0]["size"] = json!(1e30),
        "cannot be understood",
    );
    spoiled(&|m| m["layers"][0]["size"] = json!(7), "bytes, not 7");
    spoiled(&|m| m["config"]["size"] = json!(7), "bytes, not 7");
    spoiled(
        &|m| m["manifests"] = json!([]),
        "both a manifest and an index",
    );
    spoiled(
        &|m| m["mediaType"] = json!(archive::INDEX),
        "not the one declared",
    );
    spoiled(
        &|m| m["config"]["mediaType"] = json!(archive::LAYER),
        "another type",
    );
    spoiled(
        &|m| m["layers"][0]["mediaType"] = json!(archive::CONFIG),
        "not a layer's",
    );
    spoiled(
        &|m| m["layers"][0]["digest"] = json!("sha256:../../canary"),
        "cannot be understood",
    );
    spoiled(
        &|m| m["layers"][0]["digest"] = json!(Digest::of(b"?").to_string()),
        "is missing",
    );
    spoiled(&|m| m["schemaVersion"] = json!(1), "schema version 2");
    spoiled(&|m| *m = json!([]), "cannot be understood");
}

#[test]
fn archives_that_are_two_things_or_none_are_refused() {
    let mut bed = Bed::new();
    bed.refuses(b"", "not an image");
    bed.refuses(&[0; 4096], "not an image");
    bed.refuses(b"hello world", "not an image");
    bed.refuses(&small_layer(), "not an image");
    bed.refuses(&gzip(b""), "not an image");
    bed.refuses(b"\xfd7zXZ\0...", "xz is not supported");
    bed.refuses(&image(&[b"BZh91AY&SY........"]), "bzip2 is not supported");
    bed.refuses(&b"x".repeat(100_000), "not an image");
    let mut tar = TarBuilder::default();
    tar.file("manifest.json", b"[]")
        .file("./manifest.json", b"[]");
    bed.refuses(&tar.finish(), "appears twice");
    let mut tar = TarBuilder::default();
    tar.symlink("manifest.json", "../../../../etc/passwd");
    bed.refuses(&tar.finish(), "not an image");
    let mut tar = TarBuilder::default();
    tar.symlink("manifest.json", "a")
        .symlink("a", "manifest.json");
    bed.refuses(&tar.finish(), "not an image");
    let manifest = json!([{"Config": "../canary", "Layers": []}]).to_string();
    let tar = TarBuilder::default()
        .file("manifest.json", manifest.as_bytes())
        .finish();
    bed.refuses(&tar, "is missing");
    for text in ["[", "{}", "[{}]", "[1]", &"[".repeat(100_000)] {
        let tar = TarBuilder::default()
            .file("manifest.json", text.as_bytes())
            .finish();
        bed.refuses(&tar, "cannot be understood");
    }
    let config = config(&[]).to_string();
    bed.refuses(
        &docker(config.as_bytes(), &[], &["Bad Name"], true),
        "is not valid",
    );
}

#[test]
fn directories_do_not_lead_out() {
    let mut bed = Bed::new();
    let dir = tempfile::tempdir().unwrap();
    let load = |bed: &mut Bed| {
        let source = Source::Path(dir.path());
        let error = bed
            .store
            .load(source, &LoadOptions::default(), &mut |_| {})
            .unwrap_err();
        bed.is_unchanged();
        chain(&error)
    };
    assert!(load(&mut bed).contains("not an image"));
    let manifest = dir.path().join("manifest.json");
    for config in ["/etc/passwd", "../canary", "link", "pipe", "."] {
        let text = json!([{"Config": config, "Layers": []}]).to_string();
        std::fs::write(&manifest, text).unwrap();
        let link = dir.path().join("link");
        let _ = std::os::unix::fs::symlink("/etc/passwd", &link);
        let pipe = dir.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR;
        let _ = rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0);
        let error = load(&mut bed);
        assert!(
            error.contains("cannot read") || error.contains("is not a regular file"),
            "{config}: {error}"
        );
    }
}

// Row 8: odd but honest.
#[test]
fn odd_images_are_loaded() {
    let mut bed = Bed::new();
    let empty = config(&[]).to_string();
    let loaded = bed
        .load(&docker(empty.as_bytes(), &[], &["empty"], true))
        .unwrap();
    let image = bed.store.resolve(&loaded[0].id.to_string()).unwrap();
    assert!(image.layers.is_empty());
    let layer = small_layer();
    let mut odd = config(&[&layer, &layer]);
    odd["config"] = json!(null);
    odd.as_object_mut().unwrap().remove("created");
    let odd = odd.to_string();
    bed.load(&docker(
        odd.as_bytes(),
        &[&layer, &gzip(&layer)],
        &["odd"],
        false,
    ))
    .unwrap();
    let image = bed.store.resolve("odd").unwrap();
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.layers[0], image.layers[1]);
    let mut nulls = config(&[&layer]);
    nulls["config"] = json!({
        "Cmd": null, "Entrypoint": null, "Env": null, "Volumes": null, "Labels": null,
        "ExposedPorts": null, "User": "", "WorkingDir": "", "OnBuild": null, "Image": "sha256:x",
        "AttachStdin": false, "Healthcheck": {"Test": ["NONE"]},
    });
    let nulls = nulls.to_string();
    bed.load(&docker(nulls.as_bytes(), &[&layer], &["nulls"], false))
        .unwrap();
    assert_eq!(
        bed.store.inspect("nulls").unwrap()["Config"]["Healthcheck"]["Test"][0],
        "NONE"
    );
}

#[test]
fn the_platform_of_an_index_is_chosen() {
    let mut bed = Bed::new();
    let mut layout = Layout::new();
    let ours = layout.image(&[&small_layer()], |_| {});
    let theirs = layout.image(&[&layer_with("arm")], |_| {});
    let with = |descriptor: &serde_json::Value, architecture: &str| {
        let mut descriptor = descriptor.clone();
        descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
        descriptor
    };
    let choices = json!({
        "schemaVersion": 2, "mediaType": archive::INDEX,
        "manifests": [with(&theirs, "arm64"), with(&ours, "amd64")],
    });
    let inner = layout.blob(archive::INDEX, choices.to_string().as_bytes());
    layout.index(&[inner]);
    let loaded = bed.load(&layout.tar()).unwrap();
    let image = bed.store.resolve(&loaded[0].id.to_string()).unwrap();
    assert_eq!(
        *image.layers[0].diff_id.digest(),
        Digest::of(&small_layer())
    );

    let mut layout = Layout::new();
    let theirs = layout.image(&[&small_layer()], |_| {});
    layout.index(&[with(&theirs, "arm64")]);
    let error = bed.load(&layout.tar()).unwrap_err();
    assert!(chain(&error).contains("no variant for linux/amd64"));
    // An index that leads to itself cannot be made without breaking sha256; depth is bounded.
    let mut layout = Layout::new();
    let mut inner = layout.image(&[&small_layer()], |_| {});
    for _ in 0..6 {
        let index = json!({"schemaVersion": 2, "manifests": [inner]});
        inner = layout.blob(archive::INDEX, index.to_string().as_bytes());
    }
    layout.index(&[inner]);
    let error = bed.load(&layout.tar()).unwrap_err();
    assert!(chain(&error).contains("one more index"));
    assert_eq!(descriptor("x", b"")["size"], 0);
}
