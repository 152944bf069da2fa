//! Who ends a container when the process that holds it together is killed.
//!
//! The kernel's parent-death signal does that for a first process that has left it as it was. It is
//! gone as soon as the process changes its user, as entry points do that start as root, or when it
//! asks for that. So a process of ours waits beside it, and does nothing else.

use crate::sys::container::{self as sys, Forked};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::BorrowedFd;
use rustix::process::{PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};
use std::io;

/// Starts the guard of a container's first process, for the life of the calling one.
pub(super) fn post(first: BorrowedFd<'_>) -> io::Result<()> {
    let keeper = pidfd_open(getpid(), PidfdFlags::empty())?;
    match sys::fork_alone()? {
        // Its end is that of one of the two: nobody has to wait for it.
        Forked::Parent(_) => Ok(()),
        Forked::Child => {
            use rustix::fd::AsFd;
            let keep = [keeper.as_fd(), first];
            // Nothing but SIGKILL takes it from its post, and nothing else of its parent's is kept.
            let ready = sys::close_all_but(&keep)
                .and_then(|()| sys::reset_signals(true))
                .and_then(|()| Ok(rustix::process::setsid().map(drop)?));
            if ready.is_ok() {
                watch(keeper.as_fd(), first);
            }
            sys::exit_now(0)
        }
    }
}

fn watch(keeper: BorrowedFd<'_>, first: BorrowedFd<'_>) {
    let mut fds = [keeper, first].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    loop {
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
            Ok(_) if !fds[0].revents().is_empty() => break,
            // The container has ended.
            Ok(_) => return,
        }
    }
    // Its whole PID namespace goes with it.
    let _ = pidfd_send_signal(first, Signal::KILL);
}
