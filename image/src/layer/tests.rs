//! Layers from tars, written by hand, checked with the reader and by whoever else can read them.

mod digests;

use super::tree::{S_IFCHR, S_IFMT};
use super::*;
use crate::erofs::{Node, Reader};
use crate::limits::Limits;
use crate::testing::TarBuilder;
use hullbox_tar::TarReader;
use std::fs::File;

/// Converts and, where needed, finishes a stack of layers.
fn stack(tars: &[Vec<u8>]) -> Result<Vec<Reader>, LayerError> {
    let limits = Limits::default();
    let mut chain: Vec<Reader> = Vec::new();
    for tar in tars {
        let file = layer_file(tar, &chain, &limits)?;
        chain.insert(0, Reader::open(file).unwrap());
    }
    Ok(chain)
}

fn layer_file(tar: &[u8], chain: &[Reader], limits: &Limits) -> Result<File, LayerError> {
    let dir = tempfile::tempdir().unwrap();
    let fresh = |name: &str| {
        let path = dir.path().join(name);
        let mut options = File::options();
        let options = options.read(true).write(true).create_new(true);
        (options.open(&path).unwrap(), path)
    };
    let space = Workspace {
        image: fresh("image"),
        spool: fresh("spool"),
        tree: fresh("tree"),
    };
    let mut reader = TarReader::new(tar, limits.max_header_bytes);
    Ok(match convert(&mut reader, space, limits)? {
        Converted::Independent { file, .. } => file,
        Converted::Dependent(draft) => {
            let image = File::options().read(true).write(true).open(&draft.data);
            let mut budget = CopyBudget::new(limits);
            finish(&draft, image.unwrap(), chain, limits, &mut budget)?.0
        }
    })
}

fn find(reader: &Reader, path: &str) -> Option<Node> {
    path.split('/')
        .filter(|name| !name.is_empty())
        .try_fold(reader.root().unwrap(), |dir, name| {
            reader.lookup(&dir, name.as_bytes()).unwrap()
        })
}

fn contents(reader: &Reader, path: &str) -> Vec<u8> {
    let node = find(reader, path).unwrap();
    let mut bytes = vec![0; usize::try_from(node.size).unwrap()];
    reader.read_data(&node, 0, &mut bytes).unwrap();
    bytes
}

fn is_whiteout(node: &Node) -> bool {
    node.mode & S_IFMT == S_IFCHR && node.address == 0
}

fn is_opaque(reader: &Reader, path: &str) -> bool {
    reader
        .xattrs(&find(reader, path).unwrap())
        .unwrap()
        .is_opaque()
}

