//! What was saved, as other programs see it.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::archive::{CONFIG, Layout, config, descriptor, image};
use common::testing::TarBuilder;
use common::{assert_same, have, run, survey};
use hullbox_image::{ArchiveFormat, Digest, LoadOptions, Source, Store};
use serde_json::json;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

fn layers() -> [Vec<u8>; 2] {
    let mut base = TarBuilder::default();
    base.dir("etc")
        .file("etc/a", &[1; 5000])
        .file("etc/b", b"b");
    base.file("etc/c", &[2; 70_000]).symlink("etc/link", "a");
    base.hard_link("etc/hard", "etc/c")
        .dir("gone")
        .file("gone/x", b"x");
    let mut top = TarBuilder::default();
    top.file("etc/a", &[3; 6000]).file(".wh.gone", b"");
    top.entry(b'0', "etc/setuid", b"#!")
        .mode(0o4755)
        .owner(5, 6)
        .mtime(1_000_000)
        .done();
    [base.finish(), top.finish()]
}

fn output(program: &str, args: &[&OsStr]) -> Vec<u8> {
    let output = Command::new(program).args(args).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {errors}");
    output.stdout
}

#[test]
fn skopeo_sees_the_same_image() {
    if !have("skopeo") {
        eprintln!("skipped: there is no skopeo");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path().join("store")).unwrap();
    let [base, top] = layers();
    let archive = image(&[&base, &top]);
    let mut stream = &archive[..];
    let source = Source::Stream(&mut stream);
    let id = store
        .load(source, &LoadOptions::default(), &mut |_| {})
        .unwrap()[0]
        .id;
    let images = ["test:1".to_owned()];
    for (transport, format) in [
        ("docker-archive", ArchiveFormat::Docker),
        ("oci-archive", ArchiveFormat::Oci),
    ] {
        let path = dir.path().join(transport);
        let mut file = std::fs::File::create(&path).unwrap();
        store.save(&images, format, &mut file).unwrap();
        let from = format!("{transport}:{}", path.display());
        let args = ["inspect", "--config", "--raw", &from].map(OsStr::new);
        let raw = output("skopeo", &args);
        assert_eq!(Digest::of(&raw), *id.digest(), "{transport}");
        // Copying reads every layer and compares its digest.
        let copy = dir.path().join(format!("{transport}-copy"));
        let to = format!("dir:{}", copy.display());
        let args = ["--insecure-policy", "copy", "-q", &from, &to].map(OsStr::new);
        output("skopeo", &args);
        for layer in [&base, &top] {
            let blob = copy.join(Digest::of(layer).hex());
            assert_eq!(&std::fs::read(blob).unwrap(), layer);
        }
    }
}

/// Unpacks an image of a layout as umoci does.
fn umoci(layout: &Path, tag: &str, into: &Path) {
    let image = format!("{}:{tag}", layout.display());
    let args = ["unpack", "--image", &image].map(OsStr::new);
    run("umoci", &[&args[..], &[into.as_os_str()]].concat());
}

#[test]
fn umoci_unpacks_the_same_tree() {
    if !have("umoci") || !rustix::process::geteuid().is_root() {
        eprintln!("skipped: it takes umoci, and root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let layers = layers();
    let layers = [&layers[0][..], &layers[1]];
    let mut layout = Layout::new();
    let mut first = layout.image(&layers, |_| {});
    first["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
    layout.index(&[first]);
    let before = dir.path().join("before");
    layout.write_to(&before);
    let mut store = Store::open(dir.path().join("store")).unwrap();
    let options = LoadOptions {
        base_name: Some(hullbox_image::Reference::parse("test").unwrap()),
        ..LoadOptions::default()
    };
    let loaded = store
        .load(Source::Path(&before), &options, &mut |_| {})
        .unwrap();
    let expected = descriptor(CONFIG, config(&layers).to_string().as_bytes());
    assert_eq!(expected["digest"], loaded[0].id.to_string());
    let after = dir.path().join("after");
    store.save_layout(&["test:1".into()], &after).unwrap();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    umoci(&before, "1", &theirs);
    umoci(&after, "1", &ours);
    assert_same(
        &survey(&ours.join("rootfs")),
        &survey(&theirs.join("rootfs")),
    );
}
