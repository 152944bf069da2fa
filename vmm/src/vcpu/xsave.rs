//! Setting the floating-point and vector registers, which kvm-ioctls leaves unsafe.

use crate::error::VmError;
use kvm_bindings::kvm_xsave;
use kvm_ioctls::VcpuFd;

/// Restore them.
pub(crate) fn set_xsave(vcpu: &VcpuFd, xsave: &kvm_xsave) -> Result<(), VmError> {
    // SAFETY: KVM reads no more than the structure's 4096 bytes: more belong only to features that
    // a process has to ask for (`ARCH_REQ_XCOMP_GUEST_PERM`), and this one does not.
    unsafe { vcpu.set_xsave(xsave) }.map_err(VmError::kvm("KVM_SET_XSAVE"))
}
