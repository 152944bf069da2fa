//! What is done with a container's files: a process of our own that goes where they are.
//!
//! It has the container's mounts, or just its root where nothing runs, and neither its PID
//! namespace nor its cgroup: its processes do not see it, and it goes on while they are frozen.
//! Because the cgroup's device rules are not for it either, its mounts open no devices at all.

use super::error::{NsError, io};
use super::executor::step;
use super::mounts::Mounts;
use super::rootfs::{Rootfs, RootfsError};
use crate::sys::{self, Forked};
use hullbox_archive::{Job, Layers, Scene, needs_layers};
use hullbox_backend::bundle::Bundle;
use hullbox_protocol::{Builtin, Failure};
use hullbox_session::children::{Pipes, Spawned};
use hullbox_session::status::{StatusWriter, channel};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::process::{DumpableBehavior, Signal};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::{CapabilitySet, CapabilitySets, ThreadNameSpaceType};

/// What files take: owners, modes, nodes, attributes. Attributes of overlayfs take more.
const FILES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP);

/// Where the files are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// The running container's first process; `None` where nothing runs.
    pub(super) process: Option<BorrowedFd<'a>>,
    pub(super) rootfs: &'a Rootfs,
    pub(super) bundle: &'a Bundle,
}

enum Ground {
    Root(OwnedFd),
    Layers(Layers),
}

/// Forks a process that does it.
pub(super) fn spawn(place: Place<'_>, builtin: &Builtin, stdin: bool) -> Result<Spawned, NsError> {
    let spec = hullbox_protocol::ProcessSpec {
        stdin,
        ..Default::default()
    };
    let (pipes, theirs) = Pipes::make(&spec).map_err(io("make pipes"))?;
    let (reader, status) = channel().map_err(io("make a socket pair"))?;
    match sys::fork_alone().map_err(io("fork"))? {
        Forked::Parent(pid) => Ok(Spawned {
            pid,
            status: reader,
            pipes,
            terminal: false,
        }),
        Forked::Child => run(place, builtin, &theirs, status),
    }
}

fn run(place: Place<'_>, builtin: &Builtin, pipes: &Pipes, status: StatusWriter) -> ! {
    let told = |failure: &Failure| -> ! {
        status.failed(failure);
        sys::exit_now(i32::from(failure.exit_code()))
    };
    let mounts = place.rootfs.take_mounts();
    if let Err(failure) = arrange(place, pipes, &mounts, &status) {
        told(&failure);
    }
    if *builtin == Builtin::Pause {
        drop(status);
        pause();
    }
    let ground = match enter(place, &mounts, builtin) {
        Ok(ground) => ground,
        Err(failure) => told(&failure),
    };
    let scene = match &ground {
        Ground::Root(root) => Scene::Root(root.as_fd()),
        Ground::Layers(layers) => Scene::Layers(layers),
    };
    let job = match Job::prepare(builtin, scene) {
        Ok(job) => job,
        Err(failure) => told(&failure),
    };
    // From here on it runs, as a program does after its `execve`.
    drop(status);
    sys::exit_now(job.run_on_standard_streams())
}

fn arrange(
    place: Place<'_>,
    pipes: &Pipes,
    mounts: &Mounts,
    status: &StatusWriter,
) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(step("tie the process to the monitor"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(step("hide from the container"))?;
    let mut keep: Vec<_> = pipes.borrowed().collect();
    keep.push(status.as_fd());
    keep.extend(place.process);
    keep.extend(mounts.descriptors());
    sys::close_all_but(&keep).map_err(step("close descriptors"))?;
    rustix::process::setsid().map_err(step("make a session"))?;
    sys::reset_signals(false).map_err(step("reset signals"))?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, Mode::empty());
    let null = null.map_err(step("open /dev/null"))?;
    dup2_stdin(pipes.stdin.as_ref().unwrap_or(&null))
        .and_then(|()| dup2_stdout(pipes.stdout.as_ref().unwrap_or(&null)))
        .and_then(|()| dup2_stderr(pipes.stderr.as_ref().unwrap_or(&null)))
        .map_err(step("connect standard streams"))?;
    // Modes are exact in what it makes.
    rustix::process::umask(Mode::empty());
    Ok(())
}

/// Goes where the files are, with mounts of its own, and lays down what it does not need there.
fn enter(place: Place<'_>, mounts: &Mounts, builtin: &Builtin) -> Result<Ground, Failure> {
    if needs_layers(builtin) {
        sys::unshare_mounts().map_err(step("make a mount namespace"))?;
        let layers = place.rootfs.layers(place.bundle);
        let layers = layers.map_err(|error| NsError::from(error).failure())?;
        keep_capabilities(FILES | CapabilitySet::SYS_ADMIN)?;
        return Ok(Ground::Layers(layers));
    }
    let root = match place.process {
        Some(process) => {
            rustix::thread::move_into_thread_name_spaces(process, ThreadNameSpaceType::MOUNT)
                .map_err(step("join the container"))?;
            sys::unshare_mounts().map_err(step("make a mount namespace"))?;
            open_dir("/")
        }
        None => {
            sys::unshare_mounts().map_err(step("make a mount namespace"))?;
            open_dir(place.rootfs.path())
        }
    };
    let root = root.map_err(step("open the root filesystem"))?;
    // As Docker has it: what is copied into a volume is in the volume. Where the container runs there is
    // nothing left to attach.
    let attached = mounts.attach(root.as_fd());
    attached.map_err(|error| NsError::from(RootfsError::from(error)).failure())?;
    sys::forbid_devices(root.as_fd()).map_err(step("forbid devices"))?;
    keep_capabilities(FILES)?;
    Ok(Ground::Root(root))
}

fn open_dir(path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

fn keep_capabilities(wanted: CapabilitySet) -> Result<(), Failure> {
    let mine = rustix::thread::capabilities(None).map_err(step("read capabilities"))?;
    let kept = mine.permitted & wanted;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).map_err(step("drop capabilities"))
}

/// Waits for SIGTERM or SIGINT.
fn pause() -> ! {
    let signals = [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT];
    match signal_hook::iterator::Signals::new(signals) {
        Ok(mut signals) => {
            let _ = signals.forever().next();
            sys::exit_now(0)
        }
        Err(_) => sys::exit_now(1),
    }
}
