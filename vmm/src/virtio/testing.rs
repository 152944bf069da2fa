//! What the devices' unit tests share: real guest memory with a driver's rings in it, and no KVM.

use super::{Activation, Interrupt, InterruptLine};
use crate::memory::{GuestMemory, GuestRam, HugePages, RegisterPages};
use crate::stats::Counters;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// Where the first ring lies; each takes 64 KiB.
pub(crate) const RINGS: u64 = 0x10_0000;
/// Memory for buffers.
pub(crate) const DATA: u64 = 0x20_0000;
/// End of the only region of memory.
pub(crate) const RAM_END: u64 = 0x100_0000;

/// A driver's view of a queue.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) ram: GuestRam,
    pub(crate) base: u64,
    pub(crate) size: u16,
    added: u16,
    taken: u16,
}

/// Guest memory of 16 MiB.
pub(crate) fn ram() -> GuestRam {
    GuestMemory::new(&[(0, RAM_END)], HugePages::Never)
        .unwrap()
        .ram()
        .clone()
}

impl Ring {
    pub(crate) fn new(ram: &GuestRam, index: u64, size: u16) -> Self {
        Self {
            ram: ram.clone(),
            base: RINGS + index * 0x1_0000,
            size,
            added: 0,
            taken: 0,
        }
    }

    pub(crate) const fn desc(&self) -> u64 {
        self.base
    }

    pub(crate) const fn avail(&self) -> u64 {
        self.base + 0x8000
    }

    pub(crate) const fn used(&self) -> u64 {
        self.base + 0xc000
    }

    /// The device's view of the same queue.
    pub(crate) fn queue(&self) -> Queue {
        let mut queue = Queue::new(self.size).unwrap();
        queue
            .try_set_desc_table_address(GuestAddress(self.desc()))
            .unwrap();
        queue
            .try_set_avail_ring_address(GuestAddress(self.avail()))
            .unwrap();
        queue
            .try_set_used_ring_address(GuestAddress(self.used()))
            .unwrap();
        queue.set_ready(true);
        queue
    }

    pub(crate) fn put<T: vm_memory::ByteValued>(&self, value: T, at: u64) {
        self.ram.write_obj(value, GuestAddress(at)).unwrap();
    }

    pub(crate) fn get<T: vm_memory::ByteValued>(&self, at: u64) -> T {
        self.ram.read_obj(GuestAddress(at)).unwrap()
    }

    /// Write a descriptor into a table.
    pub(crate) fn descriptor_at(&self, table: u64, index: u16, desc: (u64, u32, u16, u16)) {
        let at = table + u64::from(index) * 16;
        self.put(desc.0, at);
        self.put(desc.1, at + 8);
        self.put(desc.2, at + 12);
        self.put(desc.3, at + 14);
    }

    pub(crate) fn descriptor(&self, index: u16, desc: (u64, u32, u16, u16)) {
        self.descriptor_at(self.desc(), index, desc);
    }

    /// Make a chain available.
    pub(crate) fn offer(&mut self, head: u16) {
        let slot = u64::from(self.added % self.size);
        self.put(head, self.avail() + 4 + slot * 2);
        self.added = self.added.wrapping_add(1);
        self.put(self.added, self.avail() + 2);
    }

    /// A ring that has been in use for so long.
    pub(crate) fn start_at(&mut self, index: u16) {
        (self.added, self.taken) = (index, index);
        self.put(index, self.avail() + 2);
        self.put(index, self.used() + 2);
    }

    /// Set the available index to anything.
    pub(crate) fn leap(&mut self, index: u16) {
        self.added = index;
        self.put(index, self.avail() + 2);
    }

    /// Where the driver wants to be interrupted (virtio 1.2, section 2.7.7).
    pub(crate) fn set_used_event(&self, index: u16) {
        self.put(index, self.avail() + 4 + u64::from(self.size) * 2);
    }

    /// Where the device wants to be notified (virtio 1.2, section 2.7.10).
    pub(crate) fn avail_event(&self) -> u16 {
        self.get(self.used() + 4 + u64::from(self.size) * 8)
    }

    /// Overwrite that.
    pub(crate) fn set_avail_event(&self, index: u16) {
        self.put(index, self.used() + 4 + u64::from(self.size) * 8);
    }

    /// Number of used entries so far.
    pub(crate) fn used_index(&self) -> u16 {
        self.get(self.used() + 2)
    }

    /// The next used entry: head and length.
    pub(crate) fn take(&mut self) -> Option<(u32, u32)> {
        if self.used_index() == self.taken {
            return None;
        }
        let at = self.used() + 4 + u64::from(self.taken % self.size) * 8;
        self.taken = self.taken.wrapping_add(1);
        Some((self.get(at), self.get(at + 4)))
    }
}

/// An interrupt line that counts.
#[derive(Debug, Default)]
pub(crate) struct Pulses(AtomicU64);

impl Pulses {
    /// How many there have been since the last look.
    pub(crate) fn take(&self) -> u64 {
        self.0.swap(0, Ordering::SeqCst)
    }
}

impl InterruptLine for Pulses {
    fn pulse(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// An activation over these rings, and the registers that its interrupt shows.
pub(crate) fn activation(ram: &GuestRam, rings: &[&Ring]) -> (Activation, Arc<RegisterPages>) {
    let (activation, registers, _) = counted_activation(ram, rings);
    (activation, registers)
}

/// The same, and the interrupts that the driver gets.
pub(crate) fn counted_activation(
    ram: &GuestRam,
    rings: &[&Ring],
) -> (Activation, Arc<RegisterPages>, Arc<Pulses>) {
    let registers = Arc::new(RegisterPages::new(1).unwrap());
    let pulses = Arc::new(Pulses::default());
    let line: Arc<dyn InterruptLine> = Arc::<Pulses>::clone(&pulses);
    let interrupt = Interrupt::new(
        line,
        Arc::clone(&registers),
        0,
        Arc::new(Counters::default()),
    );
    let activation = Activation {
        ram: ram.clone(),
        queues: rings.iter().map(|ring| ring.queue()).collect(),
        interrupt,
        features: u64::MAX,
    };
    (activation, registers, pulses)
}

/// Numbers that look random and are the same in every run.
#[derive(Debug)]
pub(crate) struct Junk(pub(crate) u64);

impl Junk {
    pub(crate) fn next(&mut self) -> u64 {
        // xorshift64, Marsaglia 2003.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
