//! The socket device (virtio 1.2, section 5.10): [`VsockCore`] behind this VMM's transport.

use super::{Activation, Backend, Identity};
use crate::config::VsockConfig;
use crate::vsock::{QueueBroken, VsockCore};
use std::io;
use std::os::fd::RawFd;
use virtio_queue::QueueT;

/// Device type.
const KIND: u32 = 19;
/// Largest sizes of the queues: packets to the guest, packets from it, events.
const QUEUE_SIZES: &[u16] = &[128, 128, 16];

/// A vsock device of this VMM.
#[derive(Debug)]
pub(crate) struct Vsock {
    core: VsockCore,
    active: Option<Activation>,
}

impl Vsock {
    pub(crate) fn new(config: &VsockConfig) -> io::Result<Self> {
        Ok(Self {
            core: VsockCore::new(config.guest_cid.into(), &config.uds_path)?,
            active: None,
        })
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity {
            kind: KIND,
            features: 0,
            queue_sizes: QUEUE_SIZES,
            config: self.core.guest_cid().to_le_bytes().to_vec(),
        }
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
        match Self::serve(&mut self.core, active) {
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

    fn reset(&mut self) {
        self.active = None;
        self.core.reset();
    }
}
