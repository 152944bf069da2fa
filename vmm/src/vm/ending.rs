//! The end of a VM: whoever notices first says why, and everyone else hears of it.

use crate::outcome::Outcome;
use crate::vcpu::kick::Kick;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use vmm_sys_util::eventfd::EventFd;

/// See the module.
#[derive(Debug)]
pub(crate) struct Ending {
    outcome: Mutex<Option<Outcome>>,
    changed: Condvar,
    event: EventFd,
    kicks: Mutex<Vec<Arc<Kick>>>,
}

impl Ending {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            outcome: Mutex::new(None),
            changed: Condvar::new(),
            event: crate::virtio::event()?,
            kicks: Mutex::new(Vec::new()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Outcome>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kick this virtual CPU when the VM ends.
    pub(crate) fn add_kick(&self, kick: Arc<Kick>) {
        self.kicks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(kick);
    }

    /// The VM has ended, or is to end. Only the first outcome counts.
    pub(crate) fn end(&self, outcome: Outcome) {
        {
            let mut place = self.lock();
            if place.is_some() {
                return;
            }
            *place = Some(outcome);
        }
        self.changed.notify_all();
        // The counter is at 0: this cannot fail.
        let _ = self.event.write(1);
        let kicks = self.kicks.lock().unwrap_or_else(PoisonError::into_inner);
        for kick in kicks.iter() {
            kick.kick();
        }
    }

    /// How the VM ended, if it has.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.lock().clone()
    }

    /// Wait for the end.
    pub(crate) fn wait(&self) -> Outcome {
        let mut place = self.lock();
        loop {
            if let Some(outcome) = &*place {
                return outcome.clone();
            }
            place = self
                .changed
                .wait(place)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Readable from the end on.
    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        let fd = self.event.as_raw_fd();
        // SAFETY: the descriptor is open as long as `self`, from which the lifetime comes.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }
}
