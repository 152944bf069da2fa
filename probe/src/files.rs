//! Work on the writable layer.

use crate::figures::{Figures, nanos};
use rustix::fs::{Mode, OFlags};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

const BLOCK_BYTES: u64 = 4096;
const MIB: usize = 1 << 20;
/// A direct transfer wants its memory at a boundary of the device's blocks.
const ALIGNMENT: usize = 4096;
const SCRATCH: &str = "/probe-scratch";

/// Sequential and random transfers past the page cache of the kernel that this program runs on.
pub(crate) fn disk(mib: u64, operations: u64) -> io::Result<Figures> {
    fs::create_dir(SCRATCH)?;
    let done = transfers(&Path::new(SCRATCH).join("data"), mib, operations);
    fs::remove_dir_all(SCRATCH)?;
    done
}

fn transfers(path: &Path, mib: u64, operations: u64) -> io::Result<Figures> {
    let (file, direct) = open(path)?;
    let mut memory = vec![0xa5u8; MIB + ALIGNMENT];
    let shift = memory.as_ptr().align_offset(ALIGNMENT);
    let block = memory
        .get_mut(shift..shift + MIB)
        .ok_or(io::ErrorKind::InvalidInput)?;
    let write = timed(|| {
        (0..mib).try_for_each(|index| file.write_all_at(block, index << 20))?;
        file.sync_data()
    })?;
    let read = timed(|| (0..mib).try_for_each(|index| file.read_exact_at(block, index << 20)))?;
    let small = block
        .get_mut(..BLOCK_BYTES as usize)
        .ok_or(io::ErrorKind::InvalidInput)?;
    let blocks = (mib << 20) / BLOCK_BYTES;
    let mut places = Places(0x9e37_79b9_7f4a_7c15);
    let random_read =
        timed(|| (0..operations).try_for_each(|_| file.read_exact_at(small, places.next(blocks))))?;
    let random_write =
        timed(|| (0..operations).try_for_each(|_| file.write_all_at(small, places.next(blocks))))?;
    Ok(vec![
        ("direct", u64::from(direct)),
        ("sequential_bytes", mib << 20),
        ("sequential_write_ns", write),
        ("sequential_read_ns", read),
        ("random_operations", operations),
        ("random_read_ns", random_read),
        ("random_write_ns", random_write),
    ])
}

/// Past the page cache, where the filesystem can.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::open(path, flags | OFlags::DIRECT, mode) {
        Ok(file) => Ok((file.into(), true)),
        // It may have been made before it was refused.
        Err(rustix::io::Errno::INVAL) => {
            let flags = OFlags::RDWR | OFlags::CREATE;
            Ok((rustix::fs::open(path, flags, mode)?.into(), false))
        }
        Err(error) => Err(error.into()),
    }
}

fn timed(work: impl FnOnce() -> io::Result<()>) -> io::Result<u64> {
    let start = Instant::now();
    work()?;
    Ok(nanos(start.elapsed()))
}

/// The same places in every run.
struct Places(u64);

impl Places {
    /// Offset of one of `blocks` blocks.
    fn next(&mut self, blocks: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % blocks.max(1)) * BLOCK_BYTES
    }
}

/// What unpacking a tar, `find` and `rm -r` ask of a filesystem: `count` small files, 25 in each
/// directory, with modes and times set.
pub(crate) fn metadata(count: u64) -> io::Result<Figures> {
    fs::create_dir(SCRATCH)?;
    let root = Path::new(SCRATCH);
    let untar = timed(|| {
        for number in 0..count {
            let dir = root.join(format!("d{}", number / 25));
            if number % 25 == 0 {
                fs::create_dir(&dir)?;
            }
            let file = File::options()
                .write(true)
                .create_new(true)
                .open(dir.join(format!("file-{number}")))?;
            file.write_all_at(&[b'x'; 1024], 0)?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(0o640))?;
            file.set_modified(std::time::UNIX_EPOCH)?;
        }
        Ok(())
    });
    let mut found = 0u64;
    let find = timed(|| walk(root, &mut found));
    let remove = timed(|| fs::remove_dir_all(root));
    let figures = vec![
        ("files", count),
        ("untar_ns", untar?),
        ("find_ns", find?),
        ("remove_ns", remove?),
        ("found", found),
    ];
    if found < count {
        return Err(io::Error::other(format!("{found} of {count} files found")));
    }
    Ok(figures)
}

fn walk(dir: &Path, found: &mut u64) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if fs::symlink_metadata(&path)?.is_dir() {
            walk(&path, found)?;
        } else {
            *found += 1;
        }
    }
    Ok(())
}
