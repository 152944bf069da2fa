//! Who serves a disk's queue.
//!
//! A virtual CPU that notifies the disk serves what takes no waiting before it goes back to its
//! guest: reads of what the host's page cache holds, and small writes into it. Everything else (a
//! disk has to be read, a flush, long writes, more requests than one virtual CPU should do) is done
//! by the device's thread. Both take requests from the same queue under one lock, which neither
//! holds while it waits for a disk.
//!
//! Notifications and interrupts are suppressed by event indexes (virtio 1.2, sections 2.7.7 and
//! 2.7.10): whoever finds the queue empty asks for the next notification and looks once more. Only
//! then, and without the lock, is the driver interrupted: its next request finds a virtual CPU that
//! may serve it, and not the device's thread about to look again.

use super::{Disk, MAX_BYTES, MAX_READ_NOW, Status};
use crate::memory::GuestRam;
use crate::virtio::chain::Buffers;
use crate::virtio::{
    Activation, Backend, Immediate, Interrupt, SavedQueue, Stopping, saved_queues,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use virtio_queue::{Error, Queue, QueueOwnedT, QueueT};
use vm_memory::GuestMemoryBackend;

/// A pass of the device's thread ends after this many bytes or requests.
const MAX_PASS_BYTES: usize = MAX_BYTES;
const MAX_PASS_REQUESTS: usize = 256;
/// A virtual CPU leaves the rest to the device's thread after this many.
const MAX_NOW_BYTES: usize = MAX_READ_NOW;
const MAX_NOW_REQUESTS: usize = 32;

/// A disk with a driver, or without one yet.
#[derive(Debug)]
pub(crate) struct Block {
    pub(super) shared: Arc<Shared>,
}

/// What the device's thread and virtual CPUs share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Disk,
    active: Mutex<Option<Activation>>,
}

impl Block {
    pub(crate) fn new(disk: Disk) -> Self {
        let active = Mutex::new(None);
        Self {
            shared: Arc::new(Shared { disk, active }),
        }
    }
}

/// The queue, if the driver has set it up.
fn queue_of(active: &mut Option<Activation>) -> Option<&mut Queue> {
    let queue = active.as_mut()?.queues.first_mut()?;
    queue.ready().then_some(queue)
}

/// Take the next request: the number of its chain, and whether it has a place for its status.
fn take<'a>(
    queue: &mut Queue,
    ram: &'a GuestRam,
    buffers: &mut Buffers<'a, GuestRam>,
) -> Result<Option<(u16, bool)>, Error> {
    let Some(mut chain) = queue.iter(ram)?.next() else {
        return Ok(None);
    };
    let head = chain.head_index();
    let whole = buffers.fill(&mut chain, ram).is_ok() && buffers.writable.bytes() > 0;
    Ok(Some((head, whole)))
}

