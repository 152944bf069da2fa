//! What a child does itself instead of becoming a program.

use super::root::{Place, Root};
use crate::failure::{failed, setup};
use crate::sys;
use hullbox_archive::{Job, Scene};
use hullbox_protocol::{Builtin, Failure};
use hullbox_session::children::Pipes;
use hullbox_session::status::StatusWriter;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use std::os::fd::{AsFd, OwnedFd};

/// The child. Does not return.
pub(super) fn run(builtin: &Builtin, root: &dyn Root, pipes: &Pipes, status: StatusWriter) -> ! {
    let told = |failure: &Failure| -> ! {
        status.failed(failure);
        sys::exit_now(i32::from(failure.exit_code()))
    };
    let (place, signals) = match prepare(builtin, root, pipes, &status) {
        Ok(ready) => ready,
        Err(failure) => told(&failure),
    };
    if let Some(signals) = signals {
        drop(status);
        pause(&signals);
    }
    let scene = match &place {
        Place::Root(root) => Scene::Root(root.as_fd()),
        Place::Layers(layers) => Scene::Layers(layers),
    };
    let job = match Job::prepare(builtin, scene) {
        Ok(job) => job,
        Err(failure) => told(&failure),
    };
    // From here on it runs, as a program does after its `execve`.
    drop(status);
    sys::exit_now(job.run_on_standard_streams())
}

fn prepare(
    builtin: &Builtin,
    root: &dyn Root,
    pipes: &Pipes,
    status: &StatusWriter,
) -> Result<(Place, Option<OwnedFd>), Failure> {
    let mut keep: Vec<_> = pipes.borrowed().chain(root.descriptors()).collect();
    keep.push(status.as_fd());
    sys::close_others(&keep);
    rustix::process::setsid().map_err(failed("cannot make a session"))?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, Mode::empty());
    let null = null.map_err(failed("cannot open /dev/null"))?;
    dup2_stdin(pipes.stdin.as_ref().unwrap_or(&null))
        .and_then(|()| dup2_stdout(pipes.stdout.as_ref().unwrap_or(&null)))
        .and_then(|()| dup2_stderr(pipes.stderr.as_ref().unwrap_or(&null)))
        .map_err(failed("cannot connect standard streams"))?;
    // Modes are exact in what it makes; and the first of a PID namespace gets no signal that it
    // does not ask for.
    rustix::process::umask(Mode::empty());
    let signals = match builtin {
        Builtin::Pause => Some(
            sys::watch_signals(&[Signal::TERM, Signal::INT])
                .map_err(|errno| setup(format_args!("signals: {errno}")))?,
        ),
        _ => None,
    };
    Ok((root.place(builtin)?, signals))
}

/// Waits for SIGTERM or SIGINT.
fn pause(signals: &OwnedFd) -> ! {
    loop {
        let mut fds = [PollFd::new(signals, PollFlags::IN)];
        let _ = poll(&mut fds, None);
        while let Some(number) = sys::next_signal(signals.as_fd()) {
            if [Signal::TERM.as_raw(), Signal::INT.as_raw()].contains(&number) {
                sys::exit_now(0);
            }
        }
    }
}
