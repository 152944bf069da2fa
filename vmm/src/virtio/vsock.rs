//! The socket device (virtio 1.2, section 5.10): [`VsockCore`] behind this VMM's transport.

use super::chain::Buffers;
use super::{Activation, Backend, Identity, SavedQueue, saved_queues};
use crate::config::VsockConfig;
use crate::vsock::{QueueBroken, VsockCore};
use std::io;
use std::os::fd::RawFd;
use virtio_queue::{QueueOwnedT, QueueT};

/// Device type.
const KIND: u32 = 19;
/// Largest sizes of the queues: packets to the guest, packets from it, events. Linux fills the first with
/// buffers that it keeps: 16 KiB each in our guests.
const QUEUE_SIZES: &[u16] = &[32, 128, 16];

/// Index of the queue of packets from the guest.
pub(crate) const TRANSMIT: usize = 1;

/// What the driver sees.
pub(crate) fn identity(guest_cid: u32) -> Identity {
    Identity {
        kind: KIND,
        features: 0,
        queue_sizes: QUEUE_SIZES,
        config: u64::from(guest_cid).to_le_bytes().to_vec(),
    }
}

/// A vsock device of this VMM.
#[derive(Debug)]
pub(crate) struct Vsock {
    core: VsockCore,
    active: Option<Activation>,
    /// The guest has streams that this device does not know, and must hear so.
    must_reset_streams: bool,
}

/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET` (virtio 1.2, section 5.10.6.7): every stream is over.
const EVENT_TRANSPORT_RESET: u32 = 0;

impl Vsock {
    pub(crate) fn new(config: &VsockConfig) -> io::Result<Self> {
        Ok(Self {
            core: VsockCore::new(config.guest_cid.into(), &config.uds_path)?,
            active: None,
            must_reset_streams: false,
        })
    }

    /// The device of a guest that ran before, elsewhere, with streams open.
    pub(crate) const fn resets_streams(mut self) -> Self {
        self.must_reset_streams = true;
        self
    }

    /// Tell the guest that its streams are over, as soon as it has a buffer for that.
    fn reset_streams(active: &mut Activation) -> Result<bool, QueueBroken> {
        let Some(events) = active.queues.get_mut(2).filter(|queue| queue.ready()) else {
            return Ok(false);
        };
        let mut buffers = Buffers::new();
        let event = EVENT_TRANSPORT_RESET.to_le_bytes();
        for _ in 0..events.size() {
            let Some(mut chain) = events.iter(&active.ram)?.next() else {
                break;
            };
            let told =
                buffers.fill(&mut chain, &active.ram).is_ok() && buffers.writable.write(0, &event);
            // One that is too short goes back empty.
            let written = if told { event.len() as u32 } else { 0 };
            events.add_used(&active.ram, chain.head_index(), written)?;
            active.interrupt.trigger();
            if told {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Move packets both ways. True: there are more.
    fn serve(core: &mut VsockCore, active: &mut Activation) -> Result<bool, QueueBroken> {
        let [receive, transmit, ..] = active.queues.as_mut_slice() else {
            return Err(QueueBroken);
        };
        if !receive.ready() || !transmit.ready() {
            return Ok(false);
        }
        let served = core.service(&active.ram, receive, transmit)?;
        if served.rx || served.tx {
            active.interrupt.trigger();
        }
        Ok(served.more)
    }
}

impl Backend for Vsock {
    fn activate(&mut self, activation: Activation) {
        self.active = Some(activation);
    }

    fn notify(&mut self) -> bool {
        let Some(active) = &mut self.active else {
            return false;
        };
        let reset = match self.must_reset_streams {
            true => Self::reset_streams(active),
            false => Ok(false),
        };
        let served = reset.and_then(|told| {
            self.must_reset_streams &= !told;
            Self::serve(&mut self.core, active)
        });
        match served {
            Ok(more) => more,
            Err(QueueBroken) => {
                active.interrupt.needs_reset();
                self.reset();
                false
            }
        }
    }

    fn ready(&mut self) -> bool {
        if self.active.is_some() {
            return self.notify();
        }
        // Remembered until the guest has a driver.
        self.core.take_host_events();
        false
    }

    fn poll_fd(&self) -> Option<RawFd> {
        Some(self.core.epoll_fd())
    }

    fn queues(&self) -> Option<Vec<SavedQueue>> {
        self.active.as_ref().map(saved_queues)
    }

    fn reset(&mut self) {
        self.active = None;
        self.must_reset_streams = false;
        self.core.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::testing::{DATA, Ring, WRITE, activation, ram};

    #[test]
    fn a_guest_that_ran_elsewhere_hears_once_that_its_streams_are_over() {
        let dir = tempfile::tempdir().unwrap();
        let config = VsockConfig {
            guest_cid: 3,
            uds_path: dir.path().join("vsock"),
        };
        let ram = ram();
        let rings = [0, 1, 2].map(|index| Ring::new(&ram, index, 16));
        let (activation, _) = activation(&ram, &[&rings[0], &rings[1], &rings[2]]);
        let [_, _, mut events] = rings;
        let mut vsock = Vsock::new(&config).unwrap().resets_streams();
        vsock.activate(activation);
        vsock.notify();
        assert_eq!(events.take(), None);
        events.put(u32::MAX, DATA);
        for (head, bytes) in [(0, 0), (1, 3), (2, 8), (3, 8)] {
            events.descriptor(head, (DATA, bytes, WRITE, 0));
            events.offer(head);
        }
        vsock.notify();
        vsock.notify();
        // The first that is long enough.
        assert_eq!(events.take(), Some((0, 0)));
        assert_eq!(events.take(), Some((1, 0)));
        assert_eq!(events.take(), Some((2, 4)));
        assert_eq!(events.get::<u32>(DATA), EVENT_TRANSPORT_RESET);
        assert_eq!(events.take(), None);
        // Queues are told as they stand.
        let queues = vsock.queues().unwrap();
        assert_eq!((queues[2].next_avail, queues[2].next_used), (3, 3));
    }
}
