//! BPF programs on control groups.

use super::{Result, last_errno};
use std::ffi::{c_int, c_long};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

// linux/bpf.h.
const PROG_LOAD: c_int = 5;
const PROG_ATTACH: c_int = 8;
const ALLOW_MULTI: u32 = 2;

/// Loads a program of a type, after the kernel has verified it.
pub fn load(kind: u32, program: &[u64]) -> Result<OwnedFd> {
    let license = c"Apache-2.0";
    /// The beginning of `union bpf_attr` for BPF_PROG_LOAD.
    #[repr(C)]
    struct Load {
        kind: u32,
        instructions: u32,
        program: u64,
        license: u64,
    }
    let load = Load {
        kind,
        instructions: program.len().try_into().unwrap_or(u32::MAX),
        program: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
    };
    let fd = bpf(PROG_LOAD, &load)?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program to a control group, for as long as that lives.
pub fn attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>, hook: u32) -> Result<()> {
    /// The same for BPF_PROG_ATTACH.
    #[repr(C)]
    struct Attach {
        target: c_int,
        program: c_int,
        hook: u32,
        flags: u32,
    }
    let attach = Attach {
        target: cgroup.as_raw_fd(),
        program: program.as_raw_fd(),
        hook,
        flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &attach).map(drop)
}

fn bpf<T>(command: c_int, attributes: &T) -> Result<c_int> {
    let size: c_long = size_of::<T>().try_into().unwrap_or(0);
    // SAFETY: the attributes are valid for their size, and so is what they point to, for the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size) };
    c_int::try_from(result)
        .ok()
        .filter(|result| *result >= 0)
        .ok_or_else(last_errno)
}
