//! Limits on hosts where cgroup v1 has the controllers: hybrid systems, on which the unified
//! hierarchy can hold a container together but not limit it.
//!
//! The container is in the unified hierarchy all the same. Its first process joins the v1
//! groups just before it becomes the workload, by writing to files that were opened while they
//! could be seen.

use super::files::{self, CgroupError, control, make_dir, open_dir, read, write};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use std::time::Duration;

/// `CGROUP_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP1_MAGIC: u64 = 0x27_e0eb;

/// A container's group in the hierarchy of one v1 controller.
#[derive(Debug)]
pub(super) struct Legacy {
    group: OwnedFd,
    dir: OwnedFd,
    id: String,
    controller: &'static str,
}

/// A control file and what to write; some files need not be there.
pub(super) struct Setting {
    file: &'static str,
    value: String,
    optional: bool,
}

/// The v1 settings that keep a limit of the controller.
pub(super) fn settings(controller: &str, limit: u64) -> Vec<Setting> {
    let set = |file, value: String, optional| Setting {
        file,
        value,
        optional,
    };
    // The highest number takes a limit away, for which each controller has a word of its own.
    let limit = |none: &str| match limit {
        u64::MAX => none.to_owned(),
        limit => limit.to_string(),
    };
    match controller {
        "memory" => vec![
            set("memory.limit_in_bytes", limit("-1"), false),
            set("memory.memsw.limit_in_bytes", limit("-1"), true),
        ],
        "pids" => vec![set("pids.max", limit("max"), false)],
        "cpu" => vec![
            set("cpu.cfs_period_us", files::CPU_PERIOD_US.to_string(), false),
            set("cpu.cfs_quota_us", limit("-1"), false),
        ],
        _ => Vec::new(),
    }
}

/// The root of a controller's hierarchy, where systems mount it.
fn hierarchy(controller: &str) -> Option<OwnedFd> {
    let path = format!("{}/{controller}", files::STANDARD);
    let found = rustix::fs::statfs(path.as_str()).ok()?;
    // A link, where controllers share a hierarchy.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, path, flags, Mode::empty()).ok()?;
    (found.f_type as u64 == CGROUP1_MAGIC).then_some(root)
}

/// The roots of v1's hierarchies, open from before the container hides where they are mounted:
/// other limits may be set while it runs.
#[derive(Debug, Default)]
pub(super) struct Roots(Vec<(&'static str, OwnedFd)>);

impl Roots {
    pub(super) fn open() -> Self {
        let roots = files::CONTROLLERS.into_iter();
        Self(
            roots
                .filter_map(|name| Some((name, hierarchy(name)?)))
                .collect(),
        )
    }

    fn of(&self, controller: &str) -> Option<BorrowedFd<'_>> {
        let found = self.0.iter().find(|(name, _)| *name == controller);
        found.map(|(_, root)| root.as_fd())
    }
}

impl Legacy {
    /// Makes the container's group with a limit; `None` if v1 does not have the controller.
    pub(super) fn create(
        roots: &Roots,
        controller: &'static str,
        id: &str,
        limit: u64,
    ) -> Result<Option<Self>, CgroupError> {
        let Some(root) = roots.of(controller) else {
            return Ok(None);
        };
        make_dir(root, files::GROUP)?;
        let group = open_dir(root, files::GROUP).map_err(|e| control("open", controller, e))?;
        make_dir(&group, id)?;
        let dir = open_dir(&group, id).map_err(|e| control("open", controller, e))?;
        for setting in settings(controller, limit) {
            match write(&dir, setting.file, &setting.value) {
                Ok(()) => {}
                Err(_) if setting.optional => {}
                Err(e) => return Err(control("write", setting.file, e)),
            }
        }
        Ok(Some(Self {
            group,
            dir,
            id: id.to_owned(),
            controller,
        }))
    }

    /// Which one's it is.
    pub(super) fn controller(&self) -> &'static str {
        self.controller
    }

    /// Moves a process in. One that has just ended cannot be.
    pub(super) fn take_in(&self, pid: u32) {
        let _ = write(&self.dir, "cgroup.procs", &pid.to_string());
    }

    /// Usage, cache and limit, if it is memory's.
    pub(super) fn memory(&self) -> Option<(u64, u64, u64)> {
        use hullbox_session::cgroup::{named, number};
        let dir = self.dir.as_fd();
        let usage = number(dir, "memory.usage_in_bytes")?;
        let stat = read(&self.dir, "memory.stat").unwrap_or_default();
        let cache = named(&stat, "total_inactive_file").unwrap_or(0);
        Some((usage, cache, number(dir, "memory.limit_in_bytes")?))
    }

    /// The file by which a process joins, by writing 0.
    pub(super) fn door(&self) -> Result<OwnedFd, CgroupError> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.dir, "cgroup.procs", flags, Mode::empty())
            .map_err(|e| control("open", "cgroup.procs", e))
    }

    /// How many processes of it the out-of-memory killer has killed.
    pub(super) fn oom_kills(&self) -> u64 {
        let text = read(&self.dir, "memory.oom_control").unwrap_or_default();
        files::oom_kills(&text)
    }

    /// Has a counter notified when the group runs out of memory, if it is memory's.
    pub(super) fn notify_oom(&self, counter: BorrowedFd<'_>) -> bool {
        if self.controller != "memory" {
            return false;
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let control = rustix::fs::openat(&self.dir, "memory.oom_control", flags, Mode::empty());
        control.is_ok_and(|control| {
            let order = format!("{} {}", counter.as_raw_fd(), control.as_raw_fd());
            write(&self.dir, "cgroup.event_control", &order).is_ok()
        })
    }

    /// Removes it, once its processes are gone.
    pub(super) fn remove(self) -> Result<(), CgroupError> {
        remove_from(&self.group, &self.id)
    }
}

/// Removes what groups of a container there are.
pub(crate) fn remove_all(id: &str) -> Result<(), CgroupError> {
    for controller in files::CONTROLLERS {
        let group = hierarchy(controller).and_then(|root| open_dir(&root, files::GROUP).ok());
        if let Some(group) = group {
            remove_from(&group, id)?;
        }
    }
    Ok(())
}

fn remove_from(group: &OwnedFd, id: &str) -> Result<(), CgroupError> {
    // Processes leave a little after they have died.
    for _ in 0..1000 {
        match rustix::fs::unlinkat(group.as_fd(), id, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) => std::thread::sleep(Duration::from_millis(1)),
            Err(e) => return Err(control("remove", id, e)),
        }
    }
    Err(control("remove", id, Errno::BUSY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_goes_has_its_own_word() {
        let values = |controller, limit| -> Vec<_> {
            let all = settings(controller, limit).into_iter();
            all.map(|setting| setting.value).collect()
        };
        assert_eq!(values("pids", 64), ["64"]);
        assert_eq!(values("pids", u64::MAX), ["max"]);
        assert_eq!(values("memory", u64::MAX), ["-1", "-1"]);
        assert_eq!(values("cpu", u64::MAX), ["100000", "-1"]);
    }
}
