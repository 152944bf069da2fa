//! TAP devices (`linux/if_tun.h`).

use super::last_error;
use crate::frame::VNET_BYTES;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETPERSIST: libc::c_ulong = 0x4004_54cb;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
const TUNSETVNETLE: libc::c_ulong = 0x4004_54dc;
const TUNSETCARRIER: libc::c_ulong = 0x4004_54e2;
const IFF_TAP: libc::c_short = 0x0002;
const IFF_NO_PI: libc::c_short = 0x1000;
const IFF_VNET_HDR: libc::c_short = 0x4000;
const TUN_F_CSUM: libc::c_ulong = 1;
const TUN_F_TSO4: libc::c_ulong = 2;
const TUN_F_TSO6: libc::c_ulong = 4;

/// Opens a TAP device in the calling thread's network namespace, makes it if it is not there, and
/// gives it virtio-net headers of 12 bytes, checksum offload and TSO. Needs CAP_NET_ADMIN there.
///
/// # Errors
/// `EINVAL` for a name that is empty or longer than 15 bytes; else as `open(2)` and `ioctl(2)`.
pub fn open_tap(name: &str) -> Result<OwnedFd, Errno> {
    let fits = !name.is_empty() && name.len() < libc::IFNAMSIZ && !name.contains('\0');
    if !fits {
        return Err(Errno::INVAL);
    }
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let tap = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
    // SAFETY: an ifreq is plain data, of which zeroes are a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    // SAFETY: TUNSETIFF reads and writes an ifreq, which lives for the whole call.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETIFF, &raw mut request) };
    if result != 0 {
        return Err(last_error());
    }
    set_int(&tap, TUNSETVNETHDRSZ, VNET_BYTES as libc::c_int)?;
    set_int(&tap, TUNSETVNETLE, 1)?;
    set_tap_offloads(&tap, true)?;
    Ok(tap)
}

/// Has a TAP device stay when its last descriptor is closed, until its network namespace goes. Without
/// it, whoever closes that descriptor waits while the kernel removes the device.
///
/// # Errors
/// As `ioctl(2)`.
pub fn keep_tap(tap: impl AsFd) -> Result<(), Errno> {
    // SAFETY: TUNSETPERSIST takes its argument by value.
    let result = unsafe { libc::ioctl(tap.as_fd().as_raw_fd(), TUNSETPERSIST, 1) };
    if result == 0 {
        Ok(())
    } else {
        Err(last_error())
    }
}

/// Turns the offloads of a TAP device on or off: whether its namespace may send segments of
/// 64 KiB and partial checksums.
///
/// # Errors
/// As `ioctl(2)`.
pub fn set_tap_offloads(tap: impl AsFd, on: bool) -> Result<(), Errno> {
    let offloads = if on {
        TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6
    } else {
        0
    };
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    let result = unsafe { libc::ioctl(tap.as_fd().as_raw_fd(), TUNSETOFFLOAD, offloads) };
    if result == 0 {
        Ok(())
    } else {
        Err(last_error())
    }
}

/// Plugs a TAP device's cable in or out, as its namespace sees it: without, nothing is sent. Linux 5.0
/// and later.
///
/// # Errors
/// As `ioctl(2)`.
pub fn set_tap_carrier(tap: impl AsFd, on: bool) -> Result<(), Errno> {
    set_int(tap, TUNSETCARRIER, on.into())
}

fn set_int(tap: impl AsFd, request: libc::c_ulong, value: libc::c_int) -> Result<(), Errno> {
    // SAFETY: all requests that come here read an int, which lives for the whole call.
    let result = unsafe { libc::ioctl(tap.as_fd().as_raw_fd(), request, &raw const value) };
    if result == 0 {
        Ok(())
    } else {
        Err(last_error())
    }
}
