//! Row 6: headers that disagree, sizes that lie, and too much of anything.

use crate::bed::{Bed, layer_with, layer_with_pax};
use crate::common::archive::{config, docker, gzip, image, small_layer, zstd};
use crate::common::testing::TarBuilder;
use hullbox_image::{Digest, Limits, Store};

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
    // A hundred gigabytes of hole cost nothing: neither blocks of the disk nor, since the file is
    // made of chunks, addresses in the image. (Once the image had the file's whole length.)
    bed.load(&image(&[&sparse(b"100000000000", b"99999999996,4")]))
        .unwrap();
    let image = bed.store.resolve("test:1").unwrap();
    let file = std::fs::metadata(&image.layers[0].path).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert!(file.len() < 1_000_000_000 && file.blocks() < 1000);
}

/// A sparse file of a tebibyte, in the layer `below`.
fn holes(name: &str) -> TarBuilder {
    let mut tar = TarBuilder::default();
    let size = (1u64 << 40).to_string();
    tar.pax(&[
        ("GNU.sparse.size", size.as_bytes()),
        ("GNU.sparse.map", b"4096,4"),
    ]);
    tar.file(name, b"evil");
    tar
}

/// A layer with one file, a hard link to the file of the layer below it.
fn linked(number: usize) -> Vec<u8> {
    TarBuilder::default()
        .hard_link(&number.to_string(), &(number - 1).to_string())
        .finish()
}

#[test]
fn links_into_layers_below_are_charged_and_holes_cost_nothing() {
    let mut bed = Bed::new();
    // Each layer links to the one below, and so has to have a copy of its own.
    let mut layers = vec![holes("0").finish()];
    layers.extend((1..127).map(linked));
    let all: Vec<&[u8]> = layers.iter().map(|layer| &layer[..]).collect();
    bed.load(&image(&all)).unwrap();
    let stored = bed.store.resolve("test:1").unwrap();
    use std::os::unix::fs::MetadataExt;
    let blocks = stored.layers.iter().map(|layer| {
        let file = std::fs::metadata(&layer.path).unwrap();
        file.blocks()
    });
    assert!(blocks.sum::<u64>() < 100_000);

    let mut bed = Bed::new();
    bed.store = Store::open(bed.dir.path().join("store"))
        .unwrap()
        .with_limits(Limits {
            max_linked_bytes: 300_000,
            ..Limits::default()
        });
    let mut layers = vec![TarBuilder::default().file("0", &[1; 100_000]).finish()];
    layers.extend((1..5).map(linked));
    let all: Vec<&[u8]> = layers.iter().map(|layer| &layer[..]).collect();
    bed.refuses(&image(&all), "more than 300000 bytes that hard links bring");
    bed.load(&image(&all[..4])).unwrap();
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
            // About a hundred entries with short names.
            max_layer_memory_bytes: 7_000,
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
    bed.refuses_layer(&many.finish(), "more than 7000 bytes of entries and names");
    let deep = format!("{}f", "d/".repeat(200));
    bed.refuses_layer(
        &layer_with_pax(&[("path", deep.as_bytes())]),
        "more than 7000 bytes of entries and names",
    );
    let mut long = TarBuilder::default();
    for i in 0..60 {
        let name = format!("{i}{}", "n".repeat(200));
        long.pax(&[("path", name.as_bytes())]).file("f", b"");
    }
    bed.refuses_layer(&long.finish(), "images.layer_memory_mib");
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
