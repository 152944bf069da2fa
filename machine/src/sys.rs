//! What only the helper machine's host side needs: namespaces and read-only mount trees.

use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Gives this thread, which must be the only one, a mount namespace of its own.
///
/// # Errors
/// Failure of `unshare`: not privileged, or no more namespaces.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: CLONE_NEWNS changes what paths mean to this thread and separates its working
    // directory from other threads'; no memory or descriptor is affected.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives this process, which must have no other thread, a user namespace and a mount namespace of its
/// own. In the first it has every capability.
///
/// # Errors
/// Failure of `unshare`: user namespaces are switched off, or there are no more.
pub fn unshare_user_and_mounts() -> io::Result<()> {
    // SAFETY: both flags change what this thread may do and what paths mean to it; no memory or
    // descriptor is affected.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Has the mount at `path` and every mount below it lead to no device, and be read-only if asked.
///
/// # Errors
/// Failure of `mount_setattr`, on kernels before 5.12 for one.
pub fn guard_recursively(path: &Path, read_only: bool) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_NODEV
            | if read_only {
                libc::MOUNT_ATTR_RDONLY
            } else {
                0
            },
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: `path` is a NUL-terminated string and `attributes` a `struct mount_attr` of the
    // size that is passed with it; the kernel only reads both, during the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Takes over a descriptor that the parent process passed under a number it told us.
///
/// # Errors
/// There is no such descriptor.
pub fn inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only looks the number up.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and came to this process by number alone: no value of this
    // process owns it yet. Callers pass each number once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The value of this CPU's time stamp counter.
#[cfg(target_arch = "x86_64")]
#[must_use]
pub fn time_stamp() -> u64 {
    // SAFETY: the instruction exists on every x86-64 CPU, and Linux lets every program use it
    // unless the program itself asked otherwise (`PR_SET_TSC`).
    unsafe { core::arch::x86_64::_rdtsc() }
}
