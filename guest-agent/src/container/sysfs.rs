//! Files of sysfs for the agent itself, which has no mount of it: the workload's is its own.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use std::os::fd::OwnedFd;

/// Where it is mounted for as long as a file is being opened.
const SYSFS: &str = "/s";

/// Opens the file of this path below sysfs.
pub(super) fn open(path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdir(SYSFS, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    mount("sysfs", SYSFS, "sysfs", MountFlags::empty(), None)?;
    // All mounts share one superblock, and the workload's, which is read-only, may have been first.
    // Its mount stays read-only.
    let writable = mount_remount(SYSFS, MountFlags::empty(), c"");
    let path = format!("{SYSFS}/{path}");
    let file =
        writable.and_then(|()| rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()));
    // What is open stays; nobody else is to see this mount.
    let _ = unmount(SYSFS, UnmountFlags::DETACH);
    file
}
