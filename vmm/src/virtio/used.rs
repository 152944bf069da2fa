//! Used buffers that the driver sees all at once.
//!
//! A frame may fill several buffers, and a driver that is told of the first must find the others
//! (virtio 1.2, section 5.1.6.4.1). `virtio_queue` shows each by itself, so that what it would do
//! for one is done here for several: a queue whose buffers go back this way must not have any given
//! back by [`QueueT::add_used`].

use crate::memory::GuestRam;
use std::sync::atomic::{Ordering, fence};
use virtio_queue::{Error, Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

/// Bytes before the entries of either ring (virtio 1.2, sections 2.7.6 and 2.7.8).
const RING_HEADER: u64 = 4;
/// Where a ring's index is.
const INDEX: u64 = 2;
const AVAIL_ENTRY: u64 = 2;
const USED_ENTRY: u64 = 8;

/// A buffer that goes back to the driver: the number of its chain, and the bytes written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) head: u16,
    pub(crate) bytes: u32,
}

/// Gives buffers back, and knows until where the driver was asked whether it wants to know.
#[derive(Debug)]
pub(crate) struct UsedRing {
    told: u16,
}

impl UsedRing {
    /// For a queue whose driver has been told of everything.
    pub(crate) fn new(queue: &Queue) -> Self {
        Self {
            told: queue.next_used(),
        }
    }

    /// Give buffers back. The driver sees all of them or none.
    pub(crate) fn add(ram: &GuestRam, queue: &mut Queue, used: &[Used]) -> Result<(), Error> {
        let entries = queue.used_ring() + RING_HEADER;
        let mut next = queue.next_used();
        for buffer in used {
            if buffer.head >= queue.size() {
                return Err(Error::InvalidDescriptorIndex);
            }
            let at = GuestAddress(entries + u64::from(next % queue.size()) * USED_ENTRY);
            let entry = u64::from(buffer.head) | u64::from(buffer.bytes) << 32;
            ram.write_obj(entry.to_le(), at)
                .map_err(Error::GuestMemory)?;
            next = next.wrapping_add(1);
        }
        queue.set_next_used(next);
        let index = GuestAddress(queue.used_ring() + INDEX);
        ram.store(next.to_le(), index, Ordering::Release)
            .map_err(Error::GuestMemory)
    }

    /// Whether the driver wants to know of the buffers that went back since this was last asked
    /// (virtio 1.2, section 2.7.7). Who hears so has to interrupt it.
    pub(crate) fn is_due(&mut self, ram: &GuestRam, queue: &Queue) -> bool {
        let before = std::mem::replace(&mut self.told, queue.next_used());
        if before == self.told {
            return false;
        }
        if !queue.event_idx_enabled() {
            return true;
        }
        // The driver writes where it wants to be interrupted and then looks at the index once more.
        fence(Ordering::SeqCst);
        let event = queue.avail_ring() + RING_HEADER + u64::from(queue.size()) * AVAIL_ENTRY;
        let wanted: u16 = match ram.load(GuestAddress(event), Ordering::Relaxed) {
            Ok(wanted) => u16::from_le(wanted),
            Err(_) => return true,
        };
        self.told.wrapping_sub(wanted).wrapping_sub(1) < self.told.wrapping_sub(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::testing::{Ring, ram};

    const fn used(head: u16, bytes: u32) -> Used {
        Used { head, bytes }
    }

    #[test]
    fn entries_wrap_and_the_index_moves_once() {
        let ram = ram();
        let mut ring = Ring::new(&ram, 0, 4);
        ring.start_at(u16::MAX - 1);
        let mut queue = ring.queue();
        queue.set_next_used(u16::MAX - 1);
        UsedRing::add(
            &ram,
            &mut queue,
            &[used(3, 10), used(0, u32::MAX), used(2, 0)],
        )
        .unwrap();
        assert_eq!((ring.used_index(), queue.next_used()), (1, 1));
        assert_eq!(ring.take(), Some((3, 10)));
        assert_eq!(ring.take(), Some((0, u32::MAX)));
        assert_eq!(ring.take(), Some((2, 0)));
        // A chain that no queue of this size has: of such a lot nothing is seen.
        assert!(UsedRing::add(&ram, &mut queue, &[used(1, 1), used(4, 1)]).is_err());
        assert_eq!((ring.used_index(), queue.next_used()), (1, 1));
        assert!(UsedRing::add(&ram, &mut queue, &[]).is_ok());
        assert_eq!(ring.used_index(), 1);
    }

    #[test]
    fn the_driver_is_interrupted_where_it_wants_to_be() {
        let ram = ram();
        let ring = Ring::new(&ram, 0, 8);
        let mut queue = ring.queue();
        let mut back = UsedRing::new(&queue);
        assert!(!back.is_due(&ram, &queue));
        UsedRing::add(&ram, &mut queue, &[used(0, 0)]).unwrap();
        // Without event indexes, always.
        assert!(back.is_due(&ram, &queue));
        assert!(!back.is_due(&ram, &queue));
        queue.set_event_idx(true);
        // At the fourth buffer: the second and third are nothing new to it.
        ring.set_used_event(3);
        UsedRing::add(&ram, &mut queue, &[used(0, 0), used(1, 0)]).unwrap();
        assert!(!back.is_due(&ram, &queue));
        // The fourth and fifth together are.
        UsedRing::add(&ram, &mut queue, &[used(0, 0), used(1, 0)]).unwrap();
        assert!(back.is_due(&ram, &queue));
        UsedRing::add(&ram, &mut queue, &[used(0, 0)]).unwrap();
        assert!(!back.is_due(&ram, &queue));
    }
}
