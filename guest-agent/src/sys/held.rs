//! Things that are opened once and held so that the kernel leaves its own code alone.

use super::{Result, bpf, check};
use hullbox_session::guard::{DEVICE_HOOK, DEVICE_PROGRAM};
use rustix::fs::{Mode, OFlags};
use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

// linux/kvm.h: `_IO(0xae, …)`.
const KVM_CREATE_VM: libc::Ioctl = 0xae01;
const KVM_CREATE_VCPU: libc::Ioctl = 0xae41;
const KVM_CREATE_IRQCHIP: libc::Ioctl = 0xae60;

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
    let program = bpf::load(DEVICE_PROGRAM, &program)?;
    bpf::attach(cgroup, program.as_fd(), DEVICE_HOOK)
}

fn owned(fd: c_int) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
