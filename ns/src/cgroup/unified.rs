//! The container's cgroup: `hullbox/<id>` in the unified hierarchy.
//!
//! All access is by descriptor, so that it works wherever the hierarchy is mounted, and where it
//! is not mounted at all: the kernel gives a detached mount of it to whoever asks.

use super::files::{
    CONTROLLERS, CgroupError, GROUP, STANDARD, control, make_dir, oom_kills, open_dir, read, write,
};
use super::legacy::{self, Legacy};
use crate::sys;
use hullbox_protocol::CgroupLimits;
use hullbox_session::cgroup;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsmount, fsopen,
    move_mount,
};
use rustix::process::Pid;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where hybrid systems put it.
const HYBRID: &str = "/sys/fs/cgroup/unified";
/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// A container's cgroup.
#[derive(Debug)]
pub(crate) struct Cgroup {
    group: OwnedFd,
    dir: OwnedFd,
    id: String,
    legacy: Vec<Legacy>,
    legacy_roots: legacy::Roots,
    /// Every process in it stands still.
    pub(crate) frozen: bool,
}

impl Cgroup {
    /// Makes the container's cgroup, with limits and, if there are any, device rules in force. What an earlier run
    /// left is ended and removed first.
    pub(crate) fn create(
        id: &str,
        limits: &CgroupLimits,
        devices: Option<&[u64]>,
    ) -> Result<Self, CgroupError> {
        let root = hierarchy()?;
        let group = make_group(&root)?;
        if let Some(left) = Self::find(id)? {
            left.kill()?;
            left.remove()?;
        }
        make_dir(&group, id)?;
        let dir = open_dir(&group, id).map_err(|e| control("open", id, e))?;
        let legacy = Vec::new();
        let id = id.to_owned();
        let mut cgroup = Self {
            group,
            dir,
            id,
            legacy,
            legacy_roots: legacy::Roots::open(),
            frozen: false,
        };
        let guard = |cgroup: &Self| devices.map_or(Ok(()), |program| cgroup.guard_devices(program));
        match cgroup.limit(limits).and_then(|()| guard(&cgroup)) {
            Ok(()) => Ok(cgroup),
            Err(e) => {
                // The first error is the one to tell.
                let _ = cgroup.remove();
                Err(e)
            }
        }
    }

    fn guard_devices(&self, program: &[u64]) -> Result<(), CgroupError> {
        let program = sys::load_device_program(program);
        let program = program.map_err(CgroupError::Devices)?;
        sys::attach_device_program(self.dir.as_fd(), program.as_fd()).map_err(CgroupError::Devices)
    }

