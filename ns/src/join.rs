//! A program that joins a running container.
//!
//! ```text
//! monitor ─ clone3 ─► helper   into the cgroup and all namespaces but the PID namespace;
//!                        │     user, limits, filter, capabilities
//!                        └ clone(PARENT) ─► the program, born in the PID namespace
//! ```
//!
//! Two processes, because a PID namespace is for who is born into it, and because nothing with
//! the monitor's rights should ever be where the container's processes can see it: the helper
//! has only the program's rights left when it forks. The second is the monitor's child, too.

use super::cgroup::Cgroup;
use super::error::{NsError, io};
use super::executor::{Never, step};
use super::inroot::Root;
use super::launch::has_oom_score;
use super::workload::Workload;
use crate::sys::{self, Forked};
use hullbox_protocol::{Failure, ProcessSpec, Setup, TerminalSize};
use hullbox_session::children::{Pipes, Spawned};
use hullbox_session::status::{StatusWriter, channel};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{DumpableBehavior, Pid, Signal};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::termios::Winsize;
use rustix::thread::ThreadNameSpaceType as Kind;

/// Exit code of a process that could not become its program.
const FAILED: i32 = 127;
/// The group that terminals belong to (`gid=5` of the container's devpts).
const TTY_GROUP: u32 = 5;

/// A running container, as one that joins it needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    /// Its first process.
    pub(super) process: BorrowedFd<'a>,
    /// The same by its number.
    pub(super) pid: Pid,
    pub(super) cgroup: &'a Cgroup,
    pub(super) setup: &'a Setup,
}

/// Forks a process that joins and becomes what `spec` says.
pub(super) fn spawn(target: Target<'_>, spec: &ProcessSpec) -> Result<Spawned, NsError> {
    let (pipes, theirs) = Pipes::make(spec).map_err(io("make pipes"))?;
    let (reader, status) = channel().map_err(io("make a socket pair"))?;
    let doors = target.cgroup.doors()?;
    // One that holds groups of the container's own takes no processes.
    let own = match target.setup.access.manages_cgroups {
        true => Some(target.cgroup.of_process(target.pid)?),
        false => None,
    };
    let group = own.as_ref().map_or(target.cgroup.fd(), OwnedFd::as_fd);
    match sys::fork_into(group).map_err(io("fork into the container's cgroup"))? {
        Forked::Parent(pid) => Ok(Spawned {
            pid,
            status: reader,
            pipes,
            terminal: spec.terminal.is_some(),
        }),
        Forked::Child => {
            let failure = match help(target, spec, &doors, &theirs, &status) {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            status.failed(&failure);
            sys::exit_now(FAILED)
        }
    }
}

fn help(
    target: Target<'_>,
    spec: &ProcessSpec,
    doors: &[OwnedFd],
    pipes: &Pipes,
    status: &StatusWriter,
) -> Result<Never, Failure> {
    tie_to_monitor()?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(step("hide from the container"))?;
    for door in doors {
        rustix::io::write(door, b"0").map_err(step("join a cgroup"))?;
    }
    let _ = sys::join_new_session_keyring();
    if has_oom_score() {
        std::fs::write("/proc/self/oom_score_adj", "0").map_err(step("reset oom_score_adj"))?;
    }
    let mut keep: Vec<_> = pipes.borrowed().collect();
    keep.extend([status.as_fd(), target.process]);
    sys::close_all_but(&keep).map_err(step("close descriptors"))?;
    let kinds = Kind::MOUNT
        | Kind::PROCESS_ID
        | Kind::NETWORK
        | Kind::INTER_PROCESS_COMMUNICATION
        | Kind::HOST_NAME_AND_NIS_DOMAIN_NAME
        | Kind::CONTROL_GROUP;
    rustix::thread::move_into_thread_name_spaces(target.process, kinds)
        .map_err(step("join the container"))?;

    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).map_err(step("open the root"))?;
    let workload = Workload::join(Root::new(root.as_fd()), target.setup, spec)
        .map_err(|error| NsError::from(error).failure())?;
    connect(spec, pipes, workload.identity.uid, status)?;
    workload.confine(false)?;
    let (gate, held) = pipe_with(PipeFlags::CLOEXEC).map_err(step("make a pipe"))?;
    match sys::fork_sibling().map_err(step("fork"))? {
        Forked::Parent(pid) => {
            status.forked(pid);
            sys::exit_now(0)
        }
        Forked::Child => {
            drop(held);
            // Until the monitor has been told who it is.
            rustix::io::read(&gate, &mut [0u8; 1]).map_err(step("wait for the helper"))?;
            tie_to_monitor()?;
            rustix::process::setsid().map_err(step("make a session"))?;
            if spec.terminal.is_some() {
                control_terminal(spec)?;
            }
            sys::reset_signals(false).map_err(step("reset signals"))?;
            workload.exec(status)
        }
    }
}

fn tie_to_monitor() -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(step("tie the process to the monitor"))
}

/// Connects descriptors 0 to 2. All others close themselves when the program starts.
fn connect(
    spec: &ProcessSpec,
    pipes: &Pipes,
    uid: u32,
    status: &StatusWriter,
) -> Result<(), Failure> {
    let slave = match spec.terminal {
        Some(size) => Some(open_terminal(size, uid, status)?),
        None => None,
    };
    // It may open its streams again by way of /dev/stdout.
    for pipe in pipes.borrowed() {
        rustix::fs::fchown(pipe, Some(Uid::from_raw(uid)), None).map_err(step("own a pipe"))?;
    }
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, Mode::empty());
    let null = null.map_err(step("open /dev/null"))?;
    let terminal_in = slave.as_ref().filter(|_| !spec.pipes.stdin);
    dup2_stdin(pipes.stdin.as_ref().or(terminal_in).unwrap_or(&null))
        .and_then(|()| {
            let out = pipes.stdout.as_ref().or(slave.as_ref());
            dup2_stdout(out.unwrap_or(&null))
        })
        .and_then(|()| {
            let out = pipes.stderr.as_ref().or(slave.as_ref());
            dup2_stderr(out.unwrap_or(&null))
        })
        .map_err(step("connect standard streams"))
}

/// A terminal of the container's own; its master goes to the monitor.
fn open_terminal(size: TerminalSize, uid: u32, status: &StatusWriter) -> Result<OwnedFd, Failure> {
    let what = || step("open a terminal");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty()).map_err(what())?;
    unlockpt(&master).map_err(what())?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    // Not by its name: no path that the container may have arranged is involved.
    let slave = ioctl_tiocgptpeer(&master, flags).map_err(what())?;
    let window = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&slave, window).map_err(what())?;
    let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(TTY_GROUP)));
    rustix::fs::fchown(&slave, owner.0, owner.1).map_err(what())?;
    status.terminal(master.as_fd()).map_err(what())?;
    Ok(slave)
}

/// Makes the terminal, which is one of the standard streams, the controlling one.
fn control_terminal(spec: &ProcessSpec) -> Result<(), Failure> {
    let stream = match (spec.pipes.stdin, spec.pipes.stdout) {
        (false, _) => rustix::stdio::stdin(),
        (true, false) => rustix::stdio::stdout(),
        (true, true) => rustix::stdio::stderr(),
    };
    match spec.pipes.stdin && spec.pipes.stdout && spec.pipes.stderr {
        true => Ok(()),
        false => rustix::process::ioctl_tiocsctty(stream).map_err(step("control the terminal")),
    }
}
