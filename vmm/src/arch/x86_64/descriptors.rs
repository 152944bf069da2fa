//! Where a Linux guest keeps its descriptors of pages (`struct page`).

use super::VcpuState;
use crate::memory::{GuestRam, PAGE};
use vm_memory::{Bytes, GuestAddress};

/// Virtual address of the descriptor of page 0, with four levels of page tables and no randomisation
/// (Documentation/arch/x86/x86_64/mm.rst, "virtual memory map"). Our kernel is built so.
const VMEMMAP: u64 = 0xffff_ea00_0000_0000;
/// Size of a descriptor.
const DESCRIPTOR_BYTES: u64 = 64;

/// The guest physical pages that hold the descriptors of a range of guest memory, as far as the page
/// tables of this virtual CPU tell. Nothing of it is trusted: a guest may have written anything.
pub(crate) fn descriptor_pages(
    ram: &GuestRam,
    vcpu: &VcpuState,
    start: GuestAddress,
    bytes: u64,
) -> impl Iterator<Item = GuestAddress> {
    let of = |address: u64| VMEMMAP.saturating_add(address / PAGE * DESCRIPTOR_BYTES);
    let first = of(start.0) & !(PAGE - 1);
    let end = of(start.0.saturating_add(bytes));
    let root = vcpu.page_table_root();
    (first..end)
        .step_by(PAGE as usize)
        .filter_map(move |address| translate(ram, root, address))
        .map(GuestAddress)
}

/// What a virtual address is in guest physical memory (Intel SDM, volume 3, 4-level paging).
fn translate(ram: &GuestRam, root: u64, address: u64) -> Option<u64> {
    const PRESENT: u64 = 1;
    const LARGE: u64 = 1 << 7;
    const FRAME: u64 = 0x000f_ffff_ffff_f000;
    let mut table = root & FRAME;
    for shift in [39, 30, 21, 12] {
        let index = (address >> shift) & 0x1ff;
        let entry: u64 = ram.read_obj(GuestAddress(table + index * 8)).ok()?;
        if entry & PRESENT == 0 {
            return None;
        }
        let inside = (1 << shift) - 1;
        if shift == 12 || (shift < 39 && entry & LARGE != 0) {
            return Some((entry & FRAME & !inside) | (address & inside));
        }
        table = entry & FRAME;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{GuestMemory, HugePages};

    const NOTHING: [u64; 0] = [];

    fn memory() -> GuestMemory {
        GuestMemory::new(&[(0, 8 << 20)], HugePages::Never).unwrap()
    }

    fn pages(memory: &GuestMemory, root: u64, start: u64, bytes: u64) -> Vec<u64> {
        let vcpu = VcpuState::example_at(root);
        descriptor_pages(memory.ram(), &vcpu, GuestAddress(start), bytes)
            .map(|address| address.0)
            .collect()
    }

    /// Tables at 0x1000 that map the descriptors of the first 128 MiB at 4 MiB.
    fn map_descriptors(memory: &GuestMemory, last: u64) {
        let entries = [
            (0x1000 + ((VMEMMAP >> 39) & 0x1ff) * 8, 0x2003),
            (0x2000, 0x3003),
            (0x3000, last),
            (0x4000, 0x50_0003),
            (0x4000 + 8 * 7, 0x60_0003),
        ];
        for (at, entry) in entries {
            memory
                .ram()
                .write_obj::<u64>(entry, GuestAddress(at))
                .unwrap();
        }
    }

    #[test]
    fn descriptors_are_found_through_large_and_small_pages() {
        let memory = memory();
        map_descriptors(&memory, 0x40_0083);
        let huge = 2 << 20;
        let expected: Vec<u64> = (0..8).map(|page| 0x40_8000 + page * PAGE).collect();
        assert_eq!(pages(&memory, 0x1000, huge, huge), expected);
        // A register holds more than the root.
        assert_eq!(pages(&memory, 0x1018, huge, huge), expected);
        map_descriptors(&memory, 0x4003);
        assert_eq!(pages(&memory, 0x1000, 0, huge), [0x50_0000, 0x60_0000]);
    }

    #[test]
    fn tables_that_lead_nowhere_tell_nothing() {
        let memory = memory();
        assert_eq!(pages(&memory, 0x1000, 0, 2 << 20), NOTHING);
        assert_eq!(pages(&memory, u64::MAX, 0, 2 << 20), NOTHING);
        let fill = |entry: u64| {
            for index in 0..512 {
                let at = GuestAddress(0x1000 + index * 8);
                memory.ram().write_obj(entry, at).unwrap();
            }
            pages(&memory, 0x1000, 0, 2 << 20)
        };
        // A table that is its own entry, and one outside of all memory.
        assert_eq!(fill(0x1003), [0x1000; 8]);
        assert_eq!(fill(0x00ff_ffff_ffff_f003), NOTHING);
        assert_eq!(pages(&memory, 0x1000, u64::MAX, u64::MAX), NOTHING);
    }
}
