//! What a container is kept from of its own kernel, and the devices that it is given.
//!
//! In an ordinary container parts of /proc and /sys are covered or read-only, as Docker has it. But
//! whoever has a user namespace of their own (bubblewrap, browsers, `unshare -r`) mounts a /proc in
//! it, and the kernel lets them only if the mount namespace has one in which nothing is hidden. So
//! there is one, out of everybody's reach: the agent's own, in its root, below the container's. What
//! must not be had from such a fresh /proc is guarded otherwise: the kernel's parameters by a program
//! on the control group ([`super::cgroup::Hierarchy::guard`]), the trigger of system requests by its
//! permissions.

use crate::failure::{failed, setup as setup_failure};
use crate::paths;
use hullbox_protocol::{
    Access, DeviceAccess, DeviceKind, DeviceNode, Failure, MASKED_PATHS, READ_ONLY_PATHS,
};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid, makedev};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind_recursive, mount_remount};
use std::path::Path;

const TRIGGER: &str = "/proc/sysrq-trigger";
/// An owner that no user namespace has unless somebody maps every number there is.
const NOBODY: u32 = u32::MAX - 1;

const SAFE: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// Devices of the machine that are made for a privileged container without being there yet: the
/// kernel makes a loop device when its node is opened.
const LOOP_CONTROL: &str = "/dev/loop-control";
const LOOP_MAJOR: u32 = 7;
const LOOPS: u32 = 8;
/// Deepest directory of /dev that is looked into.
const MAX_DEPTH: usize = 4;
/// What a container has of its own, whatever the machine has.
const OWN: [&str; 6] = [
    "/dev/console",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/shm",
    "/dev/mqueue",
    "/dev/tty",
];

/// Takes system requests from root without CAP_DAC_OVERRIDE over everybody, who could otherwise have
/// them from a fresh /proc.
pub(super) fn close_trigger() -> Result<(), Errno> {
    super::cgroup::mount_proc()?;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    rustix::fs::chown(TRIGGER, Some(uid), Some(gid))?;
    rustix::fs::chmod(TRIGGER, Mode::empty())
}

/// Whether what is covered and what is read-only is an ordinary container's.
pub(super) fn has_usual_paths(access: &Access) -> bool {
    access.masked_paths == MASKED_PATHS && access.read_only_paths == READ_ONLY_PATHS
}

/// Covers and protects paths below `root`, which is empty for the root itself. What is not there
/// needs neither.
pub(super) fn confine(access: &Access, root: &str) -> Result<(), Failure> {
    for path in &access.masked_paths {
        mask(root, path).map_err(failed(format_args!("cannot mask {path}")))?;
    }
    for path in &access.read_only_paths {
        protect(&format!("{root}{path}"))
            .map_err(failed(format_args!("cannot make {path} read-only")))?;
    }
    Ok(())
}

/// The same for what is below /sys alone.
pub(super) fn confine_sys(access: &Access, root: &str) -> Result<(), Failure> {
    let below = |paths: &[String]| -> Vec<String> {
        let paths = paths
            .iter()
            .filter(|path| Path::new(path).starts_with("/sys"));
        paths.cloned().collect()
    };
    let access = Access {
        masked_paths: below(&access.masked_paths),
        read_only_paths: below(&access.read_only_paths),
        ..Access::default()
    };
    confine(&access, root)
}

fn mask(root: &str, path: &str) -> Result<(), Errno> {
    let path = format!("{root}{path}");
    let stat = match rustix::fs::stat(path.as_str()) {
        Ok(stat) => stat,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => mount("tmpfs", path, "tmpfs", MountFlags::RDONLY, c"size=0"),
        _ => rustix::mount::mount_bind(format!("{root}/dev/null"), path),
    }
}

fn protect(path: &str) -> Result<(), Errno> {
    match mount_bind_recursive(path, path) {
        Ok(()) => mount_remount(path, MountFlags::BIND | MountFlags::RDONLY | SAFE, c""),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// The devices that this machine has, for a privileged container; none for any other. To be asked for
/// while the agent's root is still in sight.
pub(super) fn machine_devices(access: &Access) -> Vec<DeviceNode> {
    let mut found = Vec::new();
    if access.privileged {
        collect(Path::new("/dev"), 0, &mut found);
        if found.iter().any(|device| device.path == LOOP_CONTROL) {
            found.extend((0..LOOPS).map(|minor| DeviceNode {
                path: format!("/dev/loop{minor}"),
                kind: DeviceKind::Block,
                major: LOOP_MAJOR,
                minor,
                mode: 0o660,
                uid: 0,
                gid: 0,
                access: DeviceAccess::ALL,
            }));
        }
    }
    found
}

fn collect(directory: &Path, depth: usize, found: &mut Vec<DeviceNode>) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Some(name) = path.to_str().filter(|path| !OWN.contains(path)) else {
            continue;
        };
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let Ok(stat) = rustix::fs::statat(CWD, &path, flags) else {
            continue;
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice => DeviceKind::Char,
            FileType::BlockDevice => DeviceKind::Block,
            FileType::Directory if depth < MAX_DEPTH => {
                collect(&path, depth + 1, found);
                continue;
            }
            _ => continue,
        };
        found.push(DeviceNode {
            path: name.to_owned(),
            kind,
            major: rustix::fs::major(stat.st_rdev),
            minor: rustix::fs::minor(stat.st_rdev),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            access: DeviceAccess::ALL,
        });
    }
}

/// Makes nodes in the container's root.
pub(super) fn make_devices(devices: &[DeviceNode]) -> Result<(), Failure> {
    devices.iter().try_for_each(make_device)
}

fn make_device(device: &DeviceNode) -> Result<(), Failure> {
    let path = device.path.as_str();
    let what = || failed(format!("cannot make the device {path}"));
    let Some((parent, _)) = path.rsplit_once('/').filter(|_| path.starts_with('/')) else {
        return Err(setup_failure(format_args!(
            "cannot make the device {path}: the path is not absolute"
        )));
    };
    if !parent.is_empty() {
        paths::make_directories(parent).map_err(what())?;
    }
    let kind = match device.kind {
        DeviceKind::Char => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
    };
    let number = makedev(device.major, device.minor);
    let mode = Mode::from_raw_mode(device.mode & 0o7777);
    match rustix::fs::mknodat(CWD, path, kind, mode, number) {
        Ok(()) => {}
        // Of the usual ones.
        Err(Errno::EXIST) => {
            let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).map_err(what())?;
            let same = stat.st_rdev == number && FileType::from_raw_mode(stat.st_mode) == kind;
            return same.then_some(()).ok_or_else(|| what()(Errno::EXIST));
        }
        Err(errno) => return Err(what()(errno)),
    }
    let owner = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(CWD, path, Some(owner.0), Some(owner.1), flags).map_err(what())
}
