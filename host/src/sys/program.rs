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

#[cfg(test)]
mod tests {
    #[test]
    fn the_program_goes_on() {
        static CONSTANT: [u8; 5000] = [7; 5000];
        super::forget_code().unwrap();
        assert!(CONSTANT.iter().all(|byte| *byte == 7));
        assert_eq!(format!("{:?}", "still here"), "\"still here\"");
    }
}