/// Write a request's outcome; returns the number of bytes written to guest memory.
fn answer<M: GuestMemoryBackend>(buffers: &Buffers<'_, M>, outcome: Result<usize, Status>) -> u32 {
    let (status, written) = match outcome {
        Ok(written) => (Status::Ok, written),
        Err(status) => (status, 0),
    };
    let last = buffers.writable.bytes() - 1;
    buffers.writable.write(last, &[status as u8]);
    u32::try_from(written + 1).unwrap_or(u32::MAX)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Activation>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serve what is in the queue, on the device's thread. True: more may be waiting.
    fn serve(&self) -> Result<bool, Error> {
        // A chain's pieces, and the interrupt, outlive the lock.
        let Some((ram, interrupt)) = self
            .lock()
            .as_ref()
            .map(|active| (active.ram.clone(), active.interrupt.clone()))
        else {
            return Ok(false);
        };
        let mut buffers = Buffers::new();
        let mut cost = 0;
        for _ in 0..MAX_PASS_REQUESTS {
            let mut active = self.lock();
            let Some(queue) = queue_of(&mut active) else {
                return Ok(false);
            };
            if cost >= MAX_PASS_BYTES || self.disk.is_stopping() {
                break;
            }
            let Some((head, whole)) = take(queue, &ram, &mut buffers)? else {
                let due = Interrupt::is_due(&ram, queue);
                let more = queue.enable_notification(&ram)?;
                drop(active);
                if due {
                    interrupt.trigger();
                }
                if more {
                    continue;
                }
                return Ok(false);
            };
            interrupt.config_seen();
            let own = match whole {
                true => self.disk.cost_of(&buffers),
                false => Some(0),
            };
            cost = own.map_or(MAX_PASS_BYTES, |own| cost + own + 1);
            // Nobody waits for one that waits for the disk but who asked: what is done is told, and
            // virtual CPUs serve what comes meanwhile. What is there already, a pass comes to.
            let waits = own.is_none();
            let due = waits && Interrupt::is_due(&ram, queue);
            if waits {
                queue.enable_notification(&ram)?;
            }
            drop(active);
            if due {
                interrupt.trigger();
            }
            // Without a place for the status there is nothing to say.
            let written = match whole {
                true => answer(&buffers, self.disk.execute(&buffers)),
                false => 0,
            };
            let mut active = self.lock();
            let Some(queue) = queue_of(&mut active) else {
                return Ok(false);
            };
            queue.add_used(&ram, head, written)?;
        }
        let due = queue_of(&mut self.lock()).is_some_and(|queue| Interrupt::is_due(&ram, queue));
        if due {
            interrupt.trigger();
        }
        Ok(true)
    }

    /// Serve on a virtual CPU's thread, as far as that goes.
    fn serve_now(&self, ram: &GuestRam, queue: &mut Queue) -> Result<Now, Error> {
        let mut buffers = Buffers::new();
        let mut now = Now::default();
        let mut bytes = 0;
        loop {
            let enough = now.requests == MAX_NOW_REQUESTS || bytes >= MAX_NOW_BYTES;
            if enough || self.disk.is_stopping() {
                now.all = !queue.enable_notification(ram)?;
                break;
            }
            let Some((head, whole)) = take(queue, ram, &mut buffers)? else {
                if queue.enable_notification(ram)? {
                    continue;
                }
                now.all = true;
                break;
            };
            let written = match whole {
                true => match self.disk.execute_now(&buffers) {
                    Some(outcome) => answer(&buffers, outcome),
                    None => {
                        queue.go_to_previous_position();
                        break;
                    }
                },
                false => 0,
            };
            bytes += buffers.readable.bytes() + buffers.writable.bytes();
            now.requests += 1;
            queue.add_used(ram, head, written)?;
        }
        now.due = now.requests > 0 && Interrupt::is_due(ram, queue);
        Ok(now)
    }
}

/// What a virtual CPU has done.
#[derive(Debug, Default)]
struct Now {
    requests: usize,
    /// Nothing is left.
    all: bool,
    /// The driver wants to know.
    due: bool,
}

impl Immediate for Shared {
    fn serve(&self) -> bool {
        let mut active = match self.active.try_lock() {
            Ok(active) => active,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            // Whoever serves it now may have looked for the last time.
            Err(TryLockError::WouldBlock) => return false,
        };
        let Some(Activation {
            ram,
            queues,
            interrupt,
            ..
        }) = active.as_mut()
        else {
            return true;
        };
        interrupt.notified();
        let Some(queue) = queues.first_mut().filter(|queue| queue.ready()) else {
            return true;
        };
        match self.serve_now(ram, queue) {
            Ok(now) => {
                if now.requests > 0 {
                    interrupt.config_seen();
                }
                let due = now.due.then(|| interrupt.clone());
                drop(active);
                if let Some(interrupt) = due {
                    interrupt.trigger();
                }
                now.all
            }
            Err(_) => {
                interrupt.needs_reset();
                *active = None;
                true
            }
        }
    }
}

impl Backend for Block {
    fn watch(&mut self, stopping: Stopping) {
        // Once for each device.
        let _ = self.shared.disk.stopping.set(stopping);
    }

    fn activate(&mut self, activation: Activation) {
        *self.shared.lock() = Some(activation);
    }

    fn notify(&mut self) -> bool {
        match self.shared.serve() {
            Ok(more) => more,
            Err(_) => {
                if let Some(active) = self.shared.lock().take() {
                    active.interrupt.needs_reset();
                }
                false
            }
        }
    }

    fn immediate(&self) -> Option<Arc<dyn Immediate>> {
        let shared: Arc<dyn Immediate> = Arc::<Shared>::clone(&self.shared);
        Some(shared)
    }

    fn queues(&self) -> Option<Vec<SavedQueue>> {
        self.shared.lock().as_ref().map(saved_queues)
    }

    fn reset(&mut self) {
        *self.shared.lock() = None;
    }
}
