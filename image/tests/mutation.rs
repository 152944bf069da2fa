//! Thousands of slightly wrong images: none may panic, hang, or leave anything behind. What is
//! accepted must be an image the kernel's own checker finds sound. The mutations are the same in
//! every run; the fuzz targets look for others.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::archive::{Layout, image};
use common::testing::TarBuilder;
use common::{have, run};
use hullbox_image::{ImportOptions, Limits, LoadOptions, Source, Store};
use std::time::Duration;

/// Numbers that look random and are the same every time (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % sides
    }
}

/// A layer with some of everything.
fn layer() -> Vec<u8> {
    let mut tar = TarBuilder::default();
    tar.dir("a")
        .dir("a/b")
        .file("a/b/c", &[1; 5000])
        .file("a/small", b"small");
    tar.symlink("s", "a/b")
        .file("s/d", b"through")
        .hard_link("h", "a/b/c");
    tar.pax(&[
        ("path", b"long/name"),
        ("mtime", b"12.5"),
        ("SCHILY.xattr.user.x", b"y"),
    ]);
    tar.file("short", b"x");
    tar.pax(&[
        ("GNU.sparse.size", b"9000"),
        ("GNU.sparse.map", b"0,2,8000,2"),
    ]);
    tar.file("sparse", b"evil");
    tar.entry(b'L', "././@LongLink", b"gnu/long/name\0");
    tar.file("gnu", b"");
    tar.entry(b'3', "dev", b"").device(1, 3);
    tar.file("a/.wh.gone", b"").file("a/b/.wh..wh..opq", b"");
    tar.finish()
}

/// Changes some bytes, more often where a header's fields are, and mends the checksums so that
/// what was changed is read.
fn mutate(tar: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut tar = tar.to_vec();
    for _ in 0..=dice.roll(4) {
        let block = dice.roll(tar.len() / 512) * 512;
        let offset = match dice.roll(4) {
            0 => dice.roll(512),
            1 => 156,
            2 => 100 + dice.roll(48),
            _ => dice.roll(20),
        };
        let interesting = [
            0, 0xff, 0x80, b'/', b'.', b'0', b'7', b'9', b' ', b'\n', b'=',
        ];
        tar[block + offset] = match dice.roll(3) {
            0 => u8::try_from(dice.roll(256)).unwrap(),
            _ => interesting[dice.roll(interesting.len())],
        };
    }
    if dice.roll(10) == 0 {
        tar.truncate(dice.roll(tar.len()));
    }
    for block in tar.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    tar
}

fn store(root: &std::path::Path) -> Store {
    Store::open(root).unwrap().with_limits(Limits {
        // A changed size may ask for a large hole; looking at it takes the checker's time.
        max_file_bytes: 1 << 30,
        ..Limits::default()
    })
}

/// In memory where there is such a place: thousands of syncs are not what is tested.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Nothing is left, or nothing after the next command: a process that another test is starting
/// holds this one's locks for a moment, and sweeping does not wait.
fn is_empty(root: &std::path::Path) -> bool {
    let empty = || {
        ["layers", "staging", "blobs/sha256"]
            .iter()
            .all(|dir| std::fs::read_dir(root.join(dir)).unwrap().next().is_none())
    };
    (0..200).any(|attempt| {
        empty() || {
            std::thread::sleep(Duration::from_millis(attempt));
            drop(Store::open(root).unwrap());
            empty()
        }
    })
}

#[test]
fn mutated_layers() {
    let dir = scratch();
    let mut store = store(dir.path());
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let (layer, mut accepted) = (layer(), 0);
    for _ in 0..400 {
        let tar = mutate(&layer, &mut dice);
        let mut stream = &tar[..];
        let source = Source::Stream(&mut stream);
        if let Ok(id) = store.import(source, &ImportOptions::default(), &mut |_| {}) {
            accepted += 1;
            let image = store.resolve(&id.hex()).unwrap();
            if accepted % 20 == 1 && have("fsck.erofs") {
                run("fsck.erofs", &[image.layers[0].path.as_os_str()]);
            }
            store.remove(&id.hex(), true, &mut |_| None).unwrap();
        }
        assert!(is_empty(dir.path()));
    }
    assert!(
        accepted > 25,
        "only {accepted} were accepted: too wrong to be of use"
    );
}

#[test]
fn mutated_archives() {
    let dir = scratch();
    let mut store = store(dir.path());
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut layout = Layout::new();
    let small = TarBuilder::default().file("f", b"x").finish();
    let manifest = layout.image(&[&small], |_| {});
    layout.index(&[manifest]);
    let bases = [image(&[&small]), layout.tar()];
    for _ in 0..400 {
        let tar = mutate(&bases[dice.roll(2)], &mut dice);
        let mut stream = &tar[..];
        let source = Source::Stream(&mut stream);
        if let Ok(loaded) = store.load(source, &LoadOptions::default(), &mut |_| {}) {
            for image in loaded {
                store.remove(&image.id.hex(), true, &mut |_| None).unwrap();
            }
        }
        assert!(is_empty(dir.path()));
    }
}

/// The upper layer of two, whose undescribed parents, whiteouts and links reach into the lower.
#[test]
fn mutated_upper_layers() {
    let dir = scratch();
    let mut store = store(dir.path());
    let mut dice = Dice(0xd1b5_4a32_d192_ed03);
    let mut base = TarBuilder::default();
    base.dir("x")
        .file("x/y", b"y")
        .symlink("l", "x")
        .symlink("up", "../../x/./");
    base.symlink("loop", "loop/x")
        .dir("d")
        .file("d/e", &[3; 9000])
        .file("f", b"f");
    let base = base.finish();
    let mut top = TarBuilder::default();
    top.file("x/new", b"1")
        .file("l/a", b"2")
        .file("up/b", b"3")
        .file("x/.wh.y", b"");
    top.hard_link("h", "d/e")
        .hard_link("x/h2", "l/y")
        .file("q/.wh..wh..opq", b"");
    top.file(".wh.f", b"")
        .file("d/deep/er/z", &[5; 3000])
        .symlink("n", "d");
    let (top, mut accepted) = (top.finish(), 0);
    for _ in 0..400 {
        let top = mutate(&top, &mut dice);
        let archive = image(&[&base, &top]);
        let mut stream = &archive[..];
        let source = Source::Stream(&mut stream);
        if let Ok(loaded) = store.load(source, &LoadOptions::default(), &mut |_| {}) {
            accepted += 1;
            let id = loaded[0].id.hex();
            let layers = store.resolve(&id).unwrap().layers;
            if accepted % 20 == 1 && have("fsck.erofs") {
                run("fsck.erofs", &[layers[1].path.as_os_str()]);
            }
            store.remove(&id, true, &mut |_| None).unwrap();
        }
        assert!(is_empty(dir.path()));
    }
    assert!(
        accepted > 25,
        "only {accepted} were accepted: too wrong to be of use"
    );
}
