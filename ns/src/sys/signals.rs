//! Signals.

use super::check;
use rustix::fd::{AsRawFd, BorrowedFd};
use std::io;
use std::ptr;

/// Sends any signal, real-time ones too, to the process behind a descriptor.
///
/// # Errors
/// Failure of `pidfd_send_signal`: the process is gone, or the number is no signal's.
pub fn send_signal(process: BorrowedFd<'_>, signal: u32) -> io::Result<()> {
    // SAFETY: without a `siginfo_t` the call touches no memory of this process.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// Gives every signal its default action, and the given blocked or unblocked state to all.
///
/// # Errors
/// Failure of `sigprocmask`.
pub fn reset_signals(block: bool) -> io::Result<()> {
    /// `struct sigaction` of the kernel. All zero, it is SIG_DFL without a mask.
    #[repr(C)]
    struct Action([u64; 4]);
    let default = Action([0; 4]);
    for signal in 1..=64 {
        // By the kernel's own call, because the C library keeps two signals to itself, which whoever
        // started us may have ignored.
        // SAFETY: SIG_DFL is valid for every signal; the two that cannot be changed answer with an
        // error that does not matter. The structure is the kernel's and only read.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &raw const default,
                ptr::null::<Action>(),
                size_of::<u64>(),
            )
        };
    }
    // Every bit is a signal; the kernel ignores the two that cannot be blocked.
    let mask = if block { u64::MAX } else { 0u64 };
    // SAFETY: `mask` is the kernel's 8-byte signal set, read by the call; no old set is asked
    // for.
    check(unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            ptr::null::<u64>(),
            size_of::<u64>(),
        )
    })
    .map(drop)
}

/// Ignores these signals, until [`reset_signals`].
pub fn ignore_signals(signals: &[libc::c_int]) {
    for &signal in signals {
        // SAFETY: SIG_IGN is valid for every signal that can be ignored; the others are refused.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}
