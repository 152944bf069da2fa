//! Images that other tools made, loaded, mounted by the kernel and compared, file by file, with
//! what those tools unpack. Skipped, saying so, where the tools or the privilege are missing.

mod common;

use common::{assert_same, can_mount, fixtures, have, mount_layers, run, survey};
use hullbox_image::{Image, LoadOptions, Source, Store};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

fn load(store: &mut Store, path: &Path) -> Image {
    let loaded = store
        .load(Source::Path(path), &LoadOptions::default(), &mut |_| {})
        .unwrap();
    store.resolve(&loaded[0].id.to_string()).unwrap()
}

fn paths(image: &Image) -> Vec<PathBuf> {
    image
        .layers
        .iter()
        .map(|layer| layer.path.clone())
        .collect()
}

/// The kernel's own tools find nothing wrong with a layer.
fn check(image: &Image) {
    for layer in &image.layers {
        assert_eq!(layer.size_bytes % 4096, 0);
        assert_eq!(layer.path.metadata().unwrap().len(), layer.size_bytes);
        if have("fsck.erofs") {
            run("fsck.erofs", &[layer.path.as_os_str()]);
        }
    }
}

fn umoci_unpack(layout: &Path, tag: &str, into: &Path) -> PathBuf {
    let image = format!("{}:{tag}", layout.display());
    let args = ["unpack", "--image", &image].map(OsStr::new);
    run("umoci", &[&args[..], &[into.as_os_str()]].concat());
    into.join("rootfs")
}

#[test]
fn layers_of_other_tools_are_what_those_unpack() {
    let Some(fixtures) = fixtures().filter(|_| can_mount()) else {
        eprintln!("skipped: needs root, loop devices, EROFS, umoci and skopeo");
        return;
    };
    let work = tempfile::tempdir().unwrap();
    let mut store = Store::open(work.path().join("store")).unwrap();

    let layout = work.path().join("three");
    std::fs::create_dir(&layout).unwrap();
    let archive = fixtures.join("three.tar");
    run(
        "tar",
        &[
            "-xf".as_ref(),
            archive.as_os_str(),
            "-C".as_ref(),
            layout.as_os_str(),
        ],
    );
    let demo = fixtures.join("demo");
    for (path, layout) in [(&archive, &layout), (&demo, &demo)] {
        let image = load(&mut store, path);
        check(&image);
        let tag = tag_of(layout);
        let theirs = umoci_unpack(layout, &tag, &work.path().join(format!("u-{tag}")));
        let at = work.path().join(format!("m-{tag}"));
        let (merged, _mounts) = mount_layers(&paths(&image), &at);
        assert_same(&survey(&merged), &survey(&theirs));
    }
}

fn tag_of(layout: &Path) -> String {
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
        .as_str()
        .unwrap()
        .to_owned()
}
