//! Namespaces, and what is a process's own or its session's.

use super::check;
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;
use std::ffi::{c_char, c_int};
use std::io;
use std::ptr;

/// Gives this thread, and what it starts, a mount namespace of its own.
///
/// # Errors
/// Failure of `unshare`: not privileged, or no more namespaces.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: CLONE_NEWNS changes what paths mean to this thread and separates its working
    // directory from other threads'; no memory or descriptor is affected.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into()).map(drop)
}

/// Gives this thread, and what it starts, a network namespace of its own, in which there is nothing but a
/// loopback interface that is down.
///
/// # Errors
/// Failure of `unshare`: not privileged, or no more namespaces.
pub fn unshare_network() -> Result<(), Errno> {
    // SAFETY: CLONE_NEWNET affects no memory and no descriptor of this process; sockets that are open
    // stay in the namespace that they were made in.
    let result = check(unsafe { libc::unshare(libc::CLONE_NEWNET) }.into());
    result
        .map(drop)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// `MOUNT_ATTR_RDONLY` of `linux/mount.h`.
pub const MOUNT_READ_ONLY: u64 = 1;
/// `MOUNT_ATTR_NODEV`.
const MOUNT_NO_DEVICES: u64 = 4;

/// Makes a mount and all below it refuse to open devices, in this process's mount namespace.
///
/// # Errors
/// Failure of `mount_setattr`.
pub fn forbid_devices(mount: BorrowedFd<'_>) -> io::Result<()> {
    set_mount_attributes(mount, MOUNT_NO_DEVICES, 0, true)
}

/// Sets attributes of a mount, and how it spreads (`MS_SHARED` and the like, 0 for as it is); of all below
/// it, too, if it is `recursive`.
///
/// # Errors
/// Failure of `mount_setattr`.
pub fn set_mount_attributes(
    mount: BorrowedFd<'_>,
    set: u64,
    propagation: u64,
    recursive: bool,
) -> io::Result<()> {
    /// `struct mount_attr` of `linux/mount.h`.
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let attributes = Attributes {
        set,
        clear: 0,
        propagation,
        user_namespace: 0,
    };
    let below = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the empty path means the descriptor; the structure has the given size and is only
    // read.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | below,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    })
    .map(drop)
}

/// Leaves the session keyring of whoever started this process for a fresh one.
///
/// # Errors
/// Failure of `keyctl`: no keyrings in this kernel, or a quota.
pub fn join_new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is touched.
    check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            ptr::null::<c_char>(),
        )
    })
    .map(drop)
}
