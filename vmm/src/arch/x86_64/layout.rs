//! Where things are in guest physical memory.
//!
//! ```text
//! 0x0000_0500  GDT
//! 0x0000_7000  zero page (boot_params)
//! 0x0000_8000  setup_data: the RNG seed
//! 0x0000_9000  PML4, PDPT, PD
//! 0x0002_0000  kernel command line
//! 0x0009_fc00  MP table, to 640 KiB
//! 0x0010_0000  RAM for the kernel to use, up to 3 GiB
//! 0xd000_0000  virtio devices, a page each
//! 0xfffb_d000  KVM's own pages on Intel
//! 0x1_0000_0000  the rest of RAM
//! ```

use vm_memory::GuestAddress;

pub(crate) const GDT: GuestAddress = GuestAddress(0x500);
pub(crate) const ZERO_PAGE: GuestAddress = GuestAddress(0x7000);
pub(crate) const SETUP_DATA: GuestAddress = GuestAddress(0x8000);
pub(crate) const PML4: GuestAddress = GuestAddress(0x9000);
pub(crate) const PDPT: GuestAddress = GuestAddress(0xa000);
pub(crate) const PD: GuestAddress = GuestAddress(0xb000);
pub(crate) const CMDLINE: GuestAddress = GuestAddress(0x2_0000);
/// End of the low memory that the kernel may use; the MP table begins here.
pub(crate) const LOW_RAM_END: u64 = 0x9_fc00;
/// Where RAM begins again after the hole for BIOS and VGA.
pub(crate) const HIGH_RAM: u64 = 0x10_0000;
/// Where RAM makes room for devices below 4 GiB.
pub(crate) const GAP_START: u64 = 0xc000_0000;
/// Where RAM goes on.
pub(crate) const GAP_END: u64 = 1 << 32;
/// The first device's registers.
pub(crate) const MMIO_BASE: u64 = 0xd000_0000;
pub(crate) const LAPIC: u32 = 0xfee0_0000;
pub(crate) const IOAPIC: u32 = 0xfec0_0000;
pub(crate) const KVM_TSS: usize = 0xfffb_d000;
/// Pins of the I/O APIC.
pub(crate) const IOAPIC_PINS: u8 = 24;

/// Interrupt of the serial port, as on every PC.
pub(crate) const SERIAL_IRQ: u32 = 4;

/// Interrupt of the virtio device with this index: those that a PC gives to nothing a guest of
/// ours could have.
pub(crate) fn device_irq(index: usize) -> u32 {
    const IRQS: [u32; 14] = [5, 6, 7, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19, 20];
    // The number of devices is limited to fewer than that.
    IRQS[index % IRQS.len()]
}

/// Guest memory of this size as `(start, length)` ranges.
pub(crate) fn ram_ranges(bytes: u64) -> Vec<(u64, u64)> {
    if bytes <= GAP_START {
        vec![(0, bytes)]
    } else {
        vec![(0, GAP_START), (GAP_END, bytes - GAP_START)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_leaves_the_gap_free() {
        assert_eq!(ram_ranges(GAP_START), [(0, GAP_START)]);
        assert_eq!(
            ram_ranges(GAP_START + 4096),
            [(0, GAP_START), (GAP_END, 4096)]
        );
        assert_eq!(ram_ranges(16 << 30), [(0, GAP_START), (GAP_END, 13 << 30)]);
    }
}
