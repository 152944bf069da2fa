//! Which pages of a snapshot its guests soon touch.
//!
//! Every such page costs a guest that begins there an exit, and where it writes first the host copies
//! the page in it. What one guest of a snapshot touched is noted beside it; for the next ones the
//! pages that it wrote are copied, and all are mapped, before they run. It is a hint and nothing
//! more: a wrong one copies and maps pages for nothing, and never more than [`MAX_WRITTEN`] and
//! [`MAX_TOUCHED`].

use crate::memory::{Extent, GuestMemory, PAGE, Touched};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;

const FILE: &str = "touched";
/// Pages, 8 MiB of them. A start writes to some 4.
const MAX_WRITTEN: u64 = 2048;
/// Pages, 64 MiB of them.
const MAX_TOUCHED: u64 = 16384;
/// Runs of pages. A start leaves some 300.
const MAX_RUNS: usize = 4096;
/// Of a run in the file: its first page, and how many there are.
const RUN_BYTES: usize = 2 * size_of::<u32>();
/// In the count of a run that was written to.
const WRITTEN: u32 = 1 << 31;

/// What a guest can tell those after it.
#[derive(Debug)]
pub(crate) struct Lesson {
    memory: GuestMemory,
    extents: Vec<Extent>,
    dir: PathBuf,
}

impl Lesson {
    /// For a guest in this memory, that began at the snapshot in `dir`.
    pub(crate) fn new(memory: &GuestMemory, extents: &[Extent], dir: &Path) -> Self {
        Self {
            memory: memory.clone(),
            extents: extents.to_vec(),
            dir: dir.to_owned(),
        }
    }

    /// Note what was touched until now.
    pub(crate) fn teach(&self) -> io::Result<()> {
        let mut text = Vec::new();
        for run in bounded(self.memory.touched(&self.extents)?) {
            let flag = if run.written { WRITTEN } else { 0 };
            let first = u32::try_from(run.pages.start / PAGE).map_err(io::Error::other)?;
            let count = u32::try_from(run.pages.bytes / PAGE).map_err(io::Error::other)?;
            text.extend_from_slice(&first.to_le_bytes());
            text.extend_from_slice(&(count | flag).to_le_bytes());
        }
        let staged = self.dir.join(format!("{FILE}.{}", process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&staged)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| fs::rename(&staged, self.dir.join(FILE)));
        written.inspect_err(|_| {
            // The first error is the one to tell.
            let _ = fs::remove_file(&staged);
        })
    }
}

/// The runs of pages that earlier guests of the snapshot in `dir` touched; `None` if none has told.
pub(super) fn read(dir: &Path) -> Option<Vec<Touched>> {
    let mut text = Vec::new();
    let file = File::open(dir.join(FILE)).ok()?;
    let limit = (MAX_RUNS * RUN_BYTES) as u64;
    file.take(limit).read_to_end(&mut text).ok()?;
    Some(bounded(parse(&text)).collect())
}

fn parse(text: &[u8]) -> impl Iterator<Item = Touched> {
    let (runs, _) = text.as_chunks::<RUN_BYTES>();
    runs.iter().map(|&[a, b, c, d, e, f, g, h]| {
        let first = u32::from_le_bytes([a, b, c, d]);
        let count = u32::from_le_bytes([e, f, g, h]);
        Touched {
            pages: Extent {
                start: u64::from(first) * PAGE,
                bytes: u64::from(count & !WRITTEN) * PAGE,
            },
            written: count & WRITTEN != 0,
        }
    })
}

/// The first of the runs, as many as there may be.
fn bounded(runs: impl IntoIterator<Item = Touched>) -> impl Iterator<Item = Touched> {
    let (mut written, mut all) = (MAX_WRITTEN, MAX_TOUCHED);
    let within = move |mut run: Touched| {
        let left = if run.written { written.min(all) } else { all };
        let pages = (run.pages.bytes / PAGE).min(left);
        all -= pages;
        written -= if run.written { pages } else { 0 };
        run.pages.bytes = pages * PAGE;
        (pages > 0).then_some(run)
    };
    runs.into_iter().take(MAX_RUNS).map_while(within)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::HugePages;
    use vm_memory::{Bytes, GuestAddress};

    fn run(first: u64, count: u64, written: bool) -> Touched {
        let pages = Extent {
            start: first * PAGE,
            bytes: count * PAGE,
        };
        Touched { pages, written }
    }

    #[test]
    fn what_one_guest_touched_the_next_one_hears() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), None);
        let path = dir.path().join("memory");
        fs::write(&path, vec![7u8; 4 << 20]).unwrap();
        let file = File::open(&path).unwrap();
        let memory = GuestMemory::new(&[(0, 8 << 20)], HugePages::Never).unwrap();
        let saved = Extent {
            start: 0,
            bytes: 4 << 20,
        };
        memory.map_saved(&file, &saved).unwrap();
        let ram = memory.ram();
        for page in [3u64, 4, 5, 1000] {
            ram.write_obj(1u8, GuestAddress(page * PAGE)).unwrap();
        }
        let _: u8 = ram.read_obj(GuestAddress(700 * PAGE)).unwrap();
        // Not of the snapshot.
        ram.write_obj(1u8, GuestAddress(5 << 20)).unwrap();
        Lesson::new(&memory, &[saved], dir.path()).teach().unwrap();
        let heard = read(dir.path()).unwrap();
        let written: Vec<_> = heard.iter().filter(|run| run.written).copied().collect();
        assert_eq!(written, [run(3, 3, true), run(1000, 1, true)]);
        // The host maps neighbours of what is read.
        let holds = |run: &Touched, page| {
            (run.pages.start..run.pages.start + run.pages.bytes).contains(&(page * PAGE))
        };
        assert!(heard.iter().any(|run| !run.written && holds(run, 700)));
        assert!(!heard.iter().any(|run| holds(run, 300)));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        // A page that was copied ahead holds what the snapshot has.
        memory.copy_ahead(&run(300, 2, true).pages);
        assert_eq!(ram.read_obj::<u8>(GuestAddress(300 * PAGE)).unwrap(), 7);
        let known = memory.touched(&[saved]).unwrap();
        assert!(known.contains(&run(300, 2, true)));
    }

    #[test]
    fn a_hint_is_bounded_whatever_it_says() {
        let known = |text: &[u8]| bounded(parse(text)).collect::<Vec<_>>();
        let pair = |first: u32, count: u32| [first.to_le_bytes(), count.to_le_bytes()].concat();
        assert_eq!(known(&[]), []);
        assert_eq!(known(&[1, 2, 3]), []);
        assert_eq!(known(&pair(7, 0)), []);
        let text = [
            pair(1, WRITTEN | 2000),
            pair(9000, 20000),
            pair(2, WRITTEN | 100),
        ]
        .concat();
        let left = MAX_TOUCHED - 2000;
        assert_eq!(known(&text), [run(1, 2000, true), run(9000, left, false)]);
        let text = [pair(1, WRITTEN | 2000), pair(9000, WRITTEN | 100)].concat();
        assert_eq!(known(&text), [run(1, 2000, true), run(9000, 48, true)]);
        assert_eq!(known(&pair(5, 1).repeat(MAX_RUNS + 1)).len(), MAX_RUNS);
        // Outside of all memory: nothing happens.
        let memory = GuestMemory::new(&[(0, 2 << 20)], HugePages::Never).unwrap();
        for wild in known(&pair(u32::MAX, u32::MAX)) {
            memory.copy_ahead(&wild.pages);
            assert_eq!(memory.addresses_of(&wild.pages), []);
        }
    }
}
