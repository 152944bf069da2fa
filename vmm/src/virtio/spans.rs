//! A descriptor chain's guest memory by its addresses, for requests that are under way for a while.
//!
//! What is noted here was checked when the chain was taken, as in [`super::chain`]; the driver may
//! rewrite its descriptors afterwards and changes nothing.

use super::chain::{BadChain, MAX_PIECES};
use crate::memory::{GuestRam, Iovecs};
use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

/// Ranges of guest memory that count as one run of bytes.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    /// In guest memory from end to end.
    list: Vec<(GuestAddress, usize)>,
    bytes: usize,
}

/// The ranges of a chain: those that the device reads, and those that it writes.
pub(crate) fn spans_of(
    chain: &mut DescriptorChain<&GuestRam>,
    ram: &GuestRam,
) -> Result<(Spans, Spans), BadChain> {
    let (mut readable, mut writable) = (Spans::default(), Spans::default());
    for (count, descriptor) in chain.enumerate() {
        // Those without bytes are no ranges, and a table can have 65535.
        if count == MAX_PIECES {
            return Err(BadChain);
        }
        let spans = if descriptor.is_write_only() {
            &mut writable
        } else if writable.list.is_empty() {
            &mut readable
        } else {
            return Err(BadChain);
        };
        spans.push(ram, descriptor.addr(), descriptor.len() as usize)?;
    }
    Ok((readable, writable))
}

impl Spans {
    fn push(&mut self, ram: &GuestRam, start: GuestAddress, bytes: usize) -> Result<(), BadChain> {
        if bytes == 0 {
            return Ok(());
        }
        if !ram.check_range(start, bytes) {
            return Err(BadChain);
        }
        self.bytes += bytes;
        match self.list.last_mut() {
            // Pages of a large buffer are often neighbours.
            Some((before, length)) if before.0.checked_add(*length as u64) == Some(start.0) => {
                *length += bytes;
            }
            _ => self.list.push((start, bytes)),
        }
        Ok(())
    }

    /// Length of the run.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The parts that make up `bytes` bytes from `skip` on, or as much of it as there is.
    fn parts(&self, skip: usize, bytes: usize) -> impl Iterator<Item = (GuestAddress, usize)> {
        let (mut skip, mut left) = (skip, bytes);
        self.list.iter().filter_map(move |&(start, length)| {
            let from = skip.min(length);
            skip -= from;
            let take = left.min(length - from);
            left -= take;
            (take > 0).then_some((GuestAddress(start.0 + from as u64), take))
        })
    }

    /// Add so much of the run to the pieces of a system call.
    pub(crate) fn gather<'a>(
        &self,
        ram: &'a GuestRam,
        skip: usize,
        bytes: usize,
        vecs: &mut Iovecs<'a>,
    ) {
        for (start, length) in self.parts(skip, bytes) {
            for piece in ram.get_slices(start, length).map_while(Result::ok) {
                vecs.push(&piece);
            }
        }
    }

    /// Copy bytes out of the run's beginning; false if it is too short.
    pub(crate) fn read(&self, ram: &GuestRam, buffer: &mut [u8]) -> bool {
        let mut rest = &mut *buffer;
        for (start, length) in self.parts(0, rest.len()) {
            let (now, later) = rest.split_at_mut(length);
            if ram.read_slice(now, start).is_err() {
                return false;
            }
            rest = later;
        }
        rest.is_empty()
    }

    /// Copy bytes to the run's beginning; false if it is too short.
    pub(crate) fn write(&self, ram: &GuestRam, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        for (start, length) in self.parts(0, rest.len()) {
            let (now, later) = rest.split_at(length);
            if ram.write_slice(now, start).is_err() {
                return false;
            }
            rest = later;
        }
        rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::testing::{DATA, INDIRECT, NEXT, RAM_END, Ring, WRITE, ram};
    use virtio_queue::{QueueOwnedT, QueueT};

    fn spans(ring: &mut Ring, head: u16) -> Result<(Spans, Spans), BadChain> {
        let ram = ring.ram.clone();
        ring.offer(head);
        let mut queue = ring.queue();
        queue.set_next_avail(head);
        let mut chain = queue.iter(&ram).unwrap().next().unwrap();
        spans_of(&mut chain, &ram)
    }

    #[test]
    fn neighbours_are_one_range_and_parts_are_found() {
        let ram = ram();
        let mut ring = Ring::new(&ram, 0, 16);
        ring.descriptor(0, (DATA, 8, NEXT, 1));
        ring.descriptor(1, (DATA + 8, 8, NEXT, 2));
        ring.descriptor(2, (DATA + 100, 4, NEXT, 3));
        ring.descriptor(3, (DATA + 200, 4, WRITE, 0));
        let (readable, writable) = spans(&mut ring, 0).unwrap();
        assert_eq!((readable.bytes(), writable.bytes()), (20, 4));
        assert_eq!(readable.list.len(), 2);
        let parts: Vec<_> = readable.parts(14, 4).collect();
        assert_eq!(
            parts,
            [(GuestAddress(DATA + 14), 2), (GuestAddress(DATA + 100), 2)]
        );
        assert!(readable.write(&ram, &[7; 20]));
        assert!(!readable.write(&ram, &[7; 21]));
        let mut bytes = [0; 20];
        assert!(readable.read(&ram, &mut bytes));
        assert_eq!(bytes, [7; 20]);
        assert!(!writable.read(&ram, &mut bytes));
    }

    #[test]
    fn bad_chains_are_refused() {
        let ram = ram();
        let mut ring = Ring::new(&ram, 0, 16);
        // Readable behind writable; outside of memory; too many pieces.
        ring.descriptor(0, (DATA, 8, WRITE | NEXT, 1));
        ring.descriptor(1, (DATA, 8, 0, 0));
        assert!(spans(&mut ring, 0).is_err());
        let mut ring = Ring::new(&ram, 0, 16);
        ring.descriptor(0, (RAM_END - 4, 8, 0, 0));
        assert!(spans(&mut ring, 0).is_err());
        let mut ring = Ring::new(&ram, 0, 16);
        let table = DATA + 0x1000;
        for index in 0..400 {
            ring.descriptor_at(table, index, (DATA, 0, NEXT, index + 1));
        }
        ring.descriptor(0, (table, 400 * 16, INDIRECT, 0));
        assert!(spans(&mut ring, 0).is_err());
    }
}
