//! Partitions that only the kernel knows: byte ranges of a disk without a table. And read-ahead.

use super::{Result, check};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `BLKPG` of linux/blkpg.h: `_IO(0x12, 105)`.
const BLKPG: libc::Ioctl = 0x1269;
const BLKPG_ADD_PARTITION: libc::c_int = 1;

/// `BLKRASET` of linux/fs.h: `_IO(0x12, 98)`.
const BLKRASET: libc::Ioctl = 0x1262;

/// `struct blkpg_partition`.
#[repr(C)]
struct Partition {
    start: i64,
    length: i64,
    number: libc::c_int,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct Argument {
    operation: libc::c_int,
    flags: libc::c_int,
    length: libc::c_int,
    data: *mut Partition,
}

/// Sets how far a disk is read ahead, in sectors of 512 bytes.
pub fn set_read_ahead(disk: BorrowedFd<'_>, sectors: libc::c_ulong) -> Result<()> {
    // SAFETY: this request takes a number, no pointer.
    check(unsafe { libc::ioctl(disk.as_raw_fd(), BLKRASET, sectors) }).map(drop)
}

/// Makes partition `number` (from 1) of these bytes of the disk.
pub fn add_partition(disk: BorrowedFd<'_>, number: usize, start: u64, length: u64) -> Result<()> {
    let mut partition = Partition {
        start: i64::try_from(start).map_err(|_| Errno::OVERFLOW)?,
        length: i64::try_from(length).map_err(|_| Errno::OVERFLOW)?,
        number: i32::try_from(number).map_err(|_| Errno::OVERFLOW)?,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let mut argument = Argument {
        operation: BLKPG_ADD_PARTITION,
        flags: 0,
        length: i32::try_from(size_of::<Partition>()).map_err(|_| Errno::OVERFLOW)?,
        data: &raw mut partition,
    };
    // SAFETY: the argument and the partition it points to are valid for the whole call and laid
    // out as the kernel's structures.
    check(unsafe { libc::ioctl(disk.as_raw_fd(), BLKPG, &raw mut argument) }).map(drop)
}
