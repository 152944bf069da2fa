//! A descriptor chain as two lists of checked pieces of guest memory.
//!
//! Everything in a descriptor is the guest's word. Here addresses are checked against guest
//! memory, the number of pieces is bounded whatever an indirect table says, and device-readable
//! pieces come before device-writable ones (virtio 1.2, section 2.7.4.2), or the chain is refused.

use virtio_queue::DescriptorChain;
use vm_memory::bitmap::BS;
use vm_memory::{Bytes, GuestMemoryBackend, GuestMemoryRegion, VolatileSlice};

/// Most pieces of a chain: what the largest queue holds, and some for pieces that cross from one
/// region of guest memory to the next.
pub(crate) const MAX_PIECES: usize = 300;

/// The bitmap of the memory that a piece belongs to.
type Dirty<'a, M> = BS<'a, <<M as GuestMemoryBackend>::R as GuestMemoryRegion>::B>;
/// A checked piece of guest memory.
pub(crate) type Piece<'a, M> = VolatileSlice<'a, Dirty<'a, M>>;

/// The chain breaks a rule. What the guest loses is its own doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadChain;

/// The pieces of one chain.
pub(crate) struct Buffers<'a, M: GuestMemoryBackend> {
    /// What the device reads.
    pub(crate) readable: Pieces<'a, M>,
    /// What the device writes.
    pub(crate) writable: Pieces<'a, M>,
}

impl<'a, M: GuestMemoryBackend> Buffers<'a, M> {
    pub(crate) const fn new() -> Self {
        Self {
            readable: Pieces::new(),
            writable: Pieces::new(),
        }
    }

    /// Replace the pieces by those of a chain.
    pub(crate) fn fill(
        &mut self,
        chain: &mut DescriptorChain<&'a M>,
        memory: &'a M,
    ) -> Result<(), BadChain> {
        self.readable.clear();
        self.writable.clear();
        for (count, descriptor) in chain.enumerate() {
            // Those without bytes have no pieces, and a table can have 65535.
            if count == MAX_PIECES {
                return Err(BadChain);
            }
            let list = if descriptor.is_write_only() {
                &mut self.writable
            } else if self.writable.list.is_empty() {
                &mut self.readable
            } else {
                return Err(BadChain);
            };
            for piece in memory.get_slices(descriptor.addr(), descriptor.len() as usize) {
                list.push(piece.map_err(|_| BadChain)?)?;
            }
        }
        Ok(())
    }
}

/// Pieces of guest memory that count as one run of bytes.
pub(crate) struct Pieces<'a, M: GuestMemoryBackend> {
    list: Vec<Piece<'a, M>>,
    bytes: usize,
}

impl<'a, M: GuestMemoryBackend> Pieces<'a, M> {
    const fn new() -> Self {
        Self {
            list: Vec::new(),
            bytes: 0,
        }
    }

    fn clear(&mut self) {
        self.list.clear();
        self.bytes = 0;
    }

    fn push(&mut self, piece: Piece<'a, M>) -> Result<(), BadChain> {
        if self.list.len() == MAX_PIECES {
            return Err(BadChain);
        }
        self.bytes += piece.len();
        self.list.push(piece);
        Ok(())
    }

    /// Length of the run.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The pieces that make up `bytes` bytes from `skip` on, or as much of it as there is.
    pub(crate) fn range(&self, skip: usize, bytes: usize) -> impl Iterator<Item = Piece<'a, M>> {
        let (mut skip, mut left) = (skip, bytes);
        self.list.iter().filter_map(move |piece| {
            let from = skip.min(piece.len());
            skip -= from;
            let take = left.min(piece.len() - from);
            left -= take;
            if take == 0 {
                return None;
            }
            piece.subslice(from, take).ok()
        })
    }

    /// Copy bytes out of the run; false if it is too short.
    pub(crate) fn read(&self, at: usize, buffer: &mut [u8]) -> bool {
        let mut done = 0;
        for piece in self.range(at, buffer.len()) {
            let end = done + piece.len();
            done += piece.copy_to(&mut buffer[done..end]);
        }
        done == buffer.len()
    }

    /// Copy bytes into the run; false if it is too short.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) -> bool {
        let mut done = 0;
        for piece in self.range(at, bytes.len()) {
            let end = done + piece.len();
            if piece.write_slice(&bytes[done..end], 0).is_err() {
                return false;
            }
            done = end;
        }
        done == bytes.len()
    }
}
