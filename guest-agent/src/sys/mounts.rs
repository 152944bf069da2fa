//! Attributes of mounts (`mount_setattr(2)`).

use super::{Result, check};
use rustix::io::Errno;
use std::ffi::c_int;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// `MOUNT_ATTR_RDONLY`.
const READ_ONLY: u64 = 1;

/// No more writes through this mount, which need not be anywhere yet.
pub fn make_mount_read_only(mount: BorrowedFd<'_>) -> Result<()> {
    let attributes = Attributes {
        set: READ_ONLY,
        clear: 0,
        propagation: 0,
        user_namespace: 0,
    };
    // SAFETY: the path is an empty string that outlives the call, and `attributes` a structure of the
    // given size, which the kernel only reads.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    check(c_int::try_from(result).map_err(|_| Errno::OVERFLOW)?).map(drop)
}
