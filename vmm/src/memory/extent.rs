//! A run of guest memory.

use serde::{Deserialize, Serialize};

/// A run of memory, in bytes from the beginning of all memory (not of the address space), that is
/// not all zero. Whole huge pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extent {
    pub(crate) start: u64,
    pub(crate) bytes: u64,
}

impl Extent {
    /// Whether this byte of all memory is in there.
    pub(crate) const fn holds(&self, at: u64) -> bool {
        self.start <= at && at - self.start < self.bytes
    }
}
