//! System calls that rustix does not offer, or not safely. The agent's only unsafe code.
//!
//! The agent has one thread for all its life. That is what makes forking without
//! `exec` sound here: no lock can be held by a thread that the child does not have.
#![allow(unsafe_code, reason = "raw system calls live here and nowhere else")]

mod blkpg;
pub mod bpf;
mod clock;
mod entry;
mod ext4;
mod held;
mod mounts;
mod net;
mod random;

pub use blkpg::{add_partition, set_read_ahead};
pub use clock::slew_clock;
pub use ext4::shut_down_ext4;
pub use held::{allow_devices, idle_vm};
pub use mounts::make_mount_read_only;
pub use net::{vsock_accept, vsock_connect, vsock_listen};
pub use random::{add_entropy, reseed_generator};

use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use std::ffi::{CStr, CString, c_int};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

type Result<T> = std::result::Result<T, Errno>;

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Turns a system call's -1 into its error.
fn check(result: c_int) -> Result<c_int> {
    if result < 0 {
        Err(last_errno())
    } else {
        Ok(result)
    }
}

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Forked {
    /// The new process.
    Child,
    /// The old one, and the new one's id as it sees it.
    Parent(Pid),
}

/// New namespaces for a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespaces {
    /// Its parent's.
    Inherit,
    /// Mounts and processes of its own. Not IPC and host name: nobody else in a guest uses those,
    /// and they would have to be made and taken down again.
    Own,
}

/// Forks, into a cgroup if one is given. The child has the parent's signal mask.
pub fn fork(namespaces: Namespaces, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked> {
    clone(namespaces, cgroup, libc::SIGCHLD)
}

/// Forks a child, into a cgroup, that its parent has nothing to do with: `wait` does not see it, and
/// no signal tells of its end.
pub fn fork_unwatched(cgroup: BorrowedFd<'_>) -> Result<Forked> {
    clone(Namespaces::Inherit, Some(cgroup), 0)
}

fn clone(
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
    exit_signal: c_int,
) -> Result<Forked> {
    // SAFETY: all-zero is a valid value of this plain structure and means "nothing asked".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = exit_signal.unsigned_abs().into();
    if namespaces == Namespaces::Own {
        let flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID;
        args.flags |= u64::from(flags.unsigned_abs());
    }
    if let Some(cgroup) = cgroup {
        // CLONE_INTO_CGROUP does not fit libc's c_int constants.
        args.flags |= 0x2_0000_0000;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    let size = size_of::<libc::clone_args>();
    // SAFETY: `args` is a valid structure of the given size; without CLONE_VM the child has its
    // own copy of the only thread's memory, so both sides may go on as they are.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size) };
    match i32::try_from(result) {
        Ok(0) => Ok(Forked::Child),
        Ok(pid) => match Pid::from_raw(pid) {
            Some(pid) if pid.as_raw_nonzero().get() > 0 => Ok(Forked::Parent(pid)),
            _ => Err(last_errno()),
        },
        Err(_) => Err(Errno::OVERFLOW),
    }
}

/// Replaces the process. Returns only when that fails.
pub fn execve(path: &CStr, argv: &[CString], env: &[CString]) -> Errno {
    let pointers = |strings: &[CString]| -> Vec<_> {
        strings
            .iter()
            .map(|s| s.as_ptr())
            .chain([ptr::null()])
            .collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end with a null pointer and point to strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    last_errno()
}

/// Blocks SIGCHLD and the signals given, and gives a descriptor that becomes readable when one of
/// them is pending. SIGPIPE is ignored from here on.
pub fn watch_signals(others: &[Signal]) -> Result<OwnedFd> {
    // SAFETY: a signal set is plain memory, made valid by sigemptyset below.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid, exclusive signal set.
    unsafe { libc::sigemptyset(&raw mut set) };
    for signal in [Signal::CHILD].iter().chain(others) {
        // SAFETY: as above; the number is a signal's.
        unsafe { libc::sigaddset(&raw mut set, signal.as_raw()) };
    }
    // SAFETY: `set` is valid and the old mask is not asked for.
    check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) })?;
    // SAFETY: ignoring a signal installs no code.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    // SAFETY: `set` is valid; -1 asks for a new descriptor.
    let fd = check(unsafe {
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    })?;
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The next pending signal of a descriptor of [`watch_signals`].
pub fn next_signal(fd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = [0; size_of::<libc::signalfd_siginfo>()];
    let read = rustix::io::read(fd, &mut info).ok()?;
    let number = info.first_chunk::<4>().filter(|_| read == info.len())?;
    i32::try_from(u32::from_ne_bytes(*number)).ok()
}

/// What a new program expects: default actions, no signal blocked. Of the actions only an ignored
/// SIGPIPE would survive `execve`; the agent sets no other.
pub fn reset_signals() {
    // SAFETY: the default action is no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    unblock_signals();
}

/// Unblocks every signal.
fn unblock_signals() {
    // SAFETY: a signal set is plain memory, made valid by sigemptyset below.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid, exclusive signal set.
    unsafe { libc::sigemptyset(&raw mut set) };
    // SAFETY: `set` is valid and the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut()) };
}

/// A signal by its number, real-time ones too.
#[must_use]
pub fn signal(number: u32) -> Option<Signal> {
    let number = i32::try_from(number).ok()?;
    if let Some(signal) = Signal::from_named_raw(number) {
        return Some(signal);
    }
    // SAFETY: the C library keeps 32 and 33 for itself; the agent links it but its
    // single-threaded self uses neither, and only sends these numbers to other processes.
    (34..=64)
        .contains(&number)
        .then(|| unsafe { Signal::from_raw_unchecked(number) })
}

/// Sends a signal to every other process there is.
pub fn kill_all(signal: Signal) -> Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::kill(-1, signal.as_raw()) }).map(drop)
}

