//! Rows 1 to 5: what a layer names, links, hides and makes.

use crate::bed::{Bed, layer_with, layer_with_pax};
use crate::common::archive::image;
use crate::common::testing::TarBuilder;

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
