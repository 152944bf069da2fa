//! Which pages of a snapshot its guests soon write to.
//!
//! Every such page costs a guest that begins there an exit, in which the host copies the page. What
//! one guest of a snapshot wrote is noted beside it, and copied for the next ones before they run.
//! It is a hint and nothing more: a wrong one copies pages for nothing, and never more than
//! [`MAX_PAGES`].

use super::memory_file::Extent;
use crate::memory::{GuestMemory, PAGE};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;

const FILE: &str = "written";
/// 8 MiB. A start writes to about 2.5.
const MAX_PAGES: u64 = 2048;
/// Of the file: two numbers for each run of pages.
const MAX_BYTES: usize = MAX_PAGES as usize * 2 * size_of::<u32>();

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

    /// Note what was written until now.
    pub(crate) fn teach(&self) -> io::Result<()> {
        let runs = self.memory.written(&self.extents)?;
        let mut text = Vec::new();
        let mut left = MAX_PAGES;
        for run in &runs {
            let pages = (run.bytes / PAGE).min(left);
            left -= pages;
            for number in [run.start / PAGE, pages] {
                let number = u32::try_from(number).map_err(io::Error::other)?;
                text.extend_from_slice(&number.to_le_bytes());
            }
            if left == 0 {
                break;
            }
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

/// The runs of pages that earlier guests of the snapshot in `dir` wrote to; `None` if none has told.
pub(super) fn read(dir: &Path) -> Option<Vec<Extent>> {
    let mut text = Vec::new();
    let file = File::open(dir.join(FILE)).ok()?;
    file.take(MAX_BYTES as u64).read_to_end(&mut text).ok()?;
    Some(parse(&text))
}

fn parse(text: &[u8]) -> Vec<Extent> {
    let mut left = MAX_PAGES;
    let (pairs, _) = text.as_chunks::<8>();
    pairs
        .iter()
        .map_while(|pair| {
            let (first, count) = (u32_at(pair, 0), u32_at(pair, 4));
            left = left.checked_sub(count)?;
            Some(Extent {
                start: first * PAGE,
                bytes: count * PAGE,
            })
        })
        .collect()
}

fn u32_at(pair: &[u8; 8], at: usize) -> u64 {
    u32::from_le_bytes([pair[at], pair[at + 1], pair[at + 2], pair[at + 3]]).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::HugePages;
    use vm_memory::{Bytes, GuestAddress};

    #[test]
    fn what_one_guest_wrote_the_next_one_hears() {
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
        memory.map_saved(&file, saved.start, saved.bytes).unwrap();
        let ram = memory.ram();
        for page in [3u64, 4, 5, 1000] {
            ram.write_obj(1u8, GuestAddress(page * PAGE)).unwrap();
        }
        let _: u8 = ram.read_obj(GuestAddress(700 * PAGE)).unwrap();
        // Not of the snapshot.
        ram.write_obj(1u8, GuestAddress(5 << 20)).unwrap();
        Lesson::new(&memory, &[saved], dir.path()).teach().unwrap();
        let run = |first: u64, count: u64| Extent {
            start: first * PAGE,
            bytes: count * PAGE,
        };
        assert_eq!(read(dir.path()), Some(vec![run(3, 3), run(1000, 1)]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        // A page that was copied ahead holds what the snapshot has.
        memory.copy_ahead(&run(8, 2));
        assert_eq!(ram.read_obj::<u8>(GuestAddress(8 * PAGE)).unwrap(), 7);
        let known = memory.written(&[saved]).unwrap();
        assert_eq!(known, [run(3, 3), run(8, 2), run(1000, 1)]);
    }

    #[test]
    fn a_hint_is_bounded_whatever_it_says() {
        let pair = |first: u32, count: u32| [first.to_le_bytes(), count.to_le_bytes()].concat();
        assert_eq!(parse(&[]), []);
        assert_eq!(parse(&[1, 2, 3]), []);
        let text = [pair(1, 2048), pair(2, 1)].concat();
        assert_eq!(parse(&text).len(), 1);
        assert_eq!(parse(&pair(u32::MAX, u32::MAX)), []);
        // Outside of all memory: nothing happens.
        let memory = GuestMemory::new(&[(0, 2 << 20)], HugePages::Never).unwrap();
        for wild in parse(&pair(u32::MAX, 2)) {
            memory.copy_ahead(&wild);
        }
    }
}
