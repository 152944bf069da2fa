//! virtio 1.2 devices over MMIO.
//!
//! A device has two halves. Its [`mmio::Transport`] answers the driver's register accesses on the
//! virtual CPU's thread; its [`Backend`] does the work on a [`crate::worker`] thread. The driver's
//! DRIVER_OK moves the queues, by value, from the first to the second; a reset takes them away
//! again. In between the transport holds nothing that the driver could still change.
//!
//! ```text
//!              DRIVER_OK: activate(queues)
//!   ┌──────┐ ─────────────────────────────► ┌────────┐
//!   │ idle │                                │ active │ ◄─┐ notify: the driver added buffers
//!   └──────┘ ◄───────────────────────────── └────────┘ ──┘
//!              Status = 0: reset()
//! ```

pub(crate) mod block;
pub(crate) mod chain;
pub(crate) mod files;
pub(crate) mod held;
pub(crate) mod mmio;
pub(crate) mod net;
pub(crate) mod registers;
pub(crate) mod rng;
pub(crate) mod spans;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod used;
pub(crate) mod vsock;

use crate::memory::{GuestRam, RegisterPages};
use crate::stats::Counters;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

/// VIRTIO_F_INDIRECT_DESC.
pub(crate) const F_INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_F_EVENT_IDX.
pub(crate) const F_EVENT_IDX: u64 = 1 << 29;
/// VIRTIO_F_VERSION_1, without which no driver of ours works.
pub(crate) const F_VERSION_1: u64 = 1 << 32;

/// What a device is, as the driver sees it before it starts.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Device type (virtio 1.2, section 5).
    pub(crate) kind: u32,
    /// Features of its own; the transport adds those of rings and transport.
    pub(crate) features: u64,
    /// Largest size of each queue.
    pub(crate) queue_sizes: &'static [u16],
    /// Configuration space.
    pub(crate) config: Vec<u8>,
}

/// What a device gets when its driver is ready. It owns all of it.
#[derive(Debug)]
pub(crate) struct Activation {
    /// Guest memory.
    pub(crate) ram: GuestRam,
    /// One for each queue of [`Identity::queue_sizes`]; those that the driver did not set up are
    /// not ready.
    pub(crate) queues: Vec<Queue>,
    /// How to reach the driver.
    pub(crate) interrupt: Interrupt,
    /// The features that the driver accepted.
    pub(crate) features: u64,
}

/// A queue between two requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedQueue {
    pub(crate) ready: bool,
    pub(crate) size: u16,
    pub(crate) desc: u64,
    pub(crate) avail: u64,
    pub(crate) used: u64,
    pub(crate) next_avail: u16,
    pub(crate) next_used: u16,
}

/// The queues of a device that serves none of them right now.
pub(crate) fn saved_queues(activation: &Activation) -> Vec<SavedQueue> {
    let saved = |queue: &Queue| SavedQueue {
        ready: queue.ready(),
        size: queue.size(),
        desc: queue.desc_table(),
        avail: queue.avail_ring(),
        used: queue.used_ring(),
        next_avail: queue.next_avail(),
        next_used: queue.next_used(),
    };
    activation.queues.iter().map(saved).collect()
}

/// The working half of a device.
///
/// Calls come in this order: `activate`, any number of `notify` and `ready`, `reset`, and again.
/// NOTE: `ready` may come at any time, also before `activate`.
pub(crate) trait Backend: Send + std::fmt::Debug {
    /// Once, before all else: where the device sees that its VM ends. One whose requests may take
    /// long looks there, and gives up.
    fn watch(&mut self, _stopping: Stopping) {}

    /// The driver is ready. The device starts by looking at its queues once.
    fn activate(&mut self, activation: Activation);

    /// The driver notified some queue. True asks to be called again soon: there is more to do, but
    /// other devices and requests of the transport should have their turn.
    fn notify(&mut self) -> bool;

    /// The descriptor of `poll_fd` is as `interest` has it. True as for `notify`.
    fn ready(&mut self) -> bool {
        false
    }

    /// What else the device waits for.
    fn poll_fd(&self) -> Option<RawFd> {
        None
    }

    /// What of it; asked again after each call. With nothing, not even its errors are heard of.
    fn interest(&self) -> EventSet {
        EventSet::IN
    }

    /// What a virtual CPU can do for the device when it notifies it.
    fn immediate(&self) -> Option<Arc<dyn Immediate>> {
        None
    }

    /// The queues between two calls, if the driver is ready.
    fn queues(&self) -> Option<Vec<SavedQueue>>;

