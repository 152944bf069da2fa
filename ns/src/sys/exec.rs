//! The way into `execve`.

use super::check;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ffi::{CStr, CString, c_char};
use std::io;
use std::ptr;

/// Closes every descriptor from 3 on but those in `keep`.
///
/// For the moment before `execve`: values that own the others become unusable, so nothing but
/// what is in `keep` may be touched afterwards, and nothing may be dropped.
///
/// # Errors
/// Failure of `close_range`.
pub fn close_all_but(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok())
        .filter(|&fd| fd >= 3)
        .collect();
    kept.sort_unstable();
    let mut first = 3u32;
    for last in kept.into_iter().map(Some).chain([None]) {
        let until = last.map_or(u32::MAX, |fd| fd - 1);
        if first <= until {
            // SAFETY: the caller promises not to use what is closed here; a descriptor that is
            // reused later cannot be mistaken, for `execve` or `exit` comes next.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, until, 0) })?;
        }
        first = until.saturating_add(2);
    }
    Ok(())
}

/// Null-terminated vectors for `execve`.
#[derive(Debug)]
pub struct ExecArgs {
    argv: Vec<CString>,
    envp: Vec<CString>,
}

impl ExecArgs {
    /// For these arguments and this environment.
    #[must_use]
    pub fn new(argv: Vec<CString>, envp: Vec<CString>) -> Self {
        Self { argv, envp }
    }

    /// The first argument, if there is one.
    #[must_use]
    pub fn program(&self) -> Option<&CStr> {
        self.argv.first().map(CString::as_c_str)
    }

    fn pointers(strings: &[CString]) -> Vec<*const c_char> {
        let ends = [ptr::null()];
        strings.iter().map(|s| s.as_ptr()).chain(ends).collect()
    }

    /// Replaces this process by the program at `path`. Returns only on failure.
    #[must_use]
    pub fn execve(&self, path: &CStr) -> io::Error {
        let (argv, envp) = (Self::pointers(&self.argv), Self::pointers(&self.envp));
        // SAFETY: path and both null-terminated vectors of null-terminated strings outlive the
        // call.
        unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        io::Error::last_os_error()
    }

    /// Replaces this process by the program in an open file. Returns only on failure.
    #[must_use]
    pub fn execve_file(&self, file: BorrowedFd<'_>) -> io::Error {
        let (argv, envp) = (Self::pointers(&self.argv), Self::pointers(&self.envp));
        // SAFETY: as above; the empty path with AT_EMPTY_PATH means the file itself.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                file.as_fd().as_raw_fd(),
                c"".as_ptr(),
                argv.as_ptr(),
                envp.as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
        io::Error::last_os_error()
    }
}
