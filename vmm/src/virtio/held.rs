//! A device that keeps still: its driver can start, and nothing that it asks is answered.
//!
//! A template is saved with such devices. What its guest put into their queues is still there
//! when a restored VM's devices look, so that they begin like any device whose driver was faster:
//! no stream is open, and no random byte has been given to more than one guest.

use super::{Activation, Backend, SavedQueue, saved_queues};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use virtio_queue::QueueT;
use vmm_sys_util::eventfd::EventFd;

/// See the module.
#[derive(Debug)]
pub(crate) struct Held {
    active: Option<Activation>,
    /// Of this queue's first buffer this is told.
    watched: Option<(usize, Arc<EventFd>)>,
}

impl Held {
    pub(crate) const fn new(watched: Option<(usize, Arc<EventFd>)>) -> Self {
        Self {
            active: None,
            watched,
        }
    }
}

impl Backend for Held {
    fn activate(&mut self, activation: Activation) {
        self.active = Some(activation);
    }

    fn notify(&mut self) -> bool {
        let (Some(active), Some((index, event))) = (&self.active, &self.watched) else {
            return false;
        };
        let queue = active.queues.get(*index).filter(|queue| queue.ready());
        let offered = queue.and_then(|queue| queue.avail_idx(&active.ram, Ordering::Acquire).ok());
        if offered.is_some_and(|offered| offered.0 != 0) {
            // The counter cannot overflow: a queue has fewer buffers.
            let _ = event.write(1);
        }
        false
    }

    fn queues(&self) -> Option<Vec<SavedQueue>> {
        self.active.as_ref().map(saved_queues)
    }

    fn reset(&mut self) {
        self.active = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::testing::{DATA, Ring, activation, ram};

    #[test]
    fn it_says_that_there_is_something_and_takes_nothing() {
        let ram = ram();
        let (first, mut second) = (Ring::new(&ram, 0, 16), Ring::new(&ram, 1, 16));
        let (activation, _) = activation(&ram, &[&first, &second]);
        let event = Arc::new(crate::virtio::event().unwrap());
        let mut held = Held::new(Some((1, Arc::clone(&event))));
        assert!(!held.notify());
        held.activate(activation);
        assert!(!held.notify());
        assert!(event.read().is_err());
        second.descriptor(0, (DATA, 64, 0, 0));
        second.offer(0);
        assert!(!held.notify());
        assert_eq!(event.read().unwrap(), 1);
        assert_eq!(second.take(), None);
        let queues = held.queues().unwrap();
        assert_eq!(queues[1].next_avail, 0);
        assert!(queues[1].ready);
    }
}