    /// The driver is gone. When this returns, the device no longer touches guest memory.
    fn reset(&mut self);
}

/// The part of a device's work that needs no thread of its own: it is done by the virtual CPU that
/// notifies the device, before it goes back to its guest. That saves the wake-up of the device's
/// thread, and the guest's going to sleep and being woken.
pub(crate) trait Immediate: Send + Sync + std::fmt::Debug {
    /// Serve what can be served without waiting, within bounds. False: the device's thread has to
    /// look at the queues.
    ///
    /// NOTE: a guest calls this as often as it likes, from all its virtual CPUs at once and at the
    /// same time as the device's thread is at work.
    fn serve(&self) -> bool;
}

/// Whether a device is to give up what it is at, because its VM ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stopping(Arc<AtomicBool>);

impl Stopping {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// An edge-triggered input of the interrupt controller.
///
/// NOTE: each call must be an edge of its own, whoever else calls at the same time. A line that one
/// thread has raised and not lowered yet takes no second edge, and the guest may have looked at its
/// queue before the second thread's buffer was there.
pub(crate) trait InterruptLine: Send + Sync + std::fmt::Debug {
    /// Raise the line and lower it again.
    fn pulse(&self);
}

/// How a device reaches its driver.
///
/// The interrupt status register says "a queue was used" from activation to reset, and
/// acknowledgements go nowhere: the line belongs to one device, so that a handler that runs has a
/// reason to, and neither reading nor acknowledging need leave the guest.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    line: Arc<dyn InterruptLine>,
    registers: Arc<RegisterPages>,
    page: usize,
    counters: Arc<Counters>,
    /// When the configuration changed under a driver that runs.
    changed: Arc<Mutex<Option<Instant>>>,
}

/// How long a driver may take to hear that its configuration changed, whatever it asks for meanwhile.
const NEWS_TIME: Duration = Duration::from_secs(1);

impl Interrupt {
    pub(crate) fn new(
        line: Arc<dyn InterruptLine>,
        registers: Arc<RegisterPages>,
        page: usize,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            line,
            registers,
            page,
            counters,
            changed: Arc::default(),
        }
    }

    pub(crate) fn trigger(&self) {
        self.counters.interrupts.add(1);
        self.line.pulse();
    }

    /// Count a notification that was served by the virtual CPU that made it.
    pub(crate) fn notified(&self) {
        self.counters.queue_notifications.add(1);
    }

    /// Tell the driver about used buffers, if it wants to know.
    pub(crate) fn used(&self, ram: &GuestRam, queue: &mut Queue) {
        if Self::is_due(ram, queue) {
            self.trigger();
        }
    }

    /// Whether the driver wants to know of the buffers that were used since this was last asked
    /// (virtio 1.2, section 2.7.7). Who hears so has to call [`Self::trigger`].
    pub(crate) fn is_due(ram: &GuestRam, queue: &mut Queue) -> bool {
        queue.needs_notification(ram).unwrap_or(true)
    }

    /// A driver that asks for something has seen what configuration there is, unless it may have asked before.
    pub(crate) fn config_seen(&self) {
        let changed = registers::INTERRUPT_CONFIG.to_le();
        let pending = self
            .registers
            .register(self.page + registers::INTERRUPT_STATUS);
        if let Some(pending) = pending
            && pending.load(Ordering::Relaxed) & changed != 0
            && self.changed().is_none_or(|at| at.elapsed() >= NEWS_TIME)
        {
            pending.fetch_and(!changed, Ordering::AcqRel);
        }
    }

    /// Tell a driver that runs that its configuration is another one.
    pub(crate) fn config_changed(&self) {
        *self.changed() = Some(Instant::now());
        self.raise_config();
    }

    fn changed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn raise_config(&self) {
        if let Some(pending) = self
            .registers
            .register(self.page + registers::INTERRUPT_STATUS)
        {
            pending.fetch_or(registers::INTERRUPT_CONFIG.to_le(), Ordering::AcqRel);
        }
        self.trigger();
    }

    /// Tell the driver that the device cannot go on until it is reset (virtio 1.2, section
    /// 2.1.2). What a driver does to get here is its own fault.
    pub(crate) fn needs_reset(&self) {
        if let Some(status) = self.registers.register(self.page + registers::STATUS) {
            status.fetch_or(registers::status::NEEDS_RESET.to_le(), Ordering::AcqRel);
        }
        self.raise_config();
    }
}

/// Make a descriptor that a driver's notification makes readable.
pub(crate) fn event() -> io::Result<EventFd> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
}
