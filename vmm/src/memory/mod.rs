//! Guest memory: how it is mapped, and how bytes move between it and files.
//!
//! This is one of the few modules with `unsafe` code. What it offers is safe: a [`Region`] keeps
//! the mapping that it points into alive, and all access goes through `vm_memory`'s volatile
//! slices.

mod extent;
mod io;
mod registers;

pub(crate) use extent::Extent;
pub(crate) use io::{Iovecs, pread, pread_now, pwrite, pwrite_now, recv, send};
pub(crate) use registers::RegisterPages;

use std::fs::File;
use std::io as stdio;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use vm_memory::bitmap::BS;
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion, GuestMemoryRegionBytes,
    GuestRegionCollection, GuestUsize, MemoryRegionAddress, VolatileSlice,
};

/// Size of a page of the host and the guest.
pub(crate) const PAGE: u64 = 4096;
/// Size of a huge page; guest memory is aligned to it so that KVM can use them.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// Why guest memory could not be arranged.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host refused a mapping.
    #[error("the host refused to map {bytes} bytes")]
    Map {
        /// How much was asked for.
        bytes: u64,
        /// The host's answer.
        #[source]
        source: stdio::Error,
    },
    /// A range that is not in guest memory, or not whole pages.
    #[error("the range {start:#x}+{bytes:#x} is not whole pages of guest memory")]
    Range {
        /// Guest physical address.
        start: u64,
        /// Length.
        bytes: u64,
    },
    /// KVM refused a memory slot.
    #[error("KVM refused a memory slot")]
    Slot(#[source] stdio::Error),
}

/// Whether the host should back guest memory with huge pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HugePages {
    /// Yes: a page fault of the guest costs an exit, and one of 2 MiB saves 511.
    Advise,
    /// No: only what is touched is committed.
    Never,
}

impl HugePages {
    /// What the host allows.
    pub(crate) fn of_host() -> Self {
        let policy = std::fs::read("/sys/kernel/mm/transparent_hugepage/enabled");
        match policy {
            Ok(text) if !text.windows(7).any(|word| word == b"[never]") => Self::Advise,
            _ => Self::Never,
        }
    }
}

/// An anonymous private mapping, aligned to huge pages, unmapped when the last user is gone.
#[derive(Debug)]
struct Mapping {
    base: *mut u8,
    reserved: *mut u8,
    reserved_len: usize,
    len: usize,
}

// SAFETY: the mapping is plain memory that any thread may access; all accesses to it go through
// volatile slices or system calls, and it is unmapped only when no reference is left.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(len: usize) -> stdio::Result<Self> {
        let reserved_len = len
            .checked_add(HUGE_PAGE)
            .ok_or(stdio::ErrorKind::OutOfMemory)?;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice overlaps nothing.
        let reserved = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                reserved_len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if reserved == libc::MAP_FAILED {
            return Err(stdio::Error::last_os_error());
        }
        let reserved = reserved.cast::<u8>();
        let base = reserved.wrapping_add(reserved.align_offset(HUGE_PAGE));
        Ok(Self {
            base,
            reserved,
            reserved_len,
            len,
        })
    }

    fn advise(&self, advice: libc::c_int) -> stdio::Result<()> {
        // SAFETY: the range is inside a mapping that `self` owns, and the advice given by callers
        // in this module (huge pages, no dumping) does not change its contents.
        let result = unsafe { libc::madvise(self.base.cast(), self.len, advice) };
        if result != 0 {
            return Err(stdio::Error::last_os_error());
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `self` owns exactly this mapping, and nobody holds a reference to it any more.
        unsafe { libc::munmap(self.reserved.cast(), self.reserved_len) };
    }
}

/// A range of guest physical memory that shares its mapping with other regions.
#[derive(Debug)]
pub(crate) struct Region {
    start: GuestAddress,
    len: usize,
    offset: usize,
    mapping: Arc<Mapping>,
}

