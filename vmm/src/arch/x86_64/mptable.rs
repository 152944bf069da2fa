//! The MP table, in which a kernel without ACPI finds processors and the I/O APIC
//! (Intel MultiProcessor Specification 1.4, chapter 4).

use super::layout;
use crate::boot::BootError;
use vm_memory::{Bytes, GuestAddress};

const SPEC_REVISION: u8 = 4;
const APIC_VERSION: u8 = 0x14;
const ENTRY_PROCESSOR: u8 = 0;
const ENTRY_BUS: u8 = 1;
const ENTRY_IOAPIC: u8 = 2;
const ENTRY_INTERRUPT: u8 = 3;
const ENTRY_LOCAL_INTERRUPT: u8 = 4;
const CPU_ENABLED: u8 = 1;
const CPU_BOOTSTRAP: u8 = 2;
const INTERRUPT_NMI: u8 = 1;
const INTERRUPT_EXTINT: u8 = 3;
const ISA_BUS: u8 = 0;
const ALL_LOCAL_APICS: u8 = 0xff;
const FLOATING_POINTER_LEN: usize = 16;
const HEADER_LEN: usize = 44;

/// Make the bytes of a table balance: all of them add up to 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0u8, |sum, byte| sum.wrapping_add(*byte))
        .wrapping_neg()
}

/// The floating pointer structure and, directly after it, the configuration table.
pub(super) fn build(vcpus: u8, base: u32) -> Result<Vec<u8>, BootError> {
    let mut entries = Vec::new();
    let mut count = 0u16;
    for cpu in 0..vcpus {
        let flags = CPU_ENABLED | if cpu == 0 { CPU_BOOTSTRAP } else { 0 };
        entries.extend_from_slice(&[ENTRY_PROCESSOR, cpu, APIC_VERSION, flags]);
        entries.extend_from_slice(&0x600u32.to_le_bytes());
        // On-chip APIC and FPU.
        entries.extend_from_slice(&0x201u32.to_le_bytes());
        entries.extend_from_slice(&[0; 8]);
        count += 1;
    }
    entries.extend_from_slice(&[ENTRY_BUS, ISA_BUS]);
    entries.extend_from_slice(b"ISA   ");
    let ioapic_id = vcpus;
    entries.extend_from_slice(&[ENTRY_IOAPIC, ioapic_id, APIC_VERSION, 1]);
    entries.extend_from_slice(&layout::IOAPIC.to_le_bytes());
    for pin in 0..layout::IOAPIC_PINS {
        // Polarity and trigger as the bus has them: ISA is edge triggered, active high.
        entries.extend_from_slice(&[ENTRY_INTERRUPT, 0, 0, 0, ISA_BUS, pin, ioapic_id, pin]);
    }
    entries.extend_from_slice(&[
        ENTRY_LOCAL_INTERRUPT,
        INTERRUPT_EXTINT,
        0,
        0,
        ISA_BUS,
        0,
        0,
        0,
    ]);
    entries.extend_from_slice(&[
        ENTRY_LOCAL_INTERRUPT,
        INTERRUPT_NMI,
        0,
        0,
        ISA_BUS,
        0,
        ALL_LOCAL_APICS,
        1,
    ]);
    count += 2 + u16::from(layout::IOAPIC_PINS) + 2;

    let length = u16::try_from(HEADER_LEN + entries.len()).map_err(|_| BootError::Tables)?;
    let mut table = Vec::with_capacity(usize::from(length));
    table.extend_from_slice(b"PCMP");
    table.extend_from_slice(&length.to_le_bytes());
    table.extend_from_slice(&[SPEC_REVISION, 0]);
    table.extend_from_slice(b"HULLBOX ");
    table.extend_from_slice(b"MICROVM     ");
    table.extend_from_slice(&[0; 6]);
    table.extend_from_slice(&count.to_le_bytes());
    table.extend_from_slice(&layout::LAPIC.to_le_bytes());
    table.extend_from_slice(&[0; 4]);
    table.extend_from_slice(&entries);
    table[7] = checksum(&table);

    let mut pointer = Vec::with_capacity(FLOATING_POINTER_LEN + table.len());
    pointer.extend_from_slice(b"_MP_");
    pointer.extend_from_slice(&(base + FLOATING_POINTER_LEN as u32).to_le_bytes());
    pointer.extend_from_slice(&[1, SPEC_REVISION, 0, 0, 0, 0, 0, 0]);
    pointer[10] = checksum(&pointer);
    pointer.extend_from_slice(&table);
    Ok(pointer)
}

/// Write the table into the last KiB below 640 KiB, where kernels look for it.
pub(super) fn write<M: Bytes<GuestAddress>>(memory: &M, vcpus: u8) -> Result<(), BootError> {
    let base = u32::try_from(layout::LOW_RAM_END).map_err(|_| BootError::Tables)?;
    let table = build(vcpus, base)?;
    if table.len() > 1024 {
        return Err(BootError::Tables);
    }
    memory
        .write_slice(&table, GuestAddress(layout::LOW_RAM_END))
        .map_err(|_| BootError::Tables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_all_sizes_balance_and_fit() {
        for vcpus in 1..=crate::config::MAX_VCPUS {
            let bytes = build(vcpus, 0x9_fc00).unwrap();
            assert!(bytes.len() <= 1024, "{vcpus} vCPUs take {}", bytes.len());
            let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
            assert_eq!(sum(&bytes[..16]), 0);
            assert_eq!(sum(&bytes[16..]), 0);
            let length = usize::from(u16::from_le_bytes([bytes[20], bytes[21]]));
            assert_eq!(length, bytes.len() - 16);
            assert_eq!(bytes[16 + 34], vcpus + 28);
        }
    }
}
