//! Running one process: the parent's side, and the way of the child up to its `exec`.

mod builtin;
mod child;
mod identity;
mod program;
mod root;
mod terminal;
mod tiny_init;
mod zygote;

pub use root::{Place, Root};
pub use zygote::{Handed, Orders, Own, Zygote};

use crate::failure::failed;
use crate::sys::{self, Forked, Namespaces};
use hullbox_protocol::{Failure, ProcessSpec};
use hullbox_session::children::{Pipes, Reach, Spawned};
use hullbox_session::status;
use rustix::process::Pid;
use std::os::fd::BorrowedFd;

/// Sends a signal to a process of a session, for [`hullbox_session::children::Children`].
pub fn send_signal(pid: Pid, number: u32, reach: Reach) {
    let Some(signal) = sys::signal(number) else {
        return;
    };
    // A process that is gone but not reaped yet cannot mind.
    let _ = match reach {
        Reach::Process => rustix::process::kill_process(pid, signal),
        Reach::Group => rustix::process::kill_process_group(pid, signal),
    };
}

/// Forks a process that arranges its world as `root` says and runs what `spec` says.
///
/// # Errors
/// A failure of the fork itself. All later ones come through [`Spawned::status`].
pub fn spawn(
    spec: &ProcessSpec,
    root: &dyn Root,
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Spawned, Failure> {
    let (pipes, theirs) = Pipes::make(spec).map_err(failed("cannot make pipes"))?;
    let (reader, writer) = status::channel().map_err(failed("cannot make a socket pair"))?;
    match sys::fork(namespaces, cgroup).map_err(failed("cannot fork"))? {
        Forked::Parent(pid) => Ok(Spawned {
            pid,
            status: reader,
            pipes,
            terminal: spec.terminal.is_some() && spec.builtin.is_none(),
        }),
        Forked::Child => child::run(spec, root, theirs, writer),
    }
}
