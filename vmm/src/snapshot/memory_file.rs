//! Guest memory as a sparse file, and which file it is.

use crate::memory::{Extent, GuestMemory, HUGE_PAGE, PAGE};
use rustix::fs::FallocateFlags;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

/// What tells a file from any other, and from itself after a change: nobody can write to a file
/// without changing the time of its last change of state, nor set that time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Length of the file.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            // The device's number may be another one after the next start of the host.
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// `TMPFS_MAGIC` of linux/magic.h.
const TMPFS: i64 = 0x0102_1994;

/// Whether whoever reads a hole of the file takes memory for it, and fails where there is none. KVM
/// then has the guest try again for ever.
pub(super) fn holes_are_filled_by_reading(file: &File) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(file)?.f_type == TMPFS)
}

/// Write what is not zero, page by page, and tell where that is.
///
/// Between two blocks it may be cancelled.
pub(super) fn write(
    file: &File,
    memory: &GuestMemory,
    cancelled: &dyn Fn() -> bool,
) -> io::Result<Vec<Extent>> {
    file.set_len(memory.bytes())?;
    let fill = holes_are_filled_by_reading(file)?;
    let mut extents: Vec<Extent> = Vec::new();
    let mut block = vec![0u8; HUGE_PAGE];
    let mut base = 0;
    for region in memory.ram().iter() {
        let mut at = 0;
        while at < region.len() {
            if cancelled() {
                return Err(io::Error::from(io::ErrorKind::Interrupted));
            }
            let len = (region.len() - at).min(HUGE_PAGE as u64);
            let block = &mut block[..usize::try_from(len).unwrap_or(HUGE_PAGE)];
            let slice = region
                .get_slice(MemoryRegionAddress(at), block.len())
                .map_err(io::Error::other)?;
            slice.copy_to(block);
            if write_block(file, block, base + at)? {
                if fill {
                    let whole = FallocateFlags::empty();
                    rustix::fs::fallocate(file, whole, base + at, len)?;
                }
                match extents.last_mut() {
                    Some(last) if last.start + last.bytes == base + at => last.bytes += len,
                    _ => extents.push(Extent {
                        start: base + at,
                        bytes: len,
                    }),
                }
            }
            at += len;
        }
        base += region.len();
    }
    Ok(extents)
}

/// Write the runs of pages of a block that are not zero; whether there were any.
fn write_block(file: &File, block: &[u8], offset: u64) -> io::Result<bool> {
    let page = PAGE as usize;
    let is_zero = |index: usize| block[index * page..][..page].iter().all(|byte| *byte == 0);
    let pages = block.len() / page;
    let (mut at, mut any) = (0, false);
    while at < pages {
        if is_zero(at) {
            at += 1;
            continue;
        }
        let end = (at..pages).find(|index| is_zero(*index)).unwrap_or(pages);
        file.write_all_at(&block[at * page..end * page], offset + (at * page) as u64)?;
        any = true;
        at = end;
    }
    Ok(any)
}