impl Region {
    fn host(&self, at: usize) -> *mut u8 {
        self.mapping.base.wrapping_add(self.offset + at)
    }

    /// Host address of the region's first byte.
    pub(crate) fn host_start(&self) -> u64 {
        self.host(0) as u64
    }
}

impl GuestMemoryRegion for Region {
    type B = ();

    fn len(&self) -> GuestUsize {
        self.len as GuestUsize
    }

    fn start_addr(&self) -> GuestAddress {
        self.start
    }

    fn bitmap(&self) -> BS<'_, Self::B> {}

    fn get_host_address(&self, addr: MemoryRegionAddress) -> Result<*mut u8, GuestMemoryError> {
        match usize::try_from(addr.0) {
            Ok(at) if at < self.len => Ok(self.host(at)),
            _ => Err(GuestMemoryError::InvalidBackendAddress),
        }
    }

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> Result<VolatileSlice<'_, BS<'_, Self::B>>, GuestMemoryError> {
        let at = usize::try_from(offset.0).map_err(|_| GuestMemoryError::InvalidBackendAddress)?;
        match at.checked_add(count) {
            Some(end) if end <= self.len => {}
            _ => return Err(GuestMemoryError::InvalidBackendAddress),
        }
        // SAFETY: `at..at + count` was just checked to lie in the region, whose bytes lie in the
        // mapping that `self` keeps alive for longer than the slice's lifetime. Nobody makes
        // references to guest memory; all users access it through volatile slices.
        Ok(unsafe { VolatileSlice::new(self.host(at), count) })
    }
}

impl GuestMemoryRegionBytes for Region {}

/// What devices see of guest memory.
pub(crate) type GuestRam = GuestRegionCollection<Region>;

/// Pages of a saved guest's memory that one that began there needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Touched {
    /// Which.
    pub(crate) pages: Extent,
    /// It wrote to them.
    pub(crate) written: bool,
}

/// All of a guest's memory.
#[derive(Debug, Clone)]
pub(crate) struct GuestMemory {
    ram: GuestRam,
    mapping: Arc<Mapping>,
}

impl GuestMemory {
    /// Memory at the given `(start, length)` ranges, which are whole pages in rising order.
    pub(crate) fn new(ranges: &[(u64, u64)], huge: HugePages) -> Result<Self, MemoryError> {
        let bytes: u64 = ranges.iter().map(|range| range.1).sum();
        let map_error = |source| MemoryError::Map { bytes, source };
        let len =
            usize::try_from(bytes).map_err(|_| map_error(stdio::ErrorKind::OutOfMemory.into()))?;
        let mapping = Arc::new(Mapping::new(len).map_err(map_error)?);
        // A host without huge pages is slower, not unusable.
        let _ = mapping.advise(match huge {
            HugePages::Advise => libc::MADV_HUGEPAGE,
            HugePages::Never => libc::MADV_NOHUGEPAGE,
        });
        let mut offset = 0;
        let mut regions = Vec::with_capacity(ranges.len());
        for &(start, range_bytes) in ranges {
            let range_error = MemoryError::Range {
                start,
                bytes: range_bytes,
            };
            let Ok(len) = usize::try_from(range_bytes) else {
                return Err(range_error);
            };
            if start % PAGE != 0 || range_bytes % PAGE != 0 || len == 0 {
                return Err(range_error);
            }
            regions.push(Region {
                start: GuestAddress(start),
                len,
                offset,
                mapping: Arc::clone(&mapping),
            });
            offset += len;
        }
        let ram =
            GuestRam::from_regions(regions).map_err(|_| MemoryError::Range { start: 0, bytes })?;
        Ok(Self { ram, mapping })
    }

