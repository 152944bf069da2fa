//! The workload's control group.

use crate::failure::{failed, setup as setup_failure};
use crate::sys::bpf;
use hullbox_protocol::{Access, CgroupLimits, Failure};
use hullbox_session::guard;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::process::Pid;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Where the kernel's parameters are.
const PARAMETERS: &str = "/proc/sys";
/// What a container may have that makes control groups of its own.
const CONTROLLERS: [&str; 6] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"];

const HIERARCHY: &str = "/cg";
const GROUP: &str = "/cg/workload";
/// Under which name kernel and controller count what the out-of-memory killer did.
pub(super) const OOM_KILLS: &str = "oom_kill";
/// `cpu.max` period, in microseconds, behind the quota.
const CPU_PERIOD: &str = " 100000";

/// The group, which exists until the guest ends.
#[derive(Debug)]
pub(super) struct Cgroup {
    directory: OwnedFd,
    memory: bool,
    /// Every process in it stands still.
    pub(super) frozen: bool,
}

/// The mounted hierarchy, and the programs of an ordinary container, verified.
#[derive(Debug)]
pub(super) struct Hierarchy {
    devices: OwnedFd,
    parameters: OwnedFd,
}

impl Hierarchy {
    /// Mounts it in the agent's own root. This, and having programs verified, needs nothing that the
    /// host would say.
    pub(super) fn mount() -> Result<Self, Failure> {
        let what = || failed("cannot mount the control groups");
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        make(HIERARCHY).map_err(what())?;
        // The limits of a group are not for who sees it as the root.
        mount("cgroup", HIERARCHY, "cgroup2", flags, c"nsdelegate").map_err(what())?;
        let rules = guard::EVERYBODY.iter().chain(&guard::IN_A_VM);
        Ok(Self {
            devices: load_devices(&guard::devices(rules))?,
            parameters: bpf::load(guard::PARAMETER_PROGRAM, &guard::parameters())
                .map_err(failed("cannot load the guard of kernel parameters"))?,
        })
    }

    /// Guards a container. Who may mount file systems of the kernel's own comes by its parameters
    /// anyway, as in Docker.
    pub(super) fn guard(
        &self,
        group: &Cgroup,
        access: &Access,
        may_mount: bool,
    ) -> Result<(), Failure> {
        let attach = |program: BorrowedFd<'_>, hook| {
            bpf::attach(group.fd(), program, hook).map_err(failed("cannot guard the container"))
        };
        if !access.privileged {
            let nodes = access.devices.iter().map(|device| device.rule());
            let own: Vec<_> = nodes.chain(access.device_rules.iter().copied()).collect();
            if own.is_empty() {
                attach(self.devices.as_fd(), guard::DEVICE_HOOK)?;
            } else {
                let usual = guard::EVERYBODY.iter().chain(&guard::IN_A_VM);
                let program = load_devices(&guard::devices(usual.chain(&own)))?;
                attach(program.as_fd(), guard::DEVICE_HOOK)?;
            }
        }
        let confined = access.read_only_paths.iter().any(|path| path == PARAMETERS);
        if confined && !may_mount {
            attach(self.parameters.as_fd(), guard::PARAMETER_HOOK)?;
        }
        Ok(())
    }
}

fn load_devices(program: &[u64]) -> Result<OwnedFd, Failure> {
    bpf::load(guard::DEVICE_PROGRAM, program).map_err(failed("cannot load the device rules"))
}

impl Cgroup {
    /// Makes the group.
    pub(super) fn create() -> Result<Self, Failure> {
        let what = || failed("cannot make the control group");
        make(GROUP).map_err(what())?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(GROUP, flags, Mode::empty()).map_err(what())?;
        Ok(Self {
            directory,
            memory: false,
            frozen: false,
        })
    }

    /// Removes the group, in which nobody is left.
    pub(super) fn remove(self) -> Result<(), Failure> {
        rustix::fs::rmdir(GROUP).map_err(failed("cannot remove the control group"))
    }

    /// Sets its limits. Controllers without a limit stay off: each costs start-up time and a little
    /// of every operation.
    pub(super) fn limit(&mut self, limits: CgroupLimits, manages: bool) -> Result<(), Failure> {
        let what = || failed("cannot make the control group");
        let settings = [
            ("memory", "memory.max", limits.memory_bytes, ""),
            ("pids", "pids.max", limits.pids, ""),
            ("cpu", "cpu.max", limits.cpu_quota_us, CPU_PERIOD),
        ];
        let wanted = || settings.iter().filter(|(_, _, value, _)| *value > 0);
        let controllers: Vec<_> = wanted().map(|(name, ..)| format!("+{name}")).collect();
        if !controllers.is_empty() {
            let path = format!("{HIERARCHY}/cgroup.subtree_control");
            write(&path, &controllers.join(" ")).map_err(what())?;
        }
        if manages {
            for controller in CONTROLLERS {
                // What this kernel does not have, the container does not see.
                let _ = self.enable(controller);
            }
        }
        for (_, file, value, suffix) in wanted() {
            write(&format!("{GROUP}/{file}"), &format!("{value}{suffix}"))
                .map_err(failed(format_args!("cannot set {file}")))?;
        }
        self.memory = limits.memory_bytes > 0 || manages;
        Ok(())
    }

    /// Where to clone a process into.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The group that a process is in, which may be one that the container made below its own: those
    /// that hold others take no processes.
    pub(super) fn of_process(pid: Pid) -> Result<OwnedFd, Failure> {
        let what = || failed("cannot find the container's control group");
        mount_proc().map_err(what())?;
        let file = format!("/proc/{}/cgroup", pid.as_raw_nonzero());
        let text = std::fs::read_to_string(file)
            .map_err(|error| what()(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
        let path = path.ok_or_else(|| setup_failure("the container has no control group"))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::open(format!("{HIERARCHY}/{path}"), flags, Mode::empty()).map_err(what())
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
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match mount("proc", "/proc", "proc", flags, None) {
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
