//! x86-64: an in-kernel interrupt controller, no firmware, no PIT, no ACPI.
//!
//! The guest enters its kernel in 64-bit mode (Linux x86 boot protocol, "64-bit boot protocol").
//! It finds its processors and the I/O APIC in an MP table, knows the TSC's frequency from
//! kvmclock, and takes its timer from the TSC deadline, so that there is nothing to calibrate and
//! no legacy timer to emulate. The kernel switches to x2APIC itself: handed over in that mode,
//! Linux 6.1 reads the APIC's id from memory that it has not mapped when there is an MP table.

mod boot_params;
mod cpuid;
mod descriptors;
pub(crate) mod layout;
mod mptable;
pub(crate) mod ports;
mod state;
mod vcpu;

pub(crate) use boot_params::{BootInfo, write_boot};
pub(crate) use cpuid::CpuModel;
pub(crate) use descriptors::descriptor_pages;
pub(crate) use state::{
    MachineState, VcpuState, can_restore, restore_chips, restore_time, restore_vcpu, save_machine,
    save_vcpu, state_msrs,
};
pub(crate) use vcpu::{instruction_pointer, setup_vcpu};

use crate::error::VmError;
use crate::vm::ioapic;
use kvm_ioctls::VmFd;

/// Kernel parameters that every guest of this machine needs.
///
/// With `panic=-1` a panicking kernel restarts the machine at once, and `reboot=k` makes every
/// restart a write to the keyboard controller's port, which [`ports`] understands.
pub(crate) const KERNEL_PARAMETERS: &str = "panic=-1 reboot=k";

/// What replaces the serial port's parameters when there is none: not even probing.
pub(crate) const NO_SERIAL_PARAMETERS: &str = "8250.nr_uarts=0";

/// What the serial port needs.
pub(crate) const SERIAL_PARAMETERS: &str = "console=ttyS0 8250.nr_uarts=1";

/// Create the interrupt controllers.
pub(crate) fn create_irqchip(vm: &VmFd) -> Result<(), VmError> {
    // Intel processors without unrestricted guests need three pages outside RAM for this; others
    // ignore it.
    vm.set_tss_address(layout::KVM_TSS)
        .map_err(VmError::kvm("KVM_SET_TSS_ADDR"))?;
    vm.create_irq_chip()
        .map_err(VmError::kvm("KVM_CREATE_IRQCHIP"))
}

/// Whether the guest masked every pin of its I/O APIC, as an orderly restart does and a panic
/// does not.
pub(crate) fn interrupts_torn_down(vm: &VmFd) -> bool {
    const MASKED: u64 = 1 << 16;
    let mut chip = kvm_bindings::kvm_irqchip {
        chip_id: kvm_bindings::KVM_IRQCHIP_IOAPIC,
        ..Default::default()
    };
    vm.get_irqchip(&mut chip).is_ok()
        && ioapic::redirections(&chip)
            .iter()
            .all(|entry| entry & MASKED != 0)
}
