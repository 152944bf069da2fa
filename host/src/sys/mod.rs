//! System calls that the standard library and rustix do not offer, in safe wrappers: what any
//! process of Hullbox on the host may need. This crate's only `unsafe` code.

pub mod mounts;
pub mod program;
pub mod seccomp;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

/// How a lock excludes others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// Any number of holders, none of them exclusive.
    Shared,
    /// One holder.
    Exclusive,
}

fn one_byte(kind: libc::c_int, offset: i64) -> io::Result<libc::flock> {
    let narrow = |value: libc::c_int| {
        libc::c_short::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
    };
    Ok(libc::flock {
        l_type: narrow(kind)?,
        l_whence: narrow(libc::SEEK_SET)?,
        l_start: offset,
        l_len: 1,
        // The kernel demands zero for locks of an open file description.
        l_pid: 0,
    })
}

fn lock_of(kind: LockKind, offset: i64) -> io::Result<libc::flock> {
    let kind = match kind {
        LockKind::Shared => libc::F_RDLCK,
        LockKind::Exclusive => libc::F_WRLCK,
    };
    one_byte(kind, offset)
}

/// Locks one byte for this open file description, and for whoever inherits it. The kernel lets
/// go of the lock when the last descriptor is closed, however its owner died.
///
/// Returns whether the lock was free.
///
/// # Errors
/// Any other failure of `fcntl`.
pub fn try_lock_byte(file: &File, kind: LockKind, offset: i64) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&lock_of(kind, offset)?)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The same, waiting until the lock is free.
///
/// # Errors
/// Any failure of `fcntl`.
pub fn lock_byte(file: &File, kind: LockKind, offset: i64) -> io::Result<()> {
    let lock = lock_of(kind, offset)?;
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLKW(&lock)) {
            Err(Errno::EINTR) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}

/// Whether somebody else holds a lock on the byte.
///
/// # Errors
/// Any failure of `fcntl`.
pub fn is_byte_locked(file: &File, offset: i64) -> io::Result<bool> {
    let mut lock = one_byte(libc::F_WRLCK, offset)?;
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(libc::c_int::from(lock.l_type) != libc::F_UNLCK)
}

/// Marks every descriptor from 3 on as close-on-exec: what a careless parent left open here goes
/// no further.
///
/// # Errors
/// Failure of `close_range`, on kernels before 5.11 for one.
pub fn set_cloexec_from_3() -> io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC the call closes nothing, so no descriptor that some value
    // owns becomes invalid.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A standard stream of this process, which is assumed to be open; `std` keeps them open.
#[must_use]
pub fn standard_fd(number: StandardFd) -> BorrowedFd<'static> {
    // SAFETY: the Rust runtime opens /dev/null on any of 0, 1 and 2 that is closed at start, and
    // nothing in this program closes them.
    unsafe { BorrowedFd::borrow_raw(number as i32) }
}

/// See [`standard_fd`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum StandardFd {
    /// 0.
    Input = 0,
    /// 1.
    Output = 1,
    /// 2.
    Error = 2,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_belongs_to_its_open_file() {
        let dir = std::env::temp_dir().join(format!("hullbox-lock-{}", std::process::id()));
        let open = || {
            File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&dir)
                .unwrap()
        };
        let (one, two) = (open(), open());
        assert!(try_lock_byte(&one, LockKind::Exclusive, 7).unwrap());
        assert!(!try_lock_byte(&two, LockKind::Exclusive, 7).unwrap());
        assert!(is_byte_locked(&two, 7).unwrap());
        assert!(try_lock_byte(&two, LockKind::Exclusive, 8).unwrap());
        let inherited = one.try_clone().unwrap();
        drop(one);
        assert!(is_byte_locked(&two, 7).unwrap());
        drop(inherited);
        assert!(try_lock_byte(&two, LockKind::Shared, 7).unwrap());
        std::fs::remove_file(dir).unwrap();
    }
}
