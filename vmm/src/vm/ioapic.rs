//! What KVM says of an I/O APIC, in a union.

/// The redirection entries in KVM's image of the I/O APIC.
pub(crate) fn redirections(chip: &kvm_bindings::kvm_irqchip) -> [u64; 24] {
    // SAFETY: every bit pattern is valid for every member of this union of integers, all of which
    // `KVM_GET_IRQCHIP` or `Default` initialised.
    let state = unsafe { chip.chip.ioapic };
    // SAFETY: as above; `bits` covers the whole entry.
    state.redirtbl.map(|entry| unsafe { entry.bits })
}
