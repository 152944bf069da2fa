//! What the network has to say without being asked: what was refused, for the first time.

use crate::core::MemberId;
use crate::counters::Refused;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// Most notices that wait; those beyond are not given. Each member is bounded by itself.
const MAX_WAITING: usize = 1024;

/// A member was refused something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Which.
    pub member: MemberId,
    /// What.
    pub refused: Refused,
    /// How many other targets were refused before, of which there was no notice because they were too many.
    pub untold: u64,
}

/// Notices on their way to another thread.
#[derive(Debug)]
pub struct Notices {
    waiting: Mutex<VecDeque<Notice>>,
    event: OwnedFd,
}

impl Notices {
    /// # Errors
    /// If the kernel gives no event descriptor.
    pub fn new() -> Result<Self, Errno> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            waiting: Mutex::default(),
            event: eventfd(0, flags)?,
        })
    }

    /// Readable while there are some.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Gives one.
    pub fn give(&self, notice: Notice) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MAX_WAITING {
            waiting.push_back(notice);
            // A counter that is read as a whole does not overflow.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// Takes all that there are.
    pub fn take(&self) -> VecDeque<Notice> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // There may be none.
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        std::mem::take(&mut *waiting)
    }
}
