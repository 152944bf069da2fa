//! What makes a guest differ from all others that began as the same copy of memory.

use super::sysfs;
use crate::failure::{failed, setup as setup_failure};
use crate::sys;
use hullbox_protocol::{ENTROPY_BYTES, Failure, Hygiene};
use rustix::fs::{Mode, OFlags};
use std::os::fd::AsFd;

/// Ours (kernel-config/boot-id.c): whatever is written, the kernel makes a new boot id for the next
/// reader.
const FORGET_BOOT_ID: &str = "module/random/parameters/forget_boot_id";

/// Makes this guest's random numbers its own, whoever began as the same copy of memory.
pub(super) fn reseed(entropy: &[u8], done: &mut Hygiene) -> Result<(), Failure> {
    if entropy.is_empty() {
        return Ok(());
    }
    let entropy = <&[u8; ENTROPY_BYTES]>::try_from(entropy)
        .map_err(|_| setup_failure("entropy of a wrong length"))?;
    let what = || failed("cannot reseed the random number generator");
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::open("/dev/random", flags, Mode::empty()).map_err(what())?;
    sys::add_entropy(device.as_fd(), entropy).map_err(what())?;
    done.entropy_added = true;
    sys::reseed_generator(device.as_fd()).map_err(what())?;
    done.generator_reseeded = true;
    Ok(())
}

/// Has the kernel choose another boot id, which it makes of the generator that was reseeded.
///
/// Nothing is mounted over /proc/sys/kernel/random/boot_id: a mount anywhere in /proc forbids user
/// namespaces in the container a /proc of their own (fs/namespace.c, `mount_too_revealing`).
pub(super) fn forget_boot_id() -> Result<(), Failure> {
    let what = || failed("cannot give the copy a boot id");
    let file = sysfs::open(FORGET_BOOT_ID, OFlags::WRONLY).map_err(what())?;
    rustix::io::write(&file, b"1").map(drop).map_err(what())
}
