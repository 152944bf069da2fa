//! `--init`: PID 1 of the container, so that the workload need not be.
//!
//! It stays the agent's own code in a forked process rather than a program of the image
//! or a second file in the initramfs. It passes signals on, reaps what is orphaned,
//! and ends as the workload ends.

use crate::failure::failed;
use crate::sys::{self, Forked, Namespaces};
use hullbox_protocol::Failure;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use std::os::fd::{AsFd, OwnedFd};

/// Forks. The child returns and becomes the workload; the parent stays init and never returns.
pub(super) fn fork(terminal: bool) -> Result<(), Failure> {
    let everything: Vec<_> = (1..=64)
        .filter(|number| ![9, 19].contains(number))
        .filter_map(sys::signal)
        .collect();
    // Before the fork, so that no signal is lost between it and the first wait.
    let signals = sys::watch_signals(&everything).map_err(failed("init: cannot watch signals"))?;
    match sys::fork(Namespaces::Inherit, None).map_err(failed("init: cannot fork"))? {
        Forked::Child => {
            if terminal {
                take_foreground().map_err(failed("init: cannot hand over the terminal"))?;
            }
            Ok(())
        }
        Forked::Parent(workload) => serve(workload, &signals),
    }
}

/// Makes the workload the terminal's foreground process group, apart from init's.
fn take_foreground() -> rustix::io::Result<()> {
    rustix::process::setpgid(None, None)?;
    // SIGTTOU is blocked, along with all others, so that a background process may do this.
    rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid())
}

fn serve(workload: Pid, signals: &OwnedFd) -> ! {
    sys::close_others(&[signals.as_fd()]);
    // The workload's streams must end when it closes them.
    if let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()) {
        let _ = (dup2_stdin(&null), dup2_stdout(&null), dup2_stderr(&null));
    }
    let _ = rustix::thread::set_name(c"hullbox-init");
    loop {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == workload {
                sys::exit_now(code(status));
            }
        }
        let mut fds = [rustix::event::PollFd::new(
            signals,
            rustix::event::PollFlags::IN,
        )];
        let _ = rustix::event::poll(&mut fds, None);
        while let Some(number) = sys::next_signal(signals.as_fd()) {
            let signal = u32::try_from(number).ok().and_then(sys::signal);
            if let Some(signal) = signal.filter(|&signal| signal != Signal::CHILD) {
                let _ = rustix::process::kill_process(workload, signal);
            }
        }
    }
}

/// As a shell would say it.
fn code(status: WaitStatus) -> i32 {
    status
        .exit_status()
        .or(status.terminating_signal().map(|signal| 128 + signal))
        .unwrap_or(255)
}