fn problem(tars: &[Vec<u8>]) -> Problem {
    match stack(tars) {
        Err(LayerError::Entry { problem, .. }) => problem,
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[test]
fn files_of_every_size_keep_their_bytes() {
    let sizes = [
        0, 1, 31, 2047, 2048, 2049, 4095, 4096, 4097, 6000, 8192, 300_000, 1_000_001,
    ];
    let bytes = |size: usize| (0..size).map(|i| (i % 251) as u8).collect::<Vec<_>>();
    let mut tar = TarBuilder::default();
    for size in sizes {
        tar.file(&format!("d/f{size}"), &bytes(size));
    }
    tar.file("zeros", &vec![0; 100_000]);
    let chain = stack(&[tar.finish()]).unwrap();
    for size in sizes {
        assert_eq!(
            contents(&chain[0], &format!("d/f{size}")),
            bytes(size),
            "{size}"
        );
    }
    assert_eq!(contents(&chain[0], "zeros"), vec![0; 100_000]);
}

#[test]
fn the_same_tar_gives_the_same_bytes() {
    let mut tar = TarBuilder::default();
    for i in 0..500 {
        tar.file(&format!("dir{}/file{i}", i % 7), &vec![i as u8; i * 37]);
    }
    let tar = tar.finish();
    let read = || {
        use std::os::unix::fs::FileExt;
        let file = layer_file(&tar, &[], &Limits::default()).unwrap();
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let first = read();
    assert_eq!(first.len() % 4096, 0);
    assert!(first == read(), "two conversions differ");
}

#[test]
fn large_directories_are_searchable() {
    let mut tar = TarBuilder::default();
    let name = |i: usize| format!("d/{}{i}", ["!", "a", "é", "zzzzzzzzzzzzzzzzzzz"][i % 4]);
    for i in 0..3000 {
        tar.file(&name(i), name(i).as_bytes());
    }
    let chain = stack(&[tar.finish()]).unwrap();
    for i in 0..3000 {
        assert_eq!(contents(&chain[0], &name(i)), name(i).as_bytes());
    }
    for missing in ["d/", "d/!", "d/zzz", "d/~", "d/a30000"] {
        assert!(
            missing == "d/" || find(&chain[0], missing).is_none(),
            "{missing}"
        );
    }
}

#[test]
fn whiteouts_hide_only_what_is_below() {
    let mut base = TarBuilder::default();
    base.dir("d")
        .file("d/a", b"1")
        .file("d/b", b"1")
        .file("d/c/x", b"1")
        .file("d/e/x", b"1");
    let mut top = TarBuilder::default();
    // Before and after what has the same name in the same layer.
    top.dir("d")
        .file("d/.wh.a", b"")
        .file("d/.wh.b", b"")
        .file("d/b", b"2");
    top.dir("d/c").file("d/c/y", b"2").file("d/.wh.c", b"");
    top.dir("d/e")
        .file("d/e/y", b"2")
        .file("d/e/.wh..wh..opq", b"");
    // Of nothing below: overlayfs would list it in a directory it does not merge.
    top.file("d/.wh.nothing", b"");
    let chain = stack(&[base.finish(), top.finish()]).unwrap();
    let top = &chain[0];
    assert!(is_whiteout(&find(top, "d/a").unwrap()));
    assert_eq!(contents(top, "d/b"), b"2");
    assert!(is_opaque(top, "d/c") && is_opaque(top, "d/e") && !is_opaque(top, "d"));
    assert_eq!(contents(top, "d/c/y"), b"2");
    assert_eq!(contents(top, "d/e/y"), b"2");
    assert!(find(top, "d/nothing").is_none());
}

#[test]
fn whiteouts_in_the_lowest_layer_leave_nothing() {
    let mut tar = TarBuilder::default();
    tar.file("d/.wh.a", b"").file("d/b", b"");
    let chain = stack(&[tar.finish()]).unwrap();
    assert!(find(&chain[0], "d/a").is_none() && find(&chain[0], "d/b").is_some());
}

#[test]
fn bad_whiteouts_are_refused() {
    for (name, expected) in [
        (".wh.", Problem::Whiteout),
        ("a/.wh..", Problem::Whiteout),
        ("a/.wh...", Problem::Whiteout),
        (".wh.a/b", Problem::BeneathWhiteout),
    ] {
        let mut tar = TarBuilder::default();
        tar.file(name, b"");
        assert_eq!(problem(&[tar.finish()]), expected);
    }
}

#[test]
fn undescribed_parents_look_like_those_below() {
    let mut base = TarBuilder::default();
    base.entry(b'5', "home/", b"")
        .mode(0o2710)
        .owner(5, 6)
        .mtime(77);
    base.done();
    let mut top = TarBuilder::default();
    top.file("home/x", b"").file("new/y", b"");
    let chain = stack(&[base.finish(), top.finish()]).unwrap();
    let home = find(&chain[0], "home").unwrap();
    assert_eq!((home.mode & 0o7777, home.uid, home.gid), (0o2710, 5, 6));
    assert_eq!(home.mtime, (77, 0));
    let new = find(&chain[0], "new").unwrap();
    assert_eq!((new.mode & 0o7777, new.uid), (0o755, 0));
}

#[test]
fn entries_beneath_links_land_where_the_link_leads() {
    let mut base = TarBuilder::default();
    base.dir("usr/lib")
        .symlink("lib", "usr/lib")
        .symlink("up", "../../../usr/./lib");
    let mut top = TarBuilder::default();
    // The link is in a layer below; in the same layer; and both at once.
    top.file("lib/a", b"a").file("up/b", b"b");
    top.symlink("here", "/lib")
        .file("here/c", b"c")
        .file("usr/lib/d", b"d");
    let chain = stack(&[base.finish(), top.finish()]).unwrap();
    for name in ["a", "b", "c", "d"] {
        assert_eq!(
            contents(&chain[0], &format!("usr/lib/{name}")),
            name.as_bytes()
        );
    }
    for gone in ["lib", "up"] {
        assert!(find(&chain[0], gone).is_none(), "{gone} must stay a link");
    }
}

#[test]
fn links_in_circles_and_files_as_parents_are_refused() {
    let mut tar = TarBuilder::default();
    tar.symlink("a", "b").symlink("b", "a").file("a/x", b"");
    assert_eq!(problem(&[tar.finish()]), Problem::SymlinkLoop);
    let mut base = TarBuilder::default();
    base.symlink("a", "b").symlink("b", "a");
    let mut top = TarBuilder::default();
    top.file("a/x", b"");
    assert_eq!(
        problem(&[base.finish(), top.finish()]),
        Problem::SymlinkLoop
    );
    let mut tar = TarBuilder::default();
    tar.file("a", b"").file("a/x", b"");
    assert_eq!(problem(&[tar.finish()]), Problem::NotADirectory);
    let mut base = TarBuilder::default();
    base.file("a", b"");
    let mut top = TarBuilder::default();
    top.file("a/x", b"");
    assert_eq!(
        problem(&[base.finish(), top.finish()]),
        Problem::NotADirectory
    );
}

#[test]
fn hard_links_share_an_inode_even_across_layers() {
    let mut base = TarBuilder::default();
    base.dir("d")
        .entry(b'0', "d/a", b"content")
        .mode(0o4755)
        .owner(7, 8);
    base.done();
    let mut top = TarBuilder::default();
    top.file("x", b"first")
        .hard_link("y", "x")
        .file("x", b"second");
    top.hard_link("e/b", "d/a")
        .hard_link("e/c", "/d/../d/a".replace("/d/..", "").as_str());
    let chain = stack(&[base.finish(), top.finish()]).unwrap();
    let top = &chain[0];
    assert_eq!(contents(top, "y"), b"first");
    assert_eq!(contents(top, "x"), b"second");
    for name in ["d/a", "e/b", "e/c"] {
        assert_eq!(contents(top, name), b"content");
        assert_eq!(find(top, name), find(top, "d/a"), "one inode");
    }
    let node = find(top, "e/b").unwrap();
    assert_eq!((node.mode & 0o7777, node.uid, node.gid), (0o4755, 7, 8));
}

#[test]
fn bad_hard_links_are_refused() {
    let missing = |target: &str| Problem::LinkMissing(target.to_owned());
    for (target, expected) in [
        ("nowhere", missing("nowhere")),
        ("a", missing("a")),
        ("d", Problem::LinkToDirectory),
        ("/", Problem::LinkToDirectory),
        ("../etc/passwd", Problem::ParentDir),
        ("", Problem::EmptyName),
        ("evil/passwd", missing("evil/passwd")),
    ] {
        let mut tar = TarBuilder::default();
        tar.dir("d").symlink("evil", "/etc").hard_link("a", target);
        assert_eq!(problem(&[tar.finish()]), expected, "{target}");
    }
}

#[test]
fn our_markers_cannot_be_forged() {
    let mut tar = TarBuilder::default();
    tar.entry(b'3', "w", b"");
    tar.done();
    assert_eq!(problem(&[tar.finish()]), Problem::ForgedWhiteout);
    let mut tar = TarBuilder::default();
    tar.pax(&[
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.security.selinux", b"x"),
        ("SCHILY.xattr.user.kept", b"y"),
    ]);
    tar.dir("d");
    let chain = stack(&[tar.finish()]).unwrap();
    assert!(!is_opaque(&chain[0], "d"));
    let xattrs = chain[0].xattrs(&find(&chain[0], "d").unwrap()).unwrap();
    assert_eq!(
        format!("{xattrs:?}"),
        format!("XattrSet([(1, {:?}, {:?})])", b"kept", b"y")
    );
}

#[test]
fn kinds_replace_each_other() {
    let mut tar = TarBuilder::default();
    tar.dir("a").file("a/x", b"").file("a", b"now a file");
    tar.file("b", b"").dir("b").file("b/x", b"1");
    tar.dir("c")
        .file("c/x", b"")
        .symlink("c", "b")
        .file("c/y", b"2");
    tar.symlink("s", "b").dir("s").file("s/z", b"3");
    let chain = stack(&[tar.finish()]).unwrap();
    assert_eq!(contents(&chain[0], "a"), b"now a file");
    assert_eq!(contents(&chain[0], "b/x"), b"1");
    assert_eq!(contents(&chain[0], "b/y"), b"2");
    assert_eq!(contents(&chain[0], "s/z"), b"3");
    assert!(find(&chain[0], "b/z").is_none());
}

#[test]
fn large_ids_times_and_devices() {
    let mut tar = TarBuilder::default();
    tar.pax(&[
        ("uid", b"4000000000"),
        ("gid", b"2097152"),
        ("mtime", b"-1.25"),
    ]);
    tar.file("old", b"x");
    tar.pax(&[("mtime", b"99999999999.123456789")]);
    tar.file("future", b"x");
    tar.entry(b'4', "disk", b"").device(259, 70_000);
    tar.done();
    let chain = stack(&[tar.finish()]).unwrap();
    let old = find(&chain[0], "old").unwrap();
    assert_eq!(
        (old.uid, old.gid, old.mtime),
        (4_000_000_000, 2_097_152, (-2, 750_000_000))
    );
    let future = find(&chain[0], "future").unwrap();
    assert_eq!(future.mtime, (99_999_999_999, 123_456_789));
    let disk = find(&chain[0], "disk").unwrap();
    assert_eq!(Some(disk.address), crate::erofs::encode_device(259, 70_000));
}

#[test]
fn whiteouts_beneath_files_are_of_nothing() {
    let mut base = TarBuilder::default();
    base.file("f", b"1").file("d/x", b"1");
    let mut top = TarBuilder::default();
    top.file("d", b"2")
        .file("d/.wh.x", b"")
        .file("f/.wh.y", b"")
        .file("f/.wh..wh..opq", b"");
    let chain = stack(&[base.finish(), top.finish()]).unwrap();
    assert_eq!(contents(&chain[0], "d"), b"2");
    assert!(find(&chain[0], "f").is_none());
}

#[test]
fn padding_may_be_missing_at_the_end_but_data_may_not() {
    let mut tar = TarBuilder::default();
    let tar = tar.file("a", b"12345").finish();
    assert!(stack(&[tar[..512 + 5].to_vec()]).is_ok());
    assert!(stack(&[tar[..1024].to_vec()]).is_ok());
    for cut in [1, 511, 512, 512 + 4] {
        assert!(matches!(
            stack(&[tar[..cut].to_vec()]),
            Err(LayerError::Tar(TarError::Truncated))
        ));
    }
}
