//! Namespaces and attributes of mounts.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// What a process has for itself from now on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Apart {
    /// User numbers, in which it has every capability. It must have no other thread.
    pub user: bool,
    /// Mounts.
    pub mounts: bool,
    /// Network interfaces: it has none.
    pub network: bool,
    /// Message queues and shared memory: it has none.
    pub ipc: bool,
}

/// Gives this process, which should have no other thread, namespaces of its own.
///
/// # Errors
/// Failure of `unshare`: not privileged, switched off, or there are no more.
pub fn unshare(apart: Apart) -> io::Result<()> {
    let flag = |wanted: bool, flag| if wanted { flag } else { 0 };
    let flags = flag(apart.user, libc::CLONE_NEWUSER)
        | flag(apart.mounts, libc::CLONE_NEWNS)
        | flag(apart.network, libc::CLONE_NEWNET)
        | flag(apart.ipc, libc::CLONE_NEWIPC);
    // SAFETY: these flags change what this thread may do and what names mean to it; no memory or
    // descriptor is affected.
    if unsafe { libc::unshare(flags) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives this thread a working directory, a root and a umask of its own, which are as they were.
///
/// # Errors
/// Failure of `unshare`: no memory.
pub fn unshare_umask() -> io::Result<()> {
    // SAFETY: CLONE_FS separates what is named above from other threads'; no memory or descriptor is
    // affected.
    if unsafe { libc::unshare(libc::CLONE_FS) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What is changed of a mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Guard {
    /// Nothing can be changed.
    pub read_only: bool,
    /// No program in it has its owner's rights.
    pub no_setuid: bool,
    /// Nothing mounted or unmounted elsewhere spreads to it, nor from it.
    pub private: bool,
    /// What is mounted below it is changed as well.
    pub recursive: bool,
}

/// Has a mount, given by any descriptor of it, lead to no device, and guards it further as asked.
///
/// # Errors
/// Failure of `mount_setattr`, on kernels before 5.12 for one.
pub fn guard(mount: impl AsFd, guard: Guard) -> io::Result<()> {
    let flag = |wanted: bool, flag: u64| if wanted { flag } else { 0 };
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_NODEV
            | flag(guard.read_only, libc::MOUNT_ATTR_RDONLY)
            | flag(guard.no_setuid, libc::MOUNT_ATTR_NOSUID),
        attr_clr: 0,
        propagation: flag(guard.private, libc::MS_PRIVATE),
        userns_fd: 0,
    };
    let recursive = if guard.recursive {
        libc::AT_RECURSIVE
    } else {
        0
    };
    // SAFETY: the path is a NUL-terminated string and `attributes` a `struct mount_attr` of the size
    // that is passed with it; the kernel only reads both, during the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
