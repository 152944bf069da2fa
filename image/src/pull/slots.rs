//! How many layers are converted at a time.

use std::sync::{Condvar, Mutex, PoisonError};

/// A number of places, taken for a while.
#[derive(Debug)]
pub(super) struct Slots {
    all: usize,
    free: Mutex<usize>,
    freed: Condvar,
}

/// Places that somebody has.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    slots: &'a Slots,
    count: usize,
}

impl Slots {
    pub(super) const fn new(all: usize) -> Self {
        Self {
            all,
            free: Mutex::new(all),
            freed: Condvar::new(),
        }
    }

    /// Waits for as many places, and takes them at once.
    pub(super) fn take(&self, count: usize) -> Slot<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self
            .freed
            .wait_while(free, |free| *free < count)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= count;
        Slot { slots: self, count }
    }

    pub(super) fn take_all(&self) -> Slot<'_> {
        self.take(self.all)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut free = self
            .slots
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *free += self.count;
        self.slots.freed.notify_all();
    }
}
