//! Control files of cgroups, of either version, and what is agreed about ours.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Where the unified hierarchy is expected, by libcontainer too.
pub(super) const STANDARD: &str = "/sys/fs/cgroup";
/// Our group, below the root of the hierarchy.
pub(super) const GROUP: &str = "hullbox";
/// What limits and statistics need.
pub(super) const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];
/// `cpu.max` period, in microseconds.
pub(super) const CPU_PERIOD_US: u64 = 100_000;
/// Largest control file that is read, in bytes.
const MAX_CONTROL_FILE: usize = 64 * 1024;

/// Why a cgroup could not be made, used or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// No unified hierarchy, mounted or to be had.
    #[error(
        "this host offers no cgroup v2 hierarchy: mount one with `mount -t cgroup2 none {STANDARD}`"
    )]
    NoHierarchy(#[source] Errno),
    /// A limit was asked for that needs an absent controller.
    #[error(
        "the {controller} controller is not available in the cgroup v2 hierarchy, so the \
         limit cannot be kept: it may be in use by cgroup v1 \
         (boot with systemd.unified_cgroup_hierarchy=1), or not be delegated to this container"
    )]
    NoController {
        /// Its name.
        controller: &'static str,
    },
    /// Access to a control file failed.
    #[error("cannot {action} {file} of the container's cgroup")]
    Control {
        /// What was attempted.
        action: &'static str,
        /// The file.
        file: String,
        /// Why not.
        #[source]
        source: Errno,
    },
    /// The device program was refused.
    #[error("cannot install the container's device rules in its cgroup")]
    Devices(#[source] std::io::Error),
}

pub(super) fn control(action: &'static str, file: &str, source: Errno) -> CgroupError {
    CgroupError::Control {
        action,
        file: file.to_owned(),
        source,
    }
}

pub(super) fn make_dir(parent: impl AsFd, name: &str) -> Result<(), CgroupError> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(control("make", name, e)),
    }
}

pub(super) fn open_dir(at: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(
        at,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
    )
}

pub(super) fn write(dir: impl AsFd, file: &str, value: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, file, flags, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes()).map(drop)
}

pub(super) fn read(dir: impl AsFd, file: &str) -> Result<String, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, file, flags, Mode::empty())?;
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match rustix::io::read(&file, &mut chunk)? {
            n if n == 0 || text.len() >= MAX_CONTROL_FILE => break,
            n => text.extend_from_slice(&chunk[..n]),
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Out-of-memory kills by a file of `name count` lines.
pub(super) fn oom_kills(text: &str) -> u64 {
    hullbox_session::cgroup::named(text, "oom_kill").unwrap_or(0)
}
