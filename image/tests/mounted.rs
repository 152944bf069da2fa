//! Images that other tools made, loaded, mounted by the kernel and compared, file by file, with
//! what those tools unpack. Skipped, saying so, where the tools or the privilege are missing.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::testing::TarBuilder;
use common::{Mount, assert_same, can_mount, fixtures, have, mount_layers, run, survey};
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
        let name = layout.file_name().unwrap().to_string_lossy();
        let unpacked = work.path().join(format!("u-{name}"));
        let theirs = umoci_unpack(layout, &tag_of(layout), &unpacked);
        let at = work.path().join(format!("m-{name}"));
        let (merged, _mounts) = mount_layers(&paths(&image), &at);
        assert_same(&survey(&merged), &survey(&theirs));
    }
}

/// Layers that other tools would hardly write, and what umoci makes of them.
#[test]
fn layers_made_by_hand_are_what_umoci_unpacks() {
    if !can_mount() || !have("umoci") {
        eprintln!("skipped: needs root, loop devices, EROFS and umoci");
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let layout = work.path().join("layout");
    let target = format!("{}:x", layout.display());
    let umoci = |args: &[&str]| {
        let args: Vec<_> = args.iter().map(OsStr::new).collect();
        run("umoci", &args);
    };
    umoci(&["init", "--layout", layout.to_str().unwrap()]);
    umoci(&["new", "--image", &target]);
    for (i, tar) in handmade().iter().enumerate() {
        let file = work.path().join(format!("{i}.tar"));
        std::fs::write(&file, tar).unwrap();
        umoci(&[
            "raw",
            "add-layer",
            "--image",
            &target,
            file.to_str().unwrap(),
        ]);
    }
    let theirs = umoci_unpack(&layout, "x", &work.path().join("unpacked"));
    let mut store = Store::open(work.path().join("store")).unwrap();
    let image = load(&mut store, &layout);
    check(&image);
    let (merged, _mounts) = mount_layers(&paths(&image), &work.path().join("mnt"));
    assert_same(&survey(&merged), &survey(&theirs));
}

fn handmade() -> Vec<Vec<u8>> {
    let mut base = TarBuilder::default();
    base.dir("usr").dir("usr/lib").file("usr/lib/old", b"old");
    base.symlink("lib", "usr/lib").symlink("absolute", "/usr");
    base.entry(b'5', "secret/", b"")
        .mode(0o700)
        .owner(3, 4)
        .mtime(1000);
    base.entry(b'0', "secret/key", b"key")
        .mode(0o4711)
        .owner(7, 8)
        .mtime(2000);
    base.dir("opaque")
        .file("opaque/hidden", b"")
        .dir("opaque/deep")
        .file("opaque/deep/x", b"");
    base.dir("dir-to-file")
        .file("dir-to-file/x", b"")
        .file("file-to-dir", b"");
    base.symlink("link-to-dir", "usr")
        .dir("dir-to-link")
        .file("dir-to-link/x", b"");
    base.dir("merged")
        .file("merged/one", b"1")
        .file("gone", b"")
        .file("both", b"1");

    let mut middle = TarBuilder::default();
    middle.entry(b'0', "lib/through-link", b"a").mtime(5);
    middle
        .entry(b'0', "absolute/lib/through-two", b"b")
        .mtime(5);
    middle.hard_link("usr/lib/linked", "secret/key");
    middle
        .file("opaque/kept", b"2")
        .file("opaque/.wh..wh..opq", b"")
        .dir("opaque");
    middle
        .file("dir-to-file", b"2")
        .dir("file-to-dir")
        .file("file-to-dir/x", b"2");
    middle
        .dir("link-to-dir")
        .file("link-to-dir/x", b"2")
        .symlink("dir-to-link", "usr");
    middle.dir("merged").file("merged/two", b"2");
    middle.file(".wh.gone", b"").file(".wh.nothing", b"");
    // umoci takes other names of this kind for files; Docker, and we, ignore them all.
    middle.file(".wh..wh.aufs", b"");

    let mut top = TarBuilder::default();
    top.dir("merged")
        .file("merged/.wh.one", b"")
        .file("merged/three", b"3");
    top.file("gone", b"back")
        .dir("opaque")
        .file("opaque/.wh.kept", b"");
    top.dir("usr")
        .dir("usr/lib")
        .entry(b'0', "usr/lib/old", b"new")
        .mode(0o600)
        .mtime(9);
    vec![base.finish(), middle.finish(), top.finish()]
}

fn tag_of(layout: &Path) -> String {
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Everything GNU tar can write, in each of its formats.
fn odd_tree(root: &Path) {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let long = "directory-with-a-long-name/".repeat(8);
    std::fs::create_dir_all(root.join(&long)).unwrap();
    std::fs::write(root.join(&long).join("x".repeat(120)), "long").unwrap();
    std::fs::write(root.join("empty"), "").unwrap();
    std::fs::write(root.join("text"), "text\n").unwrap();
    std::fs::write(root.join("block"), vec![7; 4096]).unwrap();
    std::fs::write(root.join("blocks"), vec![9; 123_457]).unwrap();
    std::fs::hard_link(
        root.join("text"),
        root.join("directory-with-a-long-name/linked"),
    )
    .unwrap();
    symlink("text", root.join("link")).unwrap();
    symlink("/".to_owned() + &"y/".repeat(100), root.join("long-link")).unwrap();
    symlink("z".repeat(3000), root.join("longer-link")).unwrap();
    let mode = std::fs::Permissions::from_mode(0o4711);
    std::fs::set_permissions(root.join("text"), mode).unwrap();
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    for i in 0..40u64 {
        use std::os::unix::fs::FileExt;
        sparse.write_all_at(b"island", i * 200_003).unwrap();
    }
    sparse.set_len(9_000_000).unwrap();
    let hole = std::fs::File::create(root.join("hole")).unwrap();
    hole.set_len(5_000_000).unwrap();
    for (program, args) in [
        ("mkfifo", &["fifo"][..]),
        ("mknod", &["char", "c", "1", "3"]),
        ("mknod", &["block-device", "b", "259", "70000"]),
        ("chown", &["1000:2000", "blocks"]),
        ("chown", &["-h", "5:6", "link"]),
        ("touch", &["-d", "2001-02-03 04:05:06.789012345", "blocks"]),
        ("touch", &["-h", "-d", "2011-02-03 04:05:06", "link"]),
        ("setfattr", &["-n", "user.one", "-v", "1", "blocks"]),
        (
            "setfattr",
            &["-n", "trusted.two", "-v", "2", "directory-with-a-long-name"],
        ),
    ] {
        let status = std::process::Command::new(program)
            .args(args)
            .current_dir(root)
            .status()
            .unwrap();
        assert!(status.success(), "{program} {args:?}");
    }
}

#[test]
fn every_format_of_gnu_tar_is_read_as_gnu_tar_reads_it() {
    if !can_mount() || !have("setfattr") {
        eprintln!("skipped: needs root, loop devices, EROFS and setfattr");
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let tree = work.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    odd_tree(&tree);
    let mut store = Store::open(work.path().join("store")).unwrap();
    for format in [
        "--format=gnu",
        "--format=gnu --sparse",
        "--format=oldgnu --sparse",
        "--format=posix --xattrs --xattrs-include=*",
        "--format=posix --sparse --sparse-version=0.0",
        "--format=posix --sparse --sparse-version=0.1",
        "--format=posix --sparse --sparse-version=1.0",
        "--format=posix --pax-option=exthdr.name=%d/%f,delete=atime --owner=:4000000 --group=:3000000",
    ] {
        let tar = work.path().join("x.tar");
        let unpacked = work.path().join("unpacked");
        let _ = std::fs::remove_dir_all(&unpacked);
        std::fs::create_dir(&unpacked).unwrap();
        let options: Vec<_> = format.split(' ').map(OsStr::new).collect();
        let create = [
            "-cf".as_ref(),
            tar.as_os_str(),
            "-C".as_ref(),
            tree.as_os_str(),
            ".".as_ref(),
        ];
        run("tar", &[&options[..], &create].concat());
        let extract = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"].map(OsStr::new);
        let from = [tar.as_os_str(), "-C".as_ref(), unpacked.as_os_str()];
        run("tar", &[&extract[..], &from].concat());

        let options = hullbox_image::ImportOptions::default();
        let id = store
            .import(Source::Path(&tar), &options, &mut |_| {})
            .unwrap();
        let image = store.resolve(&id.hex()).unwrap();
        check(&image);
        let (merged, _mounts) = mount_layers(&paths(&image), &work.path().join("mnt"));
        eprintln!("{format}");
        assert_same(&survey(&merged), &survey(&unpacked));
    }
}

#[test]
fn a_full_disk_leaves_a_valid_store() {
    if !can_mount() {
        eprintln!("skipped: needs root");
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let at = work.path().join("small");
    let args = ["-t", "tmpfs", "-o", "size=6m", "tmpfs"].map(OsStr::new);
    let _mount = Mount::new(&args, &at);
    let mut store = Store::open(at.join("store")).unwrap();
    let import = |store: &mut Store, bytes: usize| {
        let data: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
        let tar = TarBuilder::default().file("f", &data).finish();
        let mut stream = &tar[..];
        let options = hullbox_image::ImportOptions::default();
        store.import(Source::Stream(&mut stream), &options, &mut |_| {})
    };
    let kept = import(&mut store, 2 << 20).unwrap();
    for bytes in [3 << 20, 5 << 20, 50 << 20] {
        let Err(error) = import(&mut store, bytes) else {
            continue;
        };
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        assert!(text.contains("No space left"), "{text}");
    }
    let store = Store::open(at.join("store")).unwrap();
    assert_eq!(
        std::fs::read_dir(at.join("store/staging")).unwrap().count(),
        0
    );
    let layers = store.resolve(&kept.hex()).unwrap().layers;
    assert_eq!(
        layers[0].path.metadata().unwrap().len(),
        layers[0].size_bytes
    );
}

#[test]
fn an_image_of_buildahs_is_what_podman_mounts() {
    if !can_mount() || !have("buildah") || !have("podman") || !have("setfattr") {
        eprintln!("skipped: needs root, loop devices, EROFS, buildah, podman and setfattr");
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/buildah-image");
    run(script.to_str().unwrap(), &[work.path().as_os_str()]);
    let mounted = std::fs::read_to_string(work.path().join("mounted")).unwrap();
    let theirs = survey(Path::new(mounted.trim_end()));
    for archive in ["docker.tar", "oci.tar"] {
        let mut store = Store::open(work.path().join("store")).unwrap();
        let image = load(&mut store, &work.path().join(archive));
        assert_eq!(image.layers.len(), 2);
        check(&image);
        let (merged, _mounts) = mount_layers(&paths(&image), &work.path().join("mnt"));
        assert_same(&survey(&merged), &theirs);
    }
}