    /// What devices see.
    pub(crate) const fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Size of all regions, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.mapping.len as u64
    }

    /// Put a file's bytes into guest memory without copying them: the guest sees the host's page
    /// cache until it writes, and then a page of its own.
    ///
    /// All of `start`, `offset` and `bytes` must be whole pages, and the file must not shrink
    /// while the guest lives. Bytes after the file's end within its last page are zero.
    pub(crate) fn map_file(
        &self,
        start: GuestAddress,
        file: &File,
        offset: u64,
        bytes: u64,
    ) -> Result<(), MemoryError> {
        let range_error = || MemoryError::Range {
            start: start.0,
            bytes,
        };
        let len = usize::try_from(bytes).map_err(|_| range_error())?;
        let file_offset = libc::off_t::try_from(offset).map_err(|_| range_error())?;
        if !(start.0 | offset | bytes).is_multiple_of(PAGE) || len == 0 {
            return Err(range_error());
        }
        let slice = self.ram.get_slice(start, len).map_err(|_| range_error())?;
        let host = slice.ptr_guard_mut().as_ptr();
        // SAFETY: `host..host + len` was just checked to be whole pages inside one region of the
        // mapping that `self` owns. The new pages are as readable and writable as those they
        // replace, and nobody holds references to guest memory.
        let mapped = unsafe {
            libc::mmap(
                host.cast(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                file_offset,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(MemoryError::Map {
                bytes,
                source: stdio::Error::last_os_error(),
            });
        }
        Ok(())
    }

    /// Put a file's bytes into guest memory as [`Self::map_file`] does, at the same place in all of
    /// memory as in the file.
    pub(crate) fn map_saved(&self, file: &File, saved: &Extent) -> Result<(), MemoryError> {
        let Extent { start, bytes } = *saved;
        if start
            .checked_add(bytes)
            .is_none_or(|end| end > self.bytes())
        {
            return Err(MemoryError::Range { start, bytes });
        }
        for (address, part) in self.addresses_of(saved) {
            self.map_file(address, file, part.start, part.bytes)?;
        }
        Ok(())
    }

    /// Where a run of all memory lies in the guest's address space, part by part.
    pub(crate) fn addresses_of(&self, run: &Extent) -> Vec<(GuestAddress, Extent)> {
        let end = run.start.saturating_add(run.bytes);
        let mut base = 0;
        let mut parts = Vec::new();
        for region in self.ram.iter() {
            let next = base + region.len();
            let (from, to) = (run.start.max(base), end.min(next));
            if from < to {
                let address = GuestAddress(region.start_addr().0 + (from - base));
                let bytes = to - from;
                parts.push((address, Extent { start: from, bytes }));
            }
            base = next;
        }
        parts
    }

    /// Where a guest physical address lies in all of memory, in bytes from its beginning.
    pub(crate) fn offset_of(&self, address: GuestAddress) -> Option<u64> {
        let mut base = 0;
        for region in self.ram.iter() {
            let inside = address.0.checked_sub(region.start_addr().0);
            if let Some(at) = inside.filter(|at| *at < region.len()) {
                return Some(base + at);
            }
            base += region.len();
        }
        None
    }

    /// Of a saved guest's memory that was mapped from its file, the runs of pages that this process
    /// has by now, in rising order: those that were written to, which are the guest's own, and those
    /// that were only read.
    pub(crate) fn touched(&self, saved: &[Extent]) -> stdio::Result<Vec<Touched>> {
        // Documentation/admin-guide/mm/pagemap.rst: present, and a page of a file.
        const PRESENT: u64 = 1 << 63;
        const OF_FILE: u64 = 1 << 61;
        let pagemap = File::open("/proc/self/pagemap")?;
        let mut runs: Vec<Touched> = Vec::new();
        for extent in saved {
            let (Some(host), Ok(pages)) =
                (self.host_of(extent), usize::try_from(extent.bytes / PAGE))
            else {
                return Err(stdio::ErrorKind::InvalidInput.into());
            };
            let mut entries = vec![0; pages * 8];
            pagemap.read_exact_at(&mut entries, host.addr() as u64 / PAGE * 8)?;
            let (entries, _) = entries.as_chunks::<8>();
            for (index, entry) in entries.iter().enumerate() {
                let entry = u64::from_ne_bytes(*entry);
                if entry & PRESENT == 0 {
                    continue;
                }
                let written = entry & OF_FILE == 0;
                let start = extent.start + index as u64 * PAGE;
                match runs.last_mut() {
                    Some(Touched { pages, written: w })
                        if *w == written && pages.start + pages.bytes == start =>
                    {
                        pages.bytes += PAGE;
                    }
                    _ => runs.push(Touched {
                        pages: Extent { start, bytes: PAGE },
                        written,
                    }),
                }
            }
        }
        Ok(runs)
    }

    /// Have the host give the guest its own copies of these pages now, so that it need not leave
    /// for them. Contents do not change; what is not guest memory is left alone.
    pub(crate) fn copy_ahead(&self, pages: &Extent) {
        self.advise(pages, libc::MADV_POPULATE_WRITE);
    }

    /// Have the host map these pages now, so that the guest leaves for less long.
    pub(crate) fn map_ahead(&self, pages: &Extent) {
        self.advise(pages, libc::MADV_POPULATE_READ);
    }

    /// Have the host give the guest no more than it touches of these pages.
    pub(crate) fn in_small_pages(&self, pages: &Extent) {
        self.advise(pages, libc::MADV_NOHUGEPAGE);
    }

    fn advise(&self, pages: &Extent, advice: libc::c_int) {
        let (Some(host), Ok(len)) = (self.host_of(pages), usize::try_from(pages.bytes)) else {
            return;
        };
        // SAFETY: `host_of` has checked that the range lies in the mapping that `self` keeps alive;
        // making pages present, and of which size new ones are, changes no contents.
        // A host that cannot do so lets the guest do it.
        unsafe { libc::madvise(host.cast(), len, advice) };
    }

    /// Where a run of whole pages of all memory lies in this process.
    fn host_of(&self, run: &Extent) -> Option<*mut u8> {
        let end = run.start.checked_add(run.bytes)?;
        let whole = (run.start | run.bytes).is_multiple_of(PAGE) && end <= self.bytes();
        let start = usize::try_from(run.start).ok().filter(|_| whole)?;
        Some(self.mapping.base.wrapping_add(start))
    }

    /// Have the host commit memory that the guest is about to touch anyway, so that it need not
    /// leave for it. Contents do not change, not even under a running guest. Whole huge pages; what
    /// is not guest memory, or what the host refuses, is left as it is.
    pub(crate) fn populate(&self, start: u64, end: u64) {
        let huge = HUGE_PAGE as u64;
        let start = start - start % huge;
        let Ok(len) = usize::try_from(
            end.checked_next_multiple_of(huge)
                .unwrap_or(u64::MAX)
                .saturating_sub(start),
        ) else {
            return;
        };
        let Ok(slice) = self.ram.get_slice(GuestAddress(start), len) else {
            return;
        };
        let host = slice.ptr_guard_mut().as_ptr();
        // SAFETY: `host..host + len` lies in the mapping that `self` owns; this advice commits
        // pages as a write would and writes nothing. Kernels before 5.14 do not know it.
        unsafe { libc::madvise(host.cast(), len, libc::MADV_POPULATE_WRITE) };
    }

    /// Host addresses between which all of guest memory lies, and nothing else.
    pub(crate) fn host_range(&self) -> (u64, u64) {
        let start = self.mapping.base as u64;
        (start, start + self.bytes())
    }
}

/// Register memory with KVM.
///
/// # Errors
/// KVM's refusal.
pub(crate) fn add_slot(
    vm: &kvm_ioctls::VmFd,
    slot: u32,
    start: u64,
    bytes: u64,
    host: u64,
    read_only: bool,
) -> Result<(), MemoryError> {
    let region = kvm_bindings::kvm_userspace_memory_region {
        slot,
        flags: if read_only {
            kvm_bindings::KVM_MEM_READONLY
        } else {
            0
        },
        guest_phys_addr: start,
        memory_size: bytes,
        userspace_addr: host,
    };
    // SAFETY: callers in this crate pass `host..host + bytes` of a mapping (`Mapping` or
    // `RegisterPages`) that `Vm` drops after the VM's and all vCPUs' file descriptors.
    unsafe { vm.set_user_memory_region(region) }.map_err(|error| MemoryError::Slot(error.into()))
}

/// Register all of guest memory with KVM, in slots from 0.
pub(crate) fn add_ram_slots(
    vm: &kvm_ioctls::VmFd,
    memory: &GuestMemory,
) -> Result<u32, MemoryError> {
    let mut slot = 0;
    for region in memory.ram.iter() {
        add_slot(
            vm,
            slot,
            region.start.0,
            region.len(),
            region.host_start(),
            false,
        )?;
        slot += 1;
    }
    Ok(slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use vm_memory::Bytes;

    #[test]
    fn regions_have_gaps_and_bounds() {
        let memory =
            GuestMemory::new(&[(0, 4 << 20), (1 << 32, 2 << 20)], HugePages::Never).unwrap();
        let ram = memory.ram();
        assert_eq!(memory.bytes(), 6 << 20);
        ram.write_obj(7u64, GuestAddress((1 << 32) + 8)).unwrap();
        assert_eq!(ram.read_obj::<u64>(GuestAddress((1 << 32) + 8)).unwrap(), 7);
        assert!(ram.write_obj(7u64, GuestAddress((4 << 20) - 4)).is_err());
        assert!(ram.get_slice(GuestAddress((4 << 20) - 4), 8).is_err());
        assert!(ram.read_obj::<u8>(GuestAddress(1 << 31)).is_err());
        assert!(ram.read_obj::<u64>(GuestAddress(u64::MAX - 3)).is_err());
    }

    #[test]
    fn a_mapped_file_is_seen_and_never_written() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[0xa5; 5000]).unwrap();
        let memory = GuestMemory::new(&[(0, 1 << 20)], HugePages::Never).unwrap();
        memory
            .map_file(GuestAddress(0x4000), &file, 0, 8192)
            .unwrap();
        let ram = memory.ram();
        assert_eq!(
            ram.read_obj::<u8>(GuestAddress(0x4000 + 4999)).unwrap(),
            0xa5
        );
        assert_eq!(ram.read_obj::<u8>(GuestAddress(0x4000 + 5000)).unwrap(), 0);
        ram.write_obj(0u8, GuestAddress(0x4000)).unwrap();
        let mut first = [0u8; 1];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut first, 0).unwrap();
        assert_eq!(first, [0xa5]);
        for (start, offset, bytes) in [(1, 0, 4096), (0, 1, 4096), (0, 0, 1), (1 << 20, 0, 4096)] {
            assert!(
                memory
                    .map_file(GuestAddress(start), &file, offset, bytes)
                    .is_err()
            );
        }
    }

    #[test]
    fn populated_memory_keeps_its_contents() {
        let memory = GuestMemory::new(&[(0, 8 << 20)], HugePages::Never).unwrap();
        memory.ram().write_obj(7u8, GuestAddress(5 << 20)).unwrap();
        memory.populate(4 << 20, (5 << 20) + 1);
        // Not in the guest's memory: nothing happens.
        memory.populate(0, u64::MAX);
        memory.populate(8 << 20, 9 << 20);
        let read = |at| memory.ram().read_obj::<u8>(GuestAddress(at)).unwrap();
        assert_eq!((read(5 << 20), read(4 << 20)), (7, 0));
        assert!(crate::stats::resident_bytes(memory.host_range()) <= 2 << 20);
    }

    #[test]
    fn untouched_memory_is_not_resident() {
        let memory = GuestMemory::new(&[(0, 1 << 30)], HugePages::Never).unwrap();
        memory.ram().write_obj(1u8, GuestAddress(0)).unwrap();
        assert_eq!(crate::stats::resident_bytes(memory.host_range()), PAGE);
    }
}
