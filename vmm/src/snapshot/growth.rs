//! Which pages of a snapshot its guests write to when they grow.
//!
//! Memory without contents is anonymous, and a guest that takes it gets huge pages. But it writes to
//! the kernel's descriptors of it as well. These have contents, so they are pages of the snapshot's
//! file, and each costs three exits: it is read, written to, and written to once more after the host
//! has copied it. For memory that will be taken first they are copied ahead, with what earlier guests
//! wrote to ([`super::touched`]). It is a hint and nothing more.

use crate::arch::{self, VcpuState};
use crate::memory::{Extent, GuestMemory, HUGE_PAGE, PAGE, Touched};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

/// Memory whose descriptors are copied ahead, in bytes; they take a 64th of it.
const AHEAD_BYTES: u64 = 8 << 20;

/// The descriptors of what a guest takes first, in runs.
pub(crate) fn descriptors(
    memory: &GuestMemory,
    saved: &[Extent],
    vcpu: &VcpuState,
) -> Vec<Touched> {
    let huge = HUGE_PAGE as u64;
    let mut runs: Vec<Touched> = Vec::new();
    for block in first_taken(memory, saved) {
        for (address, part) in memory.addresses_of(&block) {
            for page in arch::descriptor_pages(memory.ram(), vcpu, address, part.bytes.min(huge)) {
                // Elsewhere there is nothing to copy, and a page would be a huge one.
                let saved = |start: &u64| saved.iter().any(|extent| extent.holds(*start));
                let Some(start) = memory.offset_of(page).filter(saved) else {
                    continue;
                };
                match runs.last_mut() {
                    Some(Touched { pages, .. }) if pages.start + pages.bytes == start => {
                        pages.bytes += PAGE;
                    }
                    _ => runs.push(Touched {
                        pages: Extent { start, bytes: PAGE },
                        written: true,
                    }),
                }
            }
        }
    }
    runs
}

/// The huge pages without contents that Linux takes first: from the highest zone that there is, and
/// there from the bottom up.
fn first_taken(memory: &GuestMemory, saved: &[Extent]) -> impl Iterator<Item = Extent> {
    let huge = HUGE_PAGE as u64;
    let last = memory.ram().iter().last().map_or(0, |region| region.len());
    let mut at = memory.bytes() - last;
    let end = memory.bytes();
    let mut saved = saved.iter().peekable();
    let blocks = std::iter::from_fn(move || {
        // Both rise.
        while let Some(extent) = saved.peek().filter(|extent| extent.start < at + huge) {
            at = at.max(extent.start.saturating_add(extent.bytes));
            saved.next();
        }
        at = at.checked_next_multiple_of(huge)?;
        let block = Extent {
            start: at,
            bytes: huge,
        };
        at = at.checked_add(huge)?;
        (at <= end).then_some(block)
    });
    blocks.take((AHEAD_BYTES / huge) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::HugePages;
    use vm_memory::{Bytes, GuestAddress};

    const NOTHING: [u64; 0] = [];
    const HUGE: u64 = HUGE_PAGE as u64;

    fn extent(first_huge: u64, count: u64) -> Extent {
        Extent {
            start: first_huge * HUGE,
            bytes: count * HUGE,
        }
    }

    #[test]
    fn what_has_no_contents_is_taken_from_the_bottom_of_the_highest_zone() {
        let taken = |memory: &GuestMemory, saved: &[Extent]| -> Vec<u64> {
            first_taken(memory, saved)
                .map(|block| block.start / HUGE)
                .collect()
        };
        let small = GuestMemory::new(&[(0, 12 * HUGE)], HugePages::Never).unwrap();
        let saved = [extent(0, 3), extent(4, 2), extent(11, 1)];
        assert_eq!(taken(&small, &saved), [3, 6, 7, 8]);
        assert_eq!(taken(&small, &[extent(0, 9)]), [9, 10, 11]);
        assert_eq!(taken(&small, &[extent(0, 12)]), NOTHING);
        // Above the devices, and no more than there is to be ahead of.
        let ranges = [(0, 4 * HUGE), (1 << 32, 40 * HUGE)];
        let large = GuestMemory::new(&ranges, HugePages::Never).unwrap();
        let expected: Vec<u64> = (4..6).chain(7..9).collect();
        assert_eq!(taken(&large, &[extent(0, 2), extent(6, 1)]), expected);
        // Whatever a snapshot says.
        let wild = [
            Extent {
                start: u64::MAX,
                bytes: u64::MAX,
            },
            extent(0, 2),
            extent(1, 1),
        ];
        assert!(taken(&small, &wild).len() <= 12);
        let wild = [Extent {
            start: 4096,
            bytes: u64::MAX,
        }];
        assert_eq!(taken(&small, &wild), NOTHING);
    }

    #[test]
    fn their_descriptors_are_one_run() {
        let memory = GuestMemory::new(&[(0, 64 * HUGE)], HugePages::Never).unwrap();
        // Linux's page tables for its descriptors (see arch), with those at 126 MiB.
        let entries = [
            (0x1ea0, 0x2003),
            (0x2000, 0x3003),
            (0x3000, (63 * HUGE) | 0x83),
        ];
        for (at, entry) in entries {
            memory
                .ram()
                .write_obj::<u64>(entry, GuestAddress(at))
                .unwrap();
        }
        let vcpu = VcpuState::example_at(0x1000);
        let runs = descriptors(&memory, &[extent(0, 17), extent(62, 2)], &vcpu);
        let pages = Extent {
            start: 63 * HUGE + 17 * HUGE / 64,
            bytes: AHEAD_BYTES / 64,
        };
        assert_eq!(
            runs,
            [Touched {
                pages,
                written: true
            }]
        );
        // Where nothing was saved there is nothing to copy.
        let elsewhere = descriptors(&memory, &[extent(0, 17), extent(62, 1)], &vcpu);
        assert_eq!(elsewhere, []);
        // A guest whose tables tell nothing.
        let lost = VcpuState::example_at(0x5000);
        assert_eq!(descriptors(&memory, &[], &lost), []);
    }
}
