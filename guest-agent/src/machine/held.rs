//! What the machine holds all its life so that its kernel does not rewrite itself at every run.
//!
//! Linux turns rare features into branches that it patches in its own code: on with the first
//! user, off with the last. The first virtual machine patches the scheduler, the first device
//! filter every opening of a device, the first CPU quota the scheduler again. Under emulation
//! that is slow, and worse: QEMU 7.2 can go on running a translation of the breakpoint that
//! stands there for an instant, so that both processors trap in `__schedule` for ever. One idle
//! user of each, and nothing is patched any more.

use crate::failure::words;
use crate::sys;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

const GROUP: &str = "/sys/fs/cgroup/held";

/// Dropping it lets go.
pub(super) struct Held {
    _idle_vm: Option<[OwnedFd; 2]>,
}

/// Takes hold. A machine without one of these works, at a risk, and says so.
pub(super) fn hold() -> Held {
    let idle_vm = told("an idle virtual machine", sys::idle_vm());
    told("an idle control group", idle_group());
    Held { _idle_vm: idle_vm }
}

fn idle_group() -> Result<(), Errno> {
    rustix::fs::mkdir(GROUP, Mode::from_raw_mode(0o755))?;
    let quota = rustix::fs::open(
        format!("{GROUP}/cpu.max"),
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    rustix::io::write(&quota, b"100000 100000")?;
    let group = rustix::fs::open(
        GROUP,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    sys::allow_devices(group.as_fd())
}

fn told<T>(what: &str, result: Result<T, Errno>) -> Option<T> {
    result
        .inspect_err(|errno| eprintln!("hullbox-agent: cannot hold {what}: {}", words(*errno)))
        .ok()
}
