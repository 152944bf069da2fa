//! Running one process: the parent's side, and the way of the child up to its `exec`.

mod child;
mod identity;
mod program;
mod status;
mod terminal;
mod tiny_init;

pub use child::Root;
pub use status::{Report, StatusReader};

use crate::failure::failed;
use crate::sys::{self, Forked, Namespaces};
use hullbox_protocol::{Failure, ProcessSpec};
use hullbox_session::server::Stdio;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A process on its way to its program.
#[derive(Debug)]
pub struct Spawned {
    /// Its id here.
    pub pid: Pid,
    /// Tells what becomes of it.
    pub status: StatusReader,
    /// Our ends of its streams; with a terminal, of those that are pipes all the same.
    pub pipes: Pipes,
    /// It will report a terminal before it runs.
    pub terminal: bool,
}

/// The parent's ends of a process's pipes.
#[derive(Debug, Default)]
pub struct Pipes {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Pipes {
    /// What the pump takes, with the terminal's master if there is one.
    pub fn into_stdio(self, master: Option<OwnedFd>) -> Stdio {
        let Self {
            stdin,
            stdout,
            stderr,
        } = self;
        match master {
            Some(master) => Stdio::Mixed {
                master,
                stdin,
                stdout,
                stderr,
            },
            None => Stdio::Pipes {
                stdin,
                stdout,
                stderr,
            },
        }
    }
}

/// The child's ends.
#[derive(Debug, Default)]
struct ChildPipes {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl ChildPipes {
    fn borrowed(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.stdin, &self.stdout, &self.stderr]
            .into_iter()
            .filter_map(|fd| fd.as_ref().map(AsFd::as_fd))
    }
}

/// Forks a process that arranges its world as `root` says and runs what `spec` says.
///
/// `keep` are descriptors that `root` needs in the child.
///
/// # Errors
/// A failure of the fork itself. All later ones come through [`Spawned::status`].
pub fn spawn(
    spec: &ProcessSpec,
    root: &dyn Root,
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Spawned, Failure> {
    let (pipes, theirs) = make_pipes(spec).map_err(failed("cannot make pipes"))?;
    let (reader, writer) = status::channel().map_err(failed("cannot make a socket pair"))?;
    match sys::fork(namespaces, cgroup).map_err(failed("cannot fork"))? {
        Forked::Parent(pid) => Ok(Spawned {
            pid,
            status: reader,
            pipes,
            terminal: spec.terminal.is_some(),
        }),
        Forked::Child => child::run(spec, root, theirs, &writer),
    }
}

fn make_pipes(spec: &ProcessSpec) -> rustix::io::Result<(Pipes, ChildPipes)> {
    let terminal = spec.terminal.is_some();
    let mut ours = Pipes::default();
    let mut theirs = ChildPipes::default();
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    if spec.stdin && (!terminal || spec.pipes.stdin) {
        let (read, write) = pipe()?;
        (theirs.stdin, ours.stdin) = (Some(read), Some(write));
    }
    if !terminal || spec.pipes.stdout {
        let (read, write) = pipe()?;
        (ours.stdout, theirs.stdout) = (Some(read), Some(write));
    }
    if !terminal || spec.pipes.stderr {
        let (read, write) = pipe()?;
        (ours.stderr, theirs.stderr) = (Some(read), Some(write));
    }
    Ok((ours, theirs))
}
