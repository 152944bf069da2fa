//! Things that are opened once and held so that the kernel leaves its own code alone.

use super::{Result, check, last_errno};
use rustix::fs::{Mode, OFlags};
use std::ffi::{c_int, c_long};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

// linux/kvm.h: `_IO(0xae, …)`.
const KVM_CREATE_VM: libc::Ioctl = 0xae01;
const KVM_CREATE_VCPU: libc::Ioctl = 0xae41;
const KVM_CREATE_IRQCHIP: libc::Ioctl = 0xae60;

// linux/bpf.h.
const BPF_PROG_LOAD: c_int = 5;
const BPF_PROG_ATTACH: c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// A virtual machine with one CPU that never runs. It lives as long as the descriptors.
pub fn idle_vm() -> Result<[OwnedFd; 2]> {
    let kvm = rustix::fs::open("/dev/kvm", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let create = |fd: c_int, request| {
        // SAFETY: these requests take a number, no pointer.
        check(unsafe { libc::ioctl(fd, request, 0) })
    };
    let vm = owned(create(kvm.as_raw_fd(), KVM_CREATE_VM)?);
    create(vm.as_raw_fd(), KVM_CREATE_IRQCHIP)?;
    let vcpu = owned(create(vm.as_raw_fd(), KVM_CREATE_VCPU)?);
    Ok([vm, vcpu])
}

/// Attaches a filter to a control group that allows every device.
pub fn allow_devices(cgroup: BorrowedFd<'_>) -> Result<()> {
    // r0 = 1; exit
    let program: [u64; 2] = [0x0000_0001_0000_00b7, 0x95];
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
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        instructions: 2,
        program: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
    };
    let filter = owned(bpf(BPF_PROG_LOAD, &load)?);
    /// The same for BPF_PROG_ATTACH.
    #[repr(C)]
    struct Attach {
        target: c_int,
        filter: c_int,
        kind: u32,
        flags: u32,
    }
    let attach = Attach {
        target: cgroup.as_raw_fd(),
        filter: filter.as_raw_fd(),
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &attach).map(drop)
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

fn owned(fd: c_int) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
