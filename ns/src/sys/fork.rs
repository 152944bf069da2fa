//! Forks, and the end of a process.

use super::check;
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::process::Pid;
use std::io;

/// Which side of a [`fork_alone`] this is.
#[derive(Debug)]
pub enum Forked {
    /// The new process.
    Child,
    /// The old one.
    Parent(Pid),
}

/// Forks a process that has no other threads.
///
/// # Errors
/// Failure of `fork`; `InvalidInput` when there are other threads.
pub fn fork_alone() -> io::Result<Forked> {
    if thread_count()? != 1 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: with one thread, no lock can be held by a thread that the child lacks, so the
    // child may go on as an ordinary process.
    forked(unsafe { libc::fork() }.into())
}

/// Forks into a cgroup a process that has no other threads.
///
/// # Errors
/// Failure of `clone3`; `InvalidInput` when there are other threads.
pub fn fork_into(cgroup: BorrowedFd<'_>) -> io::Result<Forked> {
    // It does not fit libc's c_int constants.
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    if thread_count()? != 1 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: all-zero is a valid value of this plain structure and means "nothing asked".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_INTO_CGROUP;
    args.exit_signal = libc::SIGCHLD.unsigned_abs().into();
    args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    let size = size_of::<libc::clone_args>();
    // SAFETY: `args` is a valid structure of the given size; without CLONE_VM the child has its
    // own copy of the only thread's memory, so both sides may go on as they are.
    forked(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size) })
}

/// Forks a sibling: a child of this process's parent, which also is told of its end. For a
/// process that was forked from one without other threads and has started none since.
///
/// # Errors
/// Failure of `clone`.
pub fn fork_sibling() -> io::Result<Forked> {
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with a null stack this is a fork; the caller has one thread.
    forked(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })
}

fn forked(result: libc::c_long) -> io::Result<Forked> {
    match check(result)? {
        0 => Ok(Forked::Child),
        pid => i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .map(Forked::Parent)
            .ok_or_else(|| io::ErrorKind::InvalidData.into()),
    }
}

/// How many threads this process has.
///
/// # Errors
/// When /proc cannot be read.
pub fn thread_count() -> io::Result<u64> {
    // A directory's link count is two and one for each subdirectory, here each thread.
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata("/proc/self/task")?
        .nlink()
        .saturating_sub(2))
}

/// Ends this process at once, without running anything.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: takes no pointer and does not return.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_counted() {
        let before = thread_count().unwrap();
        let (tell, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        assert!(thread_count().unwrap() > before || before > 1);
        drop(tell);
        thread.join().unwrap().unwrap_err();
    }
}