    /// The existing cgroup of a container, or `None`.
    pub(crate) fn find(id: &str) -> Result<Option<Self>, CgroupError> {
        let root = hierarchy()?;
        let found = open_dir(&root, GROUP).and_then(|group| {
            let dir = open_dir(&group, id)?;
            Ok((group, dir))
        });
        match found {
            Ok((group, dir)) => Ok(Some(Self {
                group,
                dir,
                id: id.to_owned(),
                legacy: Vec::new(),
                legacy_roots: legacy::Roots::default(),
                frozen: false,
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(control("open", id, e)),
        }
    }

    /// The group that a process is in: this, or one that the container made below it.
    pub(crate) fn of_process(&self, pid: Pid) -> Result<OwnedFd, CgroupError> {
        let file = format!("/proc/{}/cgroup", pid.as_raw_nonzero());
        let failed = |source| control("find", "the place in /proc", source);
        let text = std::fs::read_to_string(file)
            .map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        // Wherever this process itself sees the hierarchy from.
        let own = format!("/{GROUP}/{}", self.id);
        let line = text.lines().find_map(|line| line.strip_prefix("0::"));
        let below = line.and_then(|path| path.split_once(&own));
        let below = below.map_or("", |(_, below)| below.trim_start_matches('/'));
        let place = if below.is_empty() { "." } else { below };
        open_dir(&self.dir, place).map_err(failed)
    }

    /// The path from the root of the hierarchy, as an OCI specification names it.
    pub(crate) fn oci_path(id: &str) -> PathBuf {
        Path::new("/").join(GROUP).join(id)
    }

    /// Makes the hierarchy visible at its standard place in this process's mount namespace,
    /// which must be private.
    pub(crate) fn show_at_standard_place() -> Result<(), CgroupError> {
        if is_unified(STANDARD) {
            return Ok(());
        }
        let mounted = detached_hierarchy().map_err(CgroupError::NoHierarchy)?;
        move_mount(
            &mounted,
            "",
            rustix::fs::CWD,
            STANDARD,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .map_err(CgroupError::NoHierarchy)
    }

    fn limit(&mut self, limits: &CgroupLimits) -> Result<(), CgroupError> {
        for setting in cgroup::settings(limits) {
            let (controller, limit) = (setting.controller, setting.limit);
            match write(&self.dir, setting.file, &setting.value) {
                Ok(()) => {}
                Err(Errno::NOENT) => {
                    match Legacy::create(&self.legacy_roots, controller, &self.id, limit)? {
                        Some(legacy) => self.legacy.push(legacy),
                        // Nothing keeps a limit that is to go.
                        None if limit == u64::MAX => {}
                        None => return Err(CgroupError::NoController { controller }),
                    }
                }
                Err(e) => return Err(control("write", setting.file, e)),
            }
        }
        if limits.memory_bytes > 0 {
            // The limit means the same as in a microVM, which has no swap. The file is missing
            // where the kernel has none either.
            match write(&self.dir, "memory.swap.max", "0") {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(control("write", "memory.swap.max", e)),
            }
        }
        Ok(())
    }

    /// Sets other limits for what runs in it already.
    pub(crate) fn update(&mut self, limits: &CgroupLimits) -> Result<(), CgroupError> {
        let before = self.legacy.len();
        let limited = self.limit(limits);
        // Whom the unified hierarchy has is not in a v1 group that was made just now.
        let made = self.legacy.split_off(before);
        for legacy in made {
            for pid in cgroup::processes(self.dir.as_fd()) {
                legacy.take_in(pid);
            }
            self.legacy
                .retain(|old| old.controller() != legacy.controller());
            self.legacy.push(legacy);
        }
        limited
    }

    /// Usage, cache and limit of memory where cgroup v1 counts it.
    pub(crate) fn legacy_memory(&self) -> Option<(u64, u64, u64)> {
        self.legacy.iter().find_map(Legacy::memory)
    }

    /// The group itself.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Files to which the container's first process must write 0.
    pub(crate) fn doors(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        self.legacy.iter().map(Legacy::door).collect()
    }

    /// Whether the out-of-memory killer has been at work in it.
    pub(crate) fn had_oom_kill(&self) -> bool {
        self.oom_kills() > 0
    }

    /// How many processes of it the out-of-memory killer has killed.
    pub(crate) fn oom_kills(&self) -> u64 {
        let events = read(&self.dir, "memory.events").unwrap_or_default();
        let legacy = self.legacy.iter().map(Legacy::oom_kills);
        oom_kills(&events) + legacy.sum::<u64>()
    }

    /// Has a counter notified by cgroup v1; false where it does not have the controller.
    pub(crate) fn notify_oom(&self, counter: BorrowedFd<'_>) -> bool {
        self.legacy.iter().any(|legacy| legacy.notify_oom(counter))
    }

    /// Kills whatever is in it.
    pub(crate) fn kill(&self) -> Result<(), CgroupError> {
        match write(&self.dir, "cgroup.kill", "1") {
            Ok(()) => Ok(()),
            // Before Linux 5.14: one by one, until there is nobody left.
            Err(Errno::NOENT) => self.kill_each(),
            Err(e) => Err(control("write", "cgroup.kill", e)),
        }
    }

    fn kill_each(&self) -> Result<(), CgroupError> {
        for _ in 0..1000 {
            let procs = match read(&self.dir, "cgroup.procs") {
                Ok(procs) if !procs.is_empty() => procs,
                // Nobody is left, or not even the group.
                Ok(_) | Err(Errno::NOENT | Errno::NODEV) => break,
                Err(e) => return Err(control("read", "cgroup.procs", e)),
            };
            procs
                .lines()
                .filter_map(|line| line.parse().ok().and_then(rustix::process::Pid::from_raw))
                .for_each(|pid| {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                });
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Removes it with all that its processes made below it. They must be dead or dying.
    pub(crate) fn remove(mut self) -> Result<(), CgroupError> {
        let legacy = std::mem::take(&mut self.legacy);
        let removed = self.remove_unified();
        legacy.into_iter().try_for_each(Legacy::remove)?;
        removed
    }

    fn remove_unified(&self) -> Result<(), CgroupError> {
        let mut pause = Duration::from_micros(100);
        // A killed process leaves its cgroup some time after the signal: 3 s in all.
        for _ in 0..24 {
            remove_children(&self.dir, 0);
            match rustix::fs::unlinkat(&self.group, self.id.as_str(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::BUSY) => std::thread::sleep(pause),
                Err(e) => return Err(control("remove", &self.id, e)),
            }
            pause = (pause * 2).min(Duration::from_millis(200));
        }
        Err(control("remove", &self.id, Errno::BUSY))
    }
}

fn is_unified(path: &str) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type as u64 == CGROUP2_MAGIC)
}

/// The root of the unified hierarchy.
fn hierarchy() -> Result<OwnedFd, CgroupError> {
    for place in [STANDARD, HYBRID] {
        if is_unified(place) {
            return open_dir(rustix::fs::CWD, place).map_err(CgroupError::NoHierarchy);
        }
    }
    detached_hierarchy().map_err(CgroupError::NoHierarchy)
}

fn detached_hierarchy() -> Result<OwnedFd, Errno> {
    let fs = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&fs)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Our group, its controllers handed down as far as the host gives them.
fn make_group(root: &OwnedFd) -> Result<OwnedFd, CgroupError> {
    make_dir(root, GROUP)?;
    let group = open_dir(root, GROUP).map_err(|e| control("open", GROUP, e))?;
    // Both levels need it: a group has the controllers that its parent hands down.
    for level in [root.as_fd(), group.as_fd()] {
        let available = read(level, "cgroup.controllers").unwrap_or_default();
        let enabled = read(level, "cgroup.subtree_control").unwrap_or_default();
        let missing: Vec<String> = CONTROLLERS
            .into_iter()
            .filter(|c| has(&available, c) && !has(&enabled, c))
            .map(|c| format!("+{c}"))
            .collect();
        // One that cannot be enabled shows as soon as a limit needs it.
        for controller in missing {
            let _ = write(level, "cgroup.subtree_control", &controller);
        }
    }
    Ok(group)
}

fn has(list: &str, controller: &str) -> bool {
    list.split_ascii_whitespace().any(|name| name == controller)
}

/// Removes the groups below one, deepest first. What cannot be removed shows when the group
/// itself cannot.
fn remove_children(dir: &OwnedFd, depth: usize) {
    /// `cgroup.max.depth` has no default limit; nobody needs more than this.
    const MAX_DEPTH: usize = 64;
    let Ok(entries) = Dir::read_from(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_dir = entry.file_type() == FileType::Directory;
        if !is_dir || name.to_bytes() == b"." || name.to_bytes() == b".." {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        if depth < MAX_DEPTH
            && let Ok(child) = rustix::fs::openat(dir, name, flags, Mode::empty())
        {
            remove_children(&child, depth + 1);
        }
        let _ = rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR);
    }
}
