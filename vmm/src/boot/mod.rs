//! The kernel and the initramfs: from files into guest memory.

mod copies;
mod elf;
mod error;

pub(crate) use copies::{Copies, Source};
pub use error::{BootError, LoadError};

use crate::arch::layout;
use crate::memory::{GuestMemory, PAGE};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

/// How a file's bytes get into guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// The guest shares the host's page cache until it writes.
    Map,
    /// The guest gets a copy.
    Copy,
}

/// A kernel in guest memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoadedKernel {
    /// Its first instruction.
    pub(crate) entry: GuestAddress,
    /// The first byte after it.
    pub(crate) end: GuestAddress,
}

/// Load the kernel's segments where they say they belong. What is to be copied is left in `copies`.
pub(crate) fn load_kernel(
    memory: &GuestMemory,
    path: &Path,
    placement: Placement,
    copies: &mut Copies,
) -> Result<LoadedKernel, LoadError> {
    let (source, file_len) = open(path)?;
    let image = elf::parse(&source.file, file_len)?;
    let low_end = low_memory_end(memory);
    let mut end = 0;
    for segment in &image.segments {
        let segment_end = segment
            .address
            .checked_add(segment.memory_len)
            .ok_or(LoadError::DoesNotFit)?;
        if segment.address < layout::HIGH_RAM || segment_end > low_end {
            return Err(LoadError::DoesNotFit);
        }
        end = end.max(segment_end);
        place(
            memory,
            &source,
            segment.offset,
            segment.address,
            segment.file_len,
            placement,
            copies,
        )?;
    }
    let inside = |segment: &elf::Segment| {
        (segment.address..segment.address + segment.file_len).contains(&image.entry)
    };
    if !image.segments.iter().any(inside) {
        return Err(LoadError::DoesNotFit);
    }
    Ok(LoadedKernel {
        entry: GuestAddress(image.entry),
        end: GuestAddress(end),
    })
}

/// Load the initramfs as high as the kernel can reach, and return where it is. What is to be copied
/// is left in `copies`.
pub(crate) fn load_initramfs(
    memory: &GuestMemory,
    kernel: &LoadedKernel,
    path: &Path,
    placement: Placement,
    copies: &mut Copies,
) -> Result<(GuestAddress, u64), LoadError> {
    let (source, len) = open(path)?;
    let pages = len
        .checked_next_multiple_of(PAGE)
        .ok_or(LoadError::DoesNotFit)?;
    let start = low_memory_end(memory)
        .checked_sub(pages)
        .filter(|start| *start >= kernel.end.0 && len > 0)
        .ok_or(LoadError::DoesNotFit)?;
    match placement {
        // The kernel does not look past the length it is told, so that the last page may hold
        // whatever it likes.
        Placement::Map => memory
            .map_file(GuestAddress(start), &source.file, 0, pages)
            .map_err(LoadError::Memory)?,
        Placement::Copy => copies.add(&source, 0, start, len),
    }
    Ok((GuestAddress(start), len))
}

fn open(path: &Path) -> Result<(Arc<Source>, u64), LoadError> {
    let file = File::open(path).map_err(LoadError::Read)?;
    let metadata = file.metadata().map_err(LoadError::Read)?;
    if !metadata.is_file() {
        return Err(LoadError::Read(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        )));
    }
    let path = path.to_owned();
    Ok((Arc::new(Source { file, path }), metadata.len()))
}

/// End of the memory below the devices, up to which the kernel is mapped at its start.
fn low_memory_end(memory: &GuestMemory) -> u64 {
    memory
        .ram()
        .iter()
        .next()
        .map_or(0, |region| region.start_addr().0 + region.len())
}

/// Ranges of memory besides the kernel's own that every Linux guest touches before its init runs, in
/// the order in which it does: the page descriptors (a 64th of all memory, made from the top down)
/// with the tables beside them, and where its first allocations come from. The latter was
/// measured, with guests of 128 MiB to 1 GiB; being wrong costs a few MiB or an exit or two.
pub(crate) fn first_touched(
    memory: &GuestMemory,
    initramfs: Option<(GuestAddress, u64)>,
) -> Vec<(u64, u64)> {
    const MIB: u64 = 1 << 20;
    let low_end = low_memory_end(memory);
    let mut ranges = Vec::new();
    // Above the devices' hole, descriptors come from the end of all memory: that is left alone.
    if memory.bytes() == low_end {
        let top = initramfs.map_or(low_end, |(start, _)| start.0);
        ranges.push((top.saturating_sub(low_end / 64 + MIB / 2), top));
    }
    ranges.extend([(2 * MIB, 6 * MIB), (8 * MIB, 10 * MIB)]);
    ranges
}

/// Bring a part of a file to an address, whole pages by mapping if that is wanted and possible.
fn place(
    memory: &GuestMemory,
    source: &Arc<Source>,
    offset: u64,
    address: u64,
    bytes: u64,
    placement: Placement,
    copies: &mut Copies,
) -> Result<(), LoadError> {
    let aligned = (offset | address).is_multiple_of(PAGE);
    let mapped = match placement {
        Placement::Map if aligned => bytes - bytes % PAGE,
        _ => 0,
    };
    if mapped > 0 {
        memory
            .map_file(GuestAddress(address), &source.file, offset, mapped)
            .map_err(LoadError::Memory)?;
    }
    copies.add(source, offset + mapped, address + mapped, bytes - mapped);
    Ok(())
}

#[cfg(test)]
mod tests;
