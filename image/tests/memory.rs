//! Memory stays bounded whatever streams by: measured as the peak of a process of its own.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use common::testing::TarBuilder;
use hullbox_image::{ImportOptions, Source, Store};
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
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    println!("{peak}");
}

/// Peak memory of importing a flood, in KiB, and what was printed.
fn import(entries: u64, bytes_each: usize) -> (u64, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_imports", "--ignored", "--nocapture"])
        .env("FLOOD", format!("{entries}x{bytes_each}"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let peak = text
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or_else(|| panic!("{text}"));
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
