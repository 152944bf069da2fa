//! This program's own pages.

use std::io;

unsafe extern "C" {
    /// First byte of the program as it is mapped: the linker defines it.
    static __executable_start: u8;
    /// First byte behind its code; what is written to comes after it.
    static etext: u8;
}

/// Lets go of the program's code and constants. Those that are used again come back from the
/// page cache, at the price of a fault; those of a process's start do not.
///
/// # Errors
/// Failure of `madvise`; nothing is different then.
pub fn forget_code() -> io::Result<()> {
    const PAGE: usize = 4096;
    let start = (&raw const __executable_start)
        .addr()
        .next_multiple_of(PAGE);
    let end = (&raw const etext).addr() & !(PAGE - 1);
    if end <= start {
        return Ok(());
    }
    // SAFETY: between the two the linker put headers, constants and code, which are mapped from
    // the program's file and which nobody writes to: what is dropped is read again unchanged.
    let result = unsafe {
        libc::madvise(
            std::ptr::without_provenance_mut(start),
            end - start,
            libc::MADV_DONTNEED,
        )
    };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Gives memory of the heap that is free back to the host, in whole pages, wherever it lies. The
/// allocator alone gives back what is at the heap's end.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function takes the allocator's own locks and has no other condition
    // (malloc_trim(3)); memory that is in use is left as it is.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    /// Whether the page at an address of this process is there, by `/proc/self/pagemap`.
    fn is_present(address: usize) -> bool {
        let pagemap = std::fs::File::open("/proc/self/pagemap").unwrap();
        let mut entry = [0; 8];
        let offset = u64::try_from(address / 4096 * 8).unwrap();
        pagemap.read_exact_at(&mut entry, offset).unwrap();
        u64::from_ne_bytes(entry) >> 63 == 1
    }

    #[test]
    fn free_memory_between_used_memory_goes_back() {
        // Below the size from which each block is a mapping of its own.
        let mut blocks: Vec<Vec<u8>> = (0..64).map(|_| vec![1; 100 << 10]).collect();
        let free = blocks.swap_remove(32);
        let late = free.as_ptr().addr() + (90 << 10);
        drop(free);
        assert!(is_present(late));
        super::trim_heap();
        assert!(!is_present(late));
        assert!(blocks.iter().flatten().all(|byte| *byte == 1));
    }

    #[test]
    fn the_program_goes_on() {
        static CONSTANT: [u8; 5000] = [7; 5000];
        super::forget_code().unwrap();
        assert!(CONSTANT.iter().all(|byte| *byte == 7));
        assert_eq!(format!("{:?}", "still here"), "\"still here\"");
    }
}
