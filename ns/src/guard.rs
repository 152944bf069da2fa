//! Who ends a container when the process that holds it together is killed.
//!
//! The kernel's parent-death signal does that for a first process that has left it as it was. It is
//! gone as soon as the process changes its user, as entry points do that start as root, or when it
//! asks for that. So a process of ours waits beside it, and does nothing else: two dozen
//! instructions in a program of their own (see [`super::init`]), which takes a few pages of memory
//! and is not found by who looks for monitors.

use super::init;
use crate::sys::{self, ExecArgs, Forked};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::{PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use std::io;

/// Starts the guard of a container's first process, for the life of the calling one.
pub(super) fn post(first: BorrowedFd<'_>) -> io::Result<()> {
    let keeper = pidfd_open(getpid(), PidfdFlags::empty())?;
    // Where programs in memory are forbidden, this one does it.
    let program = init::sealed("guard", sys::guard_code()).ok();
    let arguments = ExecArgs::new(vec![c"hullbox-guard".to_owned()], Vec::new());
    match sys::fork_alone()? {
        // Its end is that of one of the two: nobody has to wait for it.
        Forked::Parent(_) => Ok(()),
        Forked::Child => {
            if stand_alone(keeper.as_fd(), first, program.as_ref()).is_ok() {
                if let Some(program) = &program {
                    // Returns only on failure.
                    let _ = arguments.execve_file(program.as_fd());
                }
                watch(keeper.as_fd(), first);
            }
            sys::exit_now(0)
        }
    }
}

/// Nothing but SIGKILL takes the guard from its post, and it keeps nothing else of its parent's.
fn stand_alone(
    keeper: BorrowedFd<'_>,
    first: BorrowedFd<'_>,
    program: Option<&OwnedFd>,
) -> io::Result<()> {
    let program = program.map(AsFd::as_fd);
    let keep: Vec<_> = [keeper, first].into_iter().chain(program).collect();
    sys::close_all_but(&keep)?;
    sys::reset_signals(true)?;
    rustix::process::setsid()?;
    dup2_stdin(keeper)?;
    dup2_stdout(first)?;
    dup2_stderr(keeper)?;
    Ok(())
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
