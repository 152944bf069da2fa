//! Files of sysfs for the agent itself, which has no mount of it: the workload's is its own.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
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
    let path = format!("{SYSFS}/{path}");
    let file = rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty());
    // What is open stays; nobody else is to see this mount.
    let _ = unmount(SYSFS, UnmountFlags::DETACH);
    file
}
