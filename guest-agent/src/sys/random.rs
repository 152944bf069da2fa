//! The kernel's random number generator.

use super::{Result, check};
use hullbox_protocol::ENTROPY_BYTES;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `RNDADDENTROPY` of linux/random.h: `_IOW('R', 0x03, int[2])`.
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
/// `RNDRESEEDCRNG`: `_IO('R', 0x07)`.
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;

/// `struct rand_pool_info`.
#[repr(C)]
struct Pool {
    entropy_bits: libc::c_int,
    bytes: libc::c_int,
    buffer: [u8; ENTROPY_BYTES],
}

/// Adds bytes to what the kernel's random numbers are made of.
pub fn add_entropy(device: BorrowedFd<'_>, entropy: &[u8; ENTROPY_BYTES]) -> Result<()> {
    let bytes = i32::try_from(ENTROPY_BYTES).unwrap_or(0);
    let pool = Pool {
        entropy_bits: bytes * 8,
        bytes,
        buffer: *entropy,
    };
    // SAFETY: the structure is laid out as the kernel's and its length is in it; it is only read.
    check(unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY, &raw const pool) }).map(drop)
}

/// Has every generator that was seeded before seed itself anew.
pub fn reseed_generator(device: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: this request takes no argument.
    check(unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG, 0) }).map(drop)
}