/// Leaves the parent's view of cgroups.
pub fn unshare_cgroup() -> Result<()> {
    // SAFETY: takes no pointer; only the FILES flag, not given, could touch descriptors.
    check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }).map(drop)
}

/// A network namespace of this process's own, in which there is nothing but a loopback that is down.
pub fn unshare_network() -> Result<()> {
    // SAFETY: takes no pointer; sockets that are open stay in the namespace that they were made in.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// Mounts of this process's own from here on.
pub fn unshare_mounts() -> Result<()> {
    // SAFETY: takes no pointer; separates the working directory from nobody, there is one thread.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }).map(drop)
}

/// Closes every descriptor from 3 up but `keep`.
pub fn close_others(keep: &[BorrowedFd<'_>]) {
    let mut kept: Vec<u32> = keep
        .iter()
        .map(|fd| fd.as_raw_fd().unsigned_abs())
        .collect();
    kept.sort_unstable();
    let mut first = 3u32;
    for fd in kept.into_iter().chain([u32::MAX]) {
        if fd > first {
            let last = if fd == u32::MAX { fd } else { fd - 1 };
            // SAFETY: the caller is a freshly forked child about to exec or exit: owners of these
            // descriptors are never used or dropped in it.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
        first = fd.saturating_add(1).max(first);
    }
}

/// Filters the system calls of this process and its children: classic BPF, eight bytes an
/// instruction. Needs CAP_SYS_ADMIN or `no_new_privs`.
pub fn filter_system_calls(program: &[u8]) -> Result<()> {
    let instruction = |bytes: &[u8; 8]| libc::sock_filter {
        code: u16::from_le_bytes([bytes[0], bytes[1]]),
        jt: bytes[2],
        jf: bytes[3],
        k: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    };
    let (whole, rest) = program.as_chunks();
    let mut filter: Vec<_> = whole.iter().map(instruction).collect();
    let length = u16::try_from(filter.len()).ok().filter(|_| rest.is_empty());
    let program = libc::sock_fprog {
        len: length.ok_or(Errno::INVAL)?,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: `program` describes `filter`, which outlives the call; the kernel copies and verifies
    // it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    check(c_int::try_from(result).unwrap_or(-1)).map(drop)
}

/// Sets one resource limit of this process.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: `limit` is valid and the old value is not asked for.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            &raw const limit,
            ptr::null_mut::<libc::rlimit64>(),
        )
    };
    check(c_int::try_from(result).unwrap_or(-1)).map(drop)
}

/// Ends this process at once, without running anything.
pub fn exit_now(code: c_int) -> ! {
    // SAFETY: `_exit` takes no pointer and does not return.
    unsafe { libc::_exit(code) }
}
