//! Ending an ext4 file system.

use super::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd};

/// `EXT4_IOC_SHUTDOWN` of the kernel's fs/ext4/ext4.h: `_IOR('X', 125, __u32)`.
const EXT4_IOC_SHUTDOWN: libc::Ioctl = 0x8004_587d;
/// Without writing the journal.
const EXT4_GOING_FLAGS_NOLOGFLUSH: u32 = 2;

/// Has every access to the file system that this descriptor is of fail from now on.
pub fn shut_down_ext4(descriptor: BorrowedFd<'_>) -> Result<()> {
    let mut flags = EXT4_GOING_FLAGS_NOLOGFLUSH;
    // SAFETY: the kernel reads one u32 behind the pointer, which is valid for the whole call.
    check(unsafe { libc::ioctl(descriptor.as_raw_fd(), EXT4_IOC_SHUTDOWN, &raw mut flags) })
        .map(drop)
}
