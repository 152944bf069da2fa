//! Loop devices.

use super::check;
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::ioctl;
use std::io;

/// A free loop device's number, from /dev/loop-control.
///
/// # Errors
/// Failure of the ioctl.
pub fn free_loop_device(control: BorrowedFd<'_>) -> io::Result<u32> {
    const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
    // SAFETY: the request takes no argument and touches no memory of this process.
    let number = check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) }.into())?;
    u32::try_from(number).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// `struct loop_info64` of `linux/loop.h`, as far as it is used; the rest is zero.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    ids: [u64; 3],
    offset: u64,
    size_limit: u64,
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    rest: [u64; 22],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// Puts a file behind a loop device, read-only; the kernel takes it away again when the last
/// user of the device is gone. Fails with EBUSY when somebody else was faster.
///
/// # Errors
/// Failure of the ioctl.
pub fn configure_loop_device(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<()> {
    const LO_FLAGS_READ_ONLY: u32 = 1;
    const LO_FLAGS_AUTOCLEAR: u32 = 4;
    const LOOP_CONFIGURE: ioctl::Opcode = 0x4c0a;
    let config = LoopConfig {
        fd: u32::try_from(file.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?,
        block_size: 0,
        info: LoopInfo {
            ids: [0; 3],
            offset: 0,
            size_limit: 0,
            number: 0,
            encryption: [0; 2],
            flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
            rest: [0; 22],
        },
        reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads a `struct loop_config`, which is what `Setter` passes it.
    let request = unsafe { ioctl::Setter::<LOOP_CONFIGURE, LoopConfig>::new(config) };
    // SAFETY: the request matches its opcode, as stated above; both descriptors are borrowed.
    unsafe { ioctl::ioctl(device, request) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<LoopInfo>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
    }
}
