//! The child's way from the fork to its program.

use super::root::Root;
use super::{builtin, identity, program, terminal, tiny_init};
use crate::failure::{failed, setup};
use crate::sys;
use hullbox_protocol::{Failure, ProcessSpec};
use hullbox_session::children::{Pipes, uptime_us};
use hullbox_session::status::StatusWriter;
use rustix::fs::{Mode, OFlags};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use std::os::fd::{AsFd, BorrowedFd};

/// The child. Does not return.
pub(super) fn run(spec: &ProcessSpec, root: &dyn Root, pipes: Pipes, status: StatusWriter) -> ! {
    if let Some(what) = &spec.builtin {
        builtin::run(what, root, &pipes, status)
    }
    let mut keep: Vec<_> = pipes.borrowed().chain(root.descriptors()).collect();
    keep.push(status.as_fd());
    let failure = match detach(&keep) {
        Ok(()) => become_program(spec, root, pipes, &status),
        Err(failure) => failure,
    };
    status.failed(&failure);
    sys::exit_now(i32::from(failure.exit_code()))
}

/// Leaves what is the parent's: nothing of the agent's may be reachable from here on, least of all
/// through a working directory such as /proc/self/fd/7.
pub(super) fn detach(keep: &[BorrowedFd<'_>]) -> Result<(), Failure> {
    sys::close_others(keep);
    rustix::process::setsid()
        .map(drop)
        .map_err(failed("cannot make a session"))
}

/// Enters the root and becomes the program. Returns only when that fails.
pub(super) fn become_program(
    spec: &ProcessSpec,
    root: &dyn Root,
    pipes: Pipes,
    status: &StatusWriter,
) -> Failure {
    match arrange(spec, root, pipes, status) {
        Ok(program) => program::exec(&program, spec, root),
        Err(failure) => failure,
    }
}

/// Arranges everything but the program itself.
fn arrange(
    spec: &ProcessSpec,
    root: &dyn Root,
    pipes: Pipes,
    status: &StatusWriter,
) -> Result<program::Program, Failure> {
    root.enter(spec)?;
    if root.timed() {
        status.rooted(uptime_us());
    }
    let identity = identity::resolve(&spec.user)?;
    let program = program::Program::new(spec, &identity)?;
    change_directory(&spec.cwd, root)?;
    arrange_streams(spec, root, pipes, &identity, status)?;
    root.seal()?;

    for limit in &spec.rlimits {
        sys::set_rlimit(limit.resource, limit.soft, limit.hard)
            .map_err(failed(format_args!("cannot set rlimit {}", limit.resource)))?;
    }
    rustix::process::umask(Mode::from_raw_mode(spec.umask.unwrap_or(0o022) & 0o777));
    if root.init() {
        tiny_init::fork(spec.terminal.is_some())?;
    }
    let filter = Some(root.filter()).filter(|filter| !filter.is_empty() && !spec.privileged);
    identity::become_user(&identity, spec, filter)?;
    sys::reset_signals();
    Ok(program)
}

/// Goes to the working directory. Absolute links in it stay within the root, which is
/// the container's own by now.
fn change_directory(cwd: &str, root: &dyn Root) -> Result<(), Failure> {
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    if !cwd.starts_with('/') {
        return Err(setup(format_args!(
            "the working directory \"{cwd}\" is invalid, it needs to be an absolute path"
        )));
    }
    let what = || format!("working directory \"{cwd}\"");
    match rustix::process::chdir(cwd) {
        Err(rustix::io::Errno::NOENT) if root.makes_cwd() => {
            crate::paths::make_directories(cwd).map_err(failed(what()))?;
            rustix::process::chdir(cwd).map_err(failed(what()))
        }
        Err(rustix::io::Errno::NOENT) => Err(Failure {
            kind: root.lacks_cwd(),
            message: format!("{}: no such file or directory", what()),
        }),
        result => result.map_err(failed(what())),
    }
}

/// Connects descriptors 0 to 2. All others close themselves when the program starts.
fn arrange_streams(
    spec: &ProcessSpec,
    root: &dyn Root,
    pipes: Pipes,
    identity: &identity::Identity,
    status: &StatusWriter,
) -> Result<(), Failure> {
    let streams = "cannot connect standard streams";
    let slave = match spec.terminal {
        Some(size) => Some(terminal::open(size, identity.uid, root.console(), status)?),
        None => None,
    };
    // As Docker does: a program without root's rights may reopen /dev/stdout.
    let own = |fd: BorrowedFd<'_>| {
        if identity.uid != 0 {
            let uid = rustix::process::Uid::from_raw(identity.uid);
            let _ = rustix::fs::fchown(fd, Some(uid), None);
        }
    };
    pipes.borrowed().for_each(own);
    let null = || {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::open("/dev/null", flags, Mode::empty()).map_err(failed("cannot open /dev/null"))
    };
    match (&pipes.stdin, &slave) {
        (Some(pipe), _) => dup2_stdin(pipe).map_err(failed(streams))?,
        (None, Some(slave)) if !spec.pipes.stdin => dup2_stdin(slave).map_err(failed(streams))?,
        _ => dup2_stdin(null()?).map_err(failed(streams))?,
    }
    match pipes.stdout.as_ref().or(slave.as_ref()) {
        Some(fd) => dup2_stdout(fd).map_err(failed(streams))?,
        None => dup2_stdout(null()?).map_err(failed(streams))?,
    }
    match pipes.stderr.as_ref().or(slave.as_ref()) {
        Some(fd) => dup2_stderr(fd).map_err(failed(streams))?,
        None => dup2_stderr(null()?).map_err(failed(streams))?,
    }
    Ok(())
}
