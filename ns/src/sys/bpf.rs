//! Programs that judge access to devices.

use super::check;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::io;

/// Loads a BPF program that judges access to devices (`BPF_PROG_TYPE_CGROUP_DEVICE`).
///
/// # Errors
/// Failure of `bpf`, the verifier's refusal for one.
pub fn load_device_program(instructions: &[u64]) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    /// The first fields of `union bpf_attr` for BPF_PROG_LOAD.
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log: [u64; 3],
    }
    let license = c"Apache-2.0";
    let attr = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log: [0; 3],
    };
    // SAFETY: `attr` and what it points to (instructions and licence, of the lengths given)
    // outlive the call, which only reads them.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attr,
            size_of::<Load>(),
        )
    })?;
    let fd = RawFd::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel has just made this descriptor, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a device program to a cgroup, for as long as the cgroup lives.
///
/// # Errors
/// Failure of `bpf`.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    const BPF_PROG_ATTACH: libc::c_int = 8;
    const BPF_CGROUP_DEVICE: u32 = 6;
    const BPF_F_ALLOW_MULTI: u32 = 2;
    let attr: [u32; 5] = [
        u32::try_from(cgroup.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?,
        u32::try_from(program.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?,
        BPF_CGROUP_DEVICE,
        BPF_F_ALLOW_MULTI,
        0,
    ];
    // SAFETY: `attr` has the fields of `union bpf_attr` for BPF_PROG_ATTACH, which the call
    // only reads.
    check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_ATTACH,
            attr.as_ptr(),
            size_of_val(&attr),
        )
    })
    .map(drop)
}
