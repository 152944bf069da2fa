//! A virtual CPU's registers at its first instruction.

use super::cpuid::CpuModel;
use super::layout;
use crate::boot::BootError;
use crate::error::VmError;
use crate::memory::GuestRam;
use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs, kvm_segment, kvm_xcrs};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress};

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const MSR_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1;
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs on, write-back by default: the kernel need not set any up.
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;

const PAGE_PRESENT_WRITABLE: u64 = 3;
const PAGE_HUGE: u64 = 1 << 7;

/// `__BOOT_CS` and `__BOOT_DS` of the boot protocol.
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;

/// A flat segment.
fn segment(selector: u16, code: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        // Execute and read, or read and write; accessed.
        type_: if code { 11 } else { 3 },
        present: 1,
        dpl: 0,
        db: u8::from(!code),
        s: 1,
        l: u8::from(code),
        g: 1,
        avl: 0,
        unusable: 0,
        padding: 0,
    }
}

/// The task register must hold a busy TSS for VM entry in long mode.
fn task_segment() -> kvm_segment {
    kvm_segment {
        limit: 0xffff,
        type_: 11,
        present: 1,
        ..Default::default()
    }
}

/// Write GDT and page tables that map the first GiB to itself.
pub(super) fn write_tables(ram: &GuestRam) -> Result<(), BootError> {
    let mut bytes = Vec::with_capacity(4096);
    // Null, unused, 64-bit code, data: as the boot protocol numbers them.
    for descriptor in [0, 0, 0x00af_9b00_0000_ffff_u64, 0x00cf_9300_0000_ffff] {
        bytes.extend_from_slice(&descriptor.to_le_bytes());
    }
    let write =
        |bytes: &[u8], at: GuestAddress| ram.write_slice(bytes, at).map_err(|_| BootError::Tables);
    write(&bytes, layout::GDT)?;
    write(
        &(layout::PDPT.0 | PAGE_PRESENT_WRITABLE).to_le_bytes(),
        layout::PML4,
    )?;
    write(
        &(layout::PD.0 | PAGE_PRESENT_WRITABLE).to_le_bytes(),
        layout::PDPT,
    )?;
    bytes.clear();
    for index in 0..512u64 {
        let entry = index << 21 | PAGE_PRESENT_WRITABLE | PAGE_HUGE;
        bytes.extend_from_slice(&entry.to_le_bytes());
    }
    write(&bytes, layout::PD)
}

/// Prepare a virtual CPU. Only the first one gets an entry point; the others wait for it to wake
/// them.
pub(crate) fn setup_vcpu(
    vcpu: &VcpuFd,
    index: u8,
    model: &CpuModel,
    entry: Option<GuestAddress>,
) -> Result<(), VmError> {
    vcpu.set_cpuid2(&model.for_vcpu(index)?)
        .map_err(VmError::kvm("KVM_SET_CPUID2"))?;
    if let Some(xcr0) = model.xcr0() {
        // KVM corrects the sizes in CPUID leaf 0xd when it sees XCR0 change. Where it does not see
        // the guest's XSETBV (QEMU's emulated SVM cannot intercept it), the kernel would find
        // the sizes wrong and do without XSAVE, AVX and the like. So firmware's privilege is
        // used here: everything is on from the start.
        let mut xcrs = kvm_xcrs {
            nr_xcrs: 1,
            ..Default::default()
        };
        xcrs.xcrs[0].value = xcr0;
        vcpu.set_xcrs(&xcrs).map_err(VmError::kvm("KVM_SET_XCRS"))?;
    }
    let Some(entry) = entry else {
        return Ok(());
    };
    set_msrs(vcpu)?;
    let regs = kvm_regs {
        rflags: 2,
        rip: entry.0,
        rsi: layout::ZERO_PAGE.0,
        ..Default::default()
    };
    vcpu.set_regs(&regs).map_err(VmError::kvm("KVM_SET_REGS"))?;
    let mut sregs = vcpu.get_sregs().map_err(VmError::kvm("KVM_GET_SREGS"))?;
    let data = segment(DATA_SELECTOR, false);
    sregs.cs = segment(CODE_SELECTOR, true);
    sregs.ds = data;
    sregs.es = data;
    sregs.fs = data;
    sregs.gs = data;
    sregs.ss = data;
    sregs.tr = task_segment();
    sregs.gdt.base = layout::GDT.0;
    sregs.gdt.limit = 4 * 8 - 1;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
    sregs.cr3 = layout::PML4.0;
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_LME | EFER_LMA;
    vcpu.set_sregs(&sregs)
        .map_err(VmError::kvm("KVM_SET_SREGS"))
}

fn set_msrs(vcpu: &VcpuFd) -> Result<(), VmError> {
    let entry = |index, data| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    let entries = [
        entry(MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRING),
        entry(MSR_MTRR_DEF_TYPE, MTRR_WRITE_BACK),
    ];
    let msrs = Msrs::from_entries(&entries).map_err(|_| VmError::Kvm {
        what: "a list of MSRs",
        source: std::io::ErrorKind::InvalidInput.into(),
    })?;
    let set = vcpu.set_msrs(&msrs).map_err(VmError::kvm("KVM_SET_MSRS"))?;
    if set != entries.len() {
        return Err(VmError::Kvm {
            what: "an MSR that every x86-64 processor has",
            source: std::io::ErrorKind::Unsupported.into(),
        });
    }
    Ok(())
}

/// Where the virtual CPU is, for error messages.
pub(crate) fn instruction_pointer(vcpu: &VcpuFd) -> u64 {
    vcpu.get_regs().map_or(0, |regs| regs.rip)
}
