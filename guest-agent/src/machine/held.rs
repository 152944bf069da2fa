//! What the machine holds all its life, because of what its emulator cannot do.
//!
//! **The first processor is kept out of virtual machines.** In QEMU 7.2 whichever processor loads
//! x87 state clears a bit (IGNNE#) in a word of flags of the *first* processor, without a lock. The
//! flag that says whether interrupts are let in (GIF) and the one of nested paging are in the same
//! word. A first processor that enters or leaves a guest at that moment loses its change: it takes an
//! interrupt with the guest's registers loaded, or none any more, or runs a guest without nested
//! paging. Six busy guests on two processors lived for a minute or two. A processor that never
//! enters a guest never changes that word. So the machine has one processor more than was asked for,
//! and everything but containers of control groups of their own runs on the others.
//!
//! **Every processor is interrupted now and then by the first one.** In the same QEMU a processor that
//! enters a guest with an interrupt window asked for sets a bit of its pending interrupts without the
//! lock that protects them, and may lose an interrupt that came in that instant. Its controller still
//! has it and delivers it with the next one. But if it was the timer's there is none: the timer is
//! armed by its own interrupt, and a processor without one stood still for ever. The first processor
//! runs no guests and loses nothing.
//!
//! **No kernel code is patched at every run.** Linux turns rare features into branches that it
//! patches in its own code: on with the first user, off with the last. The first virtual machine
//! patches the scheduler, the first device filter every opening of a device, the first CPU quota the
//! scheduler again. Under emulation that is slow, and worse: QEMU 7.2 can go on running a
//! translation of the breakpoint that stands there for an instant, so that both processors trap in
//! `__schedule` for ever. One idle user of each, and nothing is patched any more.

use super::root::write;
use crate::failure::words;
use crate::sys::{self, Forked};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::sched_getaffinity;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

const GROUP: &str = "/sys/fs/cgroup/held";
const EVERYTHING: &str = "/sys/fs/cgroup/init";
const CALLER: &str = "/sys/fs/cgroup/caller";
/// Reading it has work done on every processor, and each is interrupted for it.
const CALL: &str = "/proc/sys/vm/stat_refresh";
/// How long a lost interrupt stays lost.
const CALL_INTERVAL: Duration = Duration::from_millis(200);

/// Dropping it lets go.
pub(super) struct Held {
    _idle_vm: Option<[OwnedFd; 2]>,
}

/// Takes hold. A machine without one of these works, at a risk, and says so.
pub(super) fn hold() -> Held {
    told(
        "virtual machines off the first processor",
        free_first_processor(),
    );
    told("processors awake", call_processors());
    let idle_vm = told("an idle virtual machine", sys::idle_vm());
    told("an idle control group", idle_group());
    Held { _idle_vm: idle_vm }
}

/// Everything that runs here runs on other processors than the first. A set of the control group
/// holds; a process's own is forgotten whenever it changes groups.
fn free_first_processor() -> Result<(), Errno> {
    let last = sched_getaffinity(None)?.count() - 1;
    if last == 0 {
        return Ok(());
    }
    write(&format!("{EVERYTHING}/cpuset.cpus"), &format!("1-{last}"))
}

/// Starts a process on the first processor that interrupts all others for as long as the machine runs.
fn call_processors() -> Result<(), Errno> {
    let group = group(CALLER)?;
    write(&format!("{CALLER}/cpuset.cpus"), "0")?;
    let call = rustix::fs::open(CALL, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    match sys::fork_unwatched(group.as_fd())? {
        Forked::Parent(_) => Ok(()),
        Forked::Child => loop {
            std::thread::sleep(CALL_INTERVAL);
            // The contents are none.
            let _ = rustix::io::pread(&call, &mut [0; 1], 0);
        },
    }
}

fn idle_group() -> Result<(), Errno> {
    let group = group(GROUP)?;
    write(&format!("{GROUP}/cpu.max"), "100000 100000")?;
    sys::allow_devices(group.as_fd())
}

/// A new control group.
fn group(path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::mkdir(path, Mode::from_raw_mode(0o755))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

fn told<T>(what: &str, result: Result<T, Errno>) -> Option<T> {
    result
        .inspect_err(|errno| eprintln!("hullbox-agent: cannot keep {what}: {}", words(*errno)))
        .ok()
}
