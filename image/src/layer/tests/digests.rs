//! The images of layers, byte for byte: what a store has and what this version would write must
//! not differ, because seals, snapshots and other stores refer to the bytes.

use super::{TarBuilder, layer_file};
use crate::digest::Digest;
use crate::erofs::Reader;
use crate::limits::Limits;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Converts a stack of layers, lowest first; answers the digests of their images.
fn digests(tars: &[Vec<u8>]) -> Vec<String> {
    let limits = Limits::default();
    let mut chain: Vec<Reader> = Vec::new();
    let mut digests = Vec::new();
    for tar in tars {
        let file = layer_file(tar, &chain, &limits).unwrap();
        digests.push(digest(&file));
        chain.insert(0, Reader::open(file).unwrap());
    }
    digests
}

fn digest(file: &File) -> String {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    Digest::of(&bytes).to_string()["sha256:".len()..][..16].to_owned()
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 31 + seed) % 253) as u8).collect()
}

/// Every kind of content: blocks, inline tails, chunks, long link targets, devices, attributes.
fn kinds() -> Vec<u8> {
    let mut tar = TarBuilder::default();
    tar.dir("d");
    for size in [0, 1, 2047, 2048, 2049, 4096, 4097, 6000, 70_000, 300_001] {
        tar.file(&format!("d/f{size}"), &pattern(size, size));
    }
    tar.file("d/zeros", &vec![0; 100_000]);
    tar.pax(&[
        ("GNU.sparse.major", b"0"),
        ("GNU.sparse.minor", b"1"),
        ("GNU.sparse.name", b"d/sparse"),
        ("GNU.sparse.size", b"10000000"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.map", b"4096,5000,9000000,7"),
    ]);
    tar.file("d/GNUSparseFile.0/sparse", &pattern(5007, 3));
    tar.symlink("short", "d/f1");
    let long = format!("d/{}", "x/".repeat(1500));
    tar.pax(&[("linkpath", long.as_bytes())]);
    tar.symlink("long", "");
    tar.entry(b'3', "null", b"").device(1, 3).mode(0o666).done();
    tar.entry(b'4', "disk", b"").device(259, 70_000).done();
    tar.entry(b'6', "fifo", b"").mtime(5).done();
    tar.hard_link("d/again", "d/f4097")
        .hard_link("null2", "null");
    for name in ["a", "b"] {
        tar.pax(&[
            ("SCHILY.xattr.user.key", b"value"),
            ("SCHILY.xattr.security.capability", &[2; 20]),
        ]);
        tar.file(name, b"with attributes");
    }
    tar.pax(&[("SCHILY.xattr.user.long", &[7; 3000])]);
    tar.dir("attributed");
    tar.file("attributed/x", b"x");
    tar.pax(&[("uid", b"4000000000"), ("mtime", b"-1.25")]);
    tar.file("old", b"x");
    tar.dir("e").file("e/x", b"").file("e", b"now a file");
    tar.finish()
}

/// Directories of no, one and many blocks, with names around `.` and `..`.
fn directories() -> Vec<u8> {
    let mut tar = TarBuilder::default();
    tar.dir("empty").dir("many").dir("some");
    for i in 0..2000 {
        let prefix = ["!", "a", "é", "zzzzzzzzzzzzzzzzzzz", "..."][i % 5];
        tar.entry(b'0', &format!("many/{prefix}{i}"), b"")
            .mtime(i as u64 / 1500)
            .done();
    }
    for i in 0..150 {
        tar.dir(&format!("some/{i}"));
        tar.file(&format!("some/{i}/implied/{i}"), &pattern(i * 20, i));
    }
    tar.finish()
}

#[test]
fn images_of_independent_layers_have_not_changed() {
    assert_eq!(
        digests(&[kinds(), directories()]),
        ["6807cd5935905ead", "50d93b8b48695c9d"]
    );
}

/// Whiteouts before and after their names, in opaque directories, beneath files, and of nothing.
fn whiteouts() -> Vec<u8> {
    let mut tar = TarBuilder::default();
    tar.file("d/.wh.f1", b"").file("d/.wh.f0", b"");
    tar.file("d/f0", b"anew").file("d/.wh.nothing", b"");
    tar.file("many/.wh..wh..opq", b"")
        .file("many/x", b"")
        .file("many/.wh.y", b"");
    tar.dir("attributed").file(".wh.attributed", b"");
    tar.file("e/.wh.x", b"").file("a/b/.wh.x", b"");
    tar.finish()
}

/// Entries beneath symbolic links of lower layers, and hard links to lower files.
fn links() -> Vec<u8> {
    let mut tar = TarBuilder::default();
    tar.file("short2/x/y", b"1").file("up/in/z", b"2");
    tar.file("up/in/a/b/c", b"3").file("some/0/c", b"4");
    tar.file("some/1/.wh.implied", b"").file("up/.wh.1", b"");
    tar.hard_link("copy/one", "d/f300001")
        .hard_link("copy/two", "d/f300001")
        .hard_link("copy/null", "null")
        .hard_link("copy/fifo", "fifo")
        .hard_link("copy/link", "short")
        .hard_link("copy/long", "long")
        .hard_link("copy/up", "up/0/implied/0")
        .hard_link("copy/attributed", "b");
    tar.finish()
}

#[test]
fn images_of_dependent_layers_have_not_changed() {
    let mut below = TarBuilder::default();
    below
        .dir("real")
        .symlink("short2", "/real")
        .symlink("up", "real/../some")
        .symlink("some/in", "../short2/x");
    below.entry(b'5', "real/x/", b"").mode(0o2710).owner(5, 6);
    below.done();
    let stack = [kinds(), directories(), below.finish(), links(), whiteouts()];
    assert_eq!(
        digests(&stack),
        [
            "6807cd5935905ead",
            "50d93b8b48695c9d",
            "b09a220aea7dcfef",
            "6609eb2474981bad",
            "f69e43859e2daffa",
        ]
    );
}
