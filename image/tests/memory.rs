//! Memory stays bounded whatever streams by: measured as the peak of a process of its own.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use common::testing::TarBuilder;
use hullbox_image::{ImportOptions, LayerStep, PullRequest, Source, Store};
use std::io::{self, Read};
use std::process::Command;

/// A tar of many small files in many directories, made while it is read.
struct Flood {
    entries: u64,
    bytes_each: usize,
    made: u64,
    chunk: Vec<u8>,
    position: usize,
}

impl Flood {
    fn new(entries: u64, bytes_each: usize) -> Self {
        Self {
            entries,
            bytes_each,
            made: 0,
            chunk: Vec::new(),
            position: 0,
        }
    }
}

impl Read for Flood {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.chunk.len() && self.made < self.entries {
            let mut tar = TarBuilder::default();
            let data = vec![self.made as u8 | 1; self.bytes_each];
            for _ in 0..(100_000 / self.bytes_each).clamp(1, 100) {
                let (dir, file) = (self.made / 1000, self.made % 1000);
                if file == 0 {
                    tar.dir(&format!("dir{dir}"));
                }
                let mtime = self.made;
                tar.entry(b'0', &format!("dir{dir}/file-number-{file}"), &data);
                tar.mtime(mtime).done();
                self.made += 1;
            }
            self.chunk = tar.finish();
            self.chunk.truncate(self.chunk.len() - 1024);
            self.position = 0;
        }
        let rest = &self.chunk[self.position..];
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        self.position += len;
        Ok(len)
    }
}

/// Not a test: imports a flood and prints its peak memory, in KiB.
#[test]
#[ignore = "a child process of other tests"]
fn child_that_imports() {
    let Ok(flood) = std::env::var("FLOOD") else {
        return;
    };
    let (entries, bytes) = flood.split_once('x').unwrap();
    let mut flood = Flood::new(entries.parse().unwrap(), bytes.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let source = Source::Stream(&mut flood);
    let result = store.import(source, &ImportOptions::default(), &mut |_| {});
    let left = std::fs::read_dir(dir.path().join("staging"))
        .unwrap()
        .count();
    assert_eq!(left, 0);
    if let Err(error) = result {
        println!("error {:?}", error);
    }
    println!("{}", peak());
}

/// The line of /proc/self/status.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    lines
        .find(|line| line.starts_with("VmHWM"))
        .unwrap()
        .to_owned()
}

fn parse_peak(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok())
}

/// Peak memory of importing a flood, in KiB, and what was printed.
fn import(entries: u64, bytes_each: usize) -> (u64, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_imports", "--ignored", "--nocapture"])
        .env("FLOOD", format!("{entries}x{bytes_each}"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let peak = parse_peak(&text).unwrap_or_else(|| panic!("{text}"));
    (peak, text)
}

#[test]
fn a_large_image_takes_little_memory() {
    let (peak, text) = import(300, 1 << 20);
    assert!(!text.contains("error"), "{text}");
    assert!(peak < 40 << 10, "{peak} KiB for 300 MiB");
}

#[test]
fn many_entries_take_under_a_hundred_bytes_each() {
    let entries = 100_000;
    let (peak, text) = import(entries, 20);
    assert!(!text.contains("error"), "{text}");
    assert!(
        peak << 10 < entries * 100 + (15 << 20),
        "{peak} KiB for {entries} entries"
    );
}

/// Not a test: pulls an image of twenty layers, all fed at once, and prints its peak memory, in KiB.
#[test]
#[ignore = "a child process of other tests"]
fn child_that_pulls() {
    let Some(blobs) = std::env::var_os("BLOBS") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let read = |name: &str| std::fs::read(std::path::Path::new(&blobs).join(name)).unwrap();
    let request = PullRequest {
        manifest: read("manifest"),
        media_type: None,
        config: read("config"),
        index: None,
        origin: None,
        names: Vec::new(),
    };
    let pull = store.begin_pull(request).unwrap();
    std::thread::scope(|scope| {
        for (index, info) in pull.layers().iter().enumerate() {
            let (pull, blobs) = (&pull, &blobs);
            scope.spawn(move || {
                let LayerStep::Fetch(task) = pull.layer(index).unwrap() else {
                    return;
                };
                let path = std::path::Path::new(blobs).join(info.digest.hex());
                task.feed(std::fs::File::open(path).unwrap()).unwrap();
            });
        }
    });
    assert_eq!(pull.layers().len(), 20);
    pull.finish(&mut store).unwrap();
    println!("{}", peak());
}

#[test]
fn twenty_layers_at_once_take_little_memory() {
    let layers: Vec<_> = (0..20u32)
        .map(|n| {
            let mut tar = TarBuilder::default();
            for file in 0..4u32 {
                let start = (n * 4 + file) << 19;
                let data: Vec<u8> = (start..start + (1 << 18))
                    .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
                    .collect();
                tar.file(&format!("file-{n}-{file}"), &data);
            }
            tar.finish()
        })
        .collect();
    let layers: Vec<_> = layers.iter().map(Vec::as_slice).collect();
    let packed: Vec<_> = layers
        .iter()
        .map(|layer| common::archive::zstd(layer))
        .collect();
    let media_type = common::archive::LAYER.replace("gzip", "zstd");
    let remote = common::pull::Remote::packed(&layers, &packed, &media_type, "x", |_| {});
    let dir = tempfile::tempdir().unwrap();
    for (digest, blob) in &remote.blobs {
        std::fs::write(dir.path().join(digest.hex()), blob).unwrap();
    }
    std::fs::write(dir.path().join("manifest"), &remote.request.manifest).unwrap();
    std::fs::write(dir.path().join("config"), &remote.request.config).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_pulls", "--ignored", "--nocapture"])
        .env("BLOBS", dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let peak = parse_peak(&text).unwrap_or_else(|| panic!("{text}"));
    println!("{peak} KiB for twenty layers");
    assert!(peak < 70 << 10, "{peak} KiB");
}

/// The same at full scale; minutes without optimisation.
#[test]
#[ignore = "slow: run it with --release"]
fn three_million_entries_fit_and_ten_million_are_refused() {
    let (peak, text) = import(3_000_000, 20);
    println!("{peak} KiB for three million");
    assert!(!text.contains("error"), "{text}");
    assert!(peak < 500 << 10, "{peak} KiB");
    let (peak, text) = import(10_000_000, 20);
    println!("{peak} KiB for ten million");
    assert!(text.contains("TooMany"), "{text}");
    assert!(peak < 1 << 20, "{peak} KiB");
}
