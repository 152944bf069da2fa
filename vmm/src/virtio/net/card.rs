//! Which thread does the device's work.
//!
//! A virtual CPU that notifies the device sends short frames itself: the wake-up of the device's thread
//! would take longer, and so would whoever waits for the answer. Long ones, and what comes to the guest,
//! are the thread's: while it copies, the guest makes the next ones and need not notify of them.

use super::{Flow, Limits, Net};
use crate::virtio::{Activation, Backend, Immediate, SavedQueue};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use vmm_sys_util::epoll::EventSet;

/// What a virtual CPU does of one notification. The bytes are a few round trips' requests, and a fraction of
/// what one call of TCP makes of bulk data.
const NOW: Limits = Limits {
    frames: 16,
    bytes: 16 << 10,
    frame_bytes: 8 << 10,
};

/// A network device that its thread and virtual CPUs serve, one at a time.
#[derive(Debug)]
pub(crate) struct Card(Arc<Mutex<Net>>);

impl Card {
    pub(crate) fn new(net: Net) -> Self {
        Self(Arc::new(Mutex::new(net)))
    }

    pub(super) fn net(&self) -> MutexGuard<'_, Net> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Immediate for Mutex<Net> {
    fn serve(&self) -> bool {
        let mut net = match self.try_lock() {
            Ok(net) => net,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            // Whoever serves it now may have looked for the last time.
            Err(TryLockError::WouldBlock) => return false,
        };
        // The thread alone waits: for buffers, for the sockets, and for others in their place.
        if net.receiving == Flow::Blocked || net.sockets.is_outdated() {
            return false;
        }
        if net.transmitting == Flow::Open {
            let more = net.serve(|net, active| {
                active.all.interrupt.notified();
                net.transmit(active, &NOW)
            });
            return !more && net.transmitting == Flow::Open;
        }
        // It goes on when the socket takes something.
        true
    }
}

impl Backend for Card {
    fn activate(&mut self, activation: Activation) {
        self.net().activate(activation);
    }

    fn notify(&mut self) -> bool {
        self.net().notify()
    }

    fn ready(&mut self) -> bool {
        self.net().ready()
    }

    fn poll_fd(&self) -> Option<RawFd> {
        self.net().poll_fd()
    }

    fn interest(&self) -> EventSet {
        self.net().interest()
    }

    fn immediate(&self) -> Option<Arc<dyn Immediate>> {
        let net: Arc<dyn Immediate> = Arc::<Mutex<Net>>::clone(&self.0);
        Some(net)
    }

    fn queues(&self) -> Option<Vec<SavedQueue>> {
        self.net().queues()
    }

    fn reset(&mut self) {
        self.net().reset();
    }
}
