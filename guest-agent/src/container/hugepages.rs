//! Huge pages for programs that do not ask for them.
//!
//! A page that a program touches first costs a page fault of the guest, and the host has to find its
//! memory as well. The host backs memory without contents with huge pages. If the guest does too, a
//! program that grows pays for every 2 MiB instead of every 4 KiB, and its translations are shorter
//! ever after. This is also what a container finds on a host whose kernel is configured as Debian's or
//! Fedora's (Documentation/admin-guide/mm/transhuge.rst, `enabled`).

use super::cgroup::mount_proc;
use super::sysfs;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, pread, pwrite};
use rustix::system::sysinfo;

const DIRECTORY: &str = "kernel/mm/transparent_hugepage";
const MIN_FREE: &str = "/proc/sys/vm/min_free_kbytes";

/// Guests with less memory, in bytes, stay as their kernel has them: 2 MiB that are used sparsely are
/// too much of it. The kernel takes some of what `-m` says before it counts.
const LEAST_MEMORY_BYTES: u64 = 96 << 20;

/// The files that are written to, in this order, and what.
const SETTINGS: [(&str, &str); 2] = [
    // khugepaged joins small pages that are there, and adds none that nobody has touched: a program
    // that uses its memory sparsely stays as small as it is.
    ("khugepaged/max_ptes_none", "0"),
    ("enabled", "always"),
];

/// Has the kernel give huge pages wherever they fit, in a guest that has the memory for it. A kernel
/// with less than 512 MiB would give none.
pub(super) fn arrange() -> Result<(), Errno> {
    if !is_enough(total_memory_bytes()) {
        return Ok(());
    }
    mount_proc()?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let min_free = rustix::fs::open(MIN_FREE, flags, Mode::empty())?;
    let mut kept = [0; 32];
    let length = pread(&min_free, &mut kept, 0)?;
    let directory = sysfs::open(DIRECTORY, OFlags::RDONLY | OFlags::DIRECTORY)?;
    for (file, value) in SETTINGS {
        let file = openat(&directory, file, flags, Mode::empty())?;
        pwrite(&file, value.as_bytes(), 0)?;
    }
    // With huge pages the kernel keeps a twentieth of all memory free, lest they become rare; a guest
    // that small needs it for its programs.
    pwrite(&min_free, &kept[..length], 0).map(drop)
}

fn total_memory_bytes() -> u64 {
    let info = sysinfo();
    info.totalram.saturating_mul(info.mem_unit.into())
}

const fn is_enough(memory_bytes: u64) -> bool {
    memory_bytes >= LEAST_MEMORY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_guests_are_left_alone() {
        // What the kernel counts of 64, 128 and 1024 MiB.
        assert!(!is_enough(48 << 20));
        assert!(is_enough(110 << 20));
        assert!(is_enough(980 << 20));
        assert!(total_memory_bytes() > LEAST_MEMORY_BYTES);
    }
}
