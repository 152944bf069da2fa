//! The workload's control group.

use crate::failure::failed;
use hullbox_protocol::{CgroupLimits, Failure};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const HIERARCHY: &str = "/cg";
const GROUP: &str = "/cg/workload";
/// Under which name kernel and controller count what the out-of-memory killer did.
pub(super) const OOM_KILLS: &str = "oom_kill";
/// `cpu.max` period, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;

/// The group, which exists until the guest ends.
#[derive(Debug)]
pub(super) struct Cgroup {
    directory: OwnedFd,
    memory: bool,
    /// Every process in it stands still.
    pub(super) frozen: bool,
}

/// Mounts the hierarchy in the agent's own root, which needs nothing that the host would say.
pub(super) fn mount_hierarchy() -> Result<(), Failure> {
    let what = || failed("cannot mount the control groups");
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    make(HIERARCHY).map_err(what())?;
    mount("cgroup", HIERARCHY, "cgroup2", flags, None).map_err(what())
}

impl Cgroup {
    /// Makes the group and sets its limits. Controllers without a limit stay off: each costs
    /// start-up time and a little of every operation.
    pub(super) fn create(limits: CgroupLimits) -> Result<Self, Failure> {
        let what = || failed("cannot make the control group");
        let settings = [
            ("memory", "memory.max", limits.memory_bytes, String::new()),
            ("pids", "pids.max", limits.pids, String::new()),
            (
                "cpu",
                "cpu.max",
                limits.cpu_quota_us,
                format!(" {CPU_PERIOD_US}"),
            ),
        ];
        let wanted = || settings.iter().filter(|(_, _, value, _)| *value > 0);
        let controllers: Vec<_> = wanted().map(|(name, ..)| format!("+{name}")).collect();
        if !controllers.is_empty() {
            let path = format!("{HIERARCHY}/cgroup.subtree_control");
            write(&path, &controllers.join(" ")).map_err(what())?;
        }
        make(GROUP).map_err(what())?;
        for (_, file, value, suffix) in wanted() {
            write(&format!("{GROUP}/{file}"), &format!("{value}{suffix}"))
                .map_err(failed(format_args!("cannot set {file}")))?;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(GROUP, flags, Mode::empty()).map_err(what())?;
        Ok(Self {
            directory,
            memory: limits.memory_bytes > 0,
            frozen: false,
        })
    }

    /// Where to clone a process into.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Whether its memory was counted from the beginning.
    pub(super) fn counts_memory(&self) -> bool {
        self.memory
    }

    /// Switches a controller on for it, if it is not.
    pub(super) fn enable(&self, controller: &str) -> Result<(), Errno> {
        let path = format!("{HIERARCHY}/cgroup.subtree_control");
        write(&path, &format!("+{controller}"))
    }

    /// Whether the out-of-memory killer was at work: in the group, or in the whole guest.
    pub(super) fn saw_oom_kill(&self) -> bool {
        let events = format!("{GROUP}/memory.events");
        if count(&events, OOM_KILLS) > 0 {
            return true;
        }
        mount_proc().is_ok() && count("/proc/vmstat", OOM_KILLS) > 0
    }
}

/// The agent needs /proc for little, so it is mounted only when it does.
pub(super) fn mount_proc() -> Result<(), Errno> {
    make("/proc")?;
    match mount("proc", "/proc", "proc", MountFlags::empty(), None) {
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// The count behind a name in a file of `name value` lines; 0 where there is none.
pub(super) fn count(path: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    hullbox_session::cgroup::named(&text, name).unwrap_or(0)
}

fn make(path: &str) -> Result<(), Errno> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn write(path: &str, value: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes()).map(drop)
}
