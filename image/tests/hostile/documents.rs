//! Rows 7 and 8: blobs and documents that lie, and those that are only odd.

use crate::bed::{Bed, chain, layer_with};
use crate::common::archive::{self, Layout, config, descriptor, docker, gzip, image, small_layer};
use crate::common::testing::TarBuilder;
use hullbox_image::{Digest, LoadOptions, Source};
use serde_json::json;

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
    let inspect = bed.store.inspect("nulls").unwrap();
    assert_eq!(inspect.config.healthcheck.unwrap().test, ["NONE"]);
    assert_eq!((inspect.config.labels, inspect.created.len()), (None, 20));
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
