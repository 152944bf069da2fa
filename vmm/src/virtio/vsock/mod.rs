//! The socket device (virtio 1.2, section 5.10), with Unix sockets for the host's side.

mod connection;
mod core;
mod host;
mod packet;
#[cfg(test)]
mod tests;

pub use self::core::{Progress, QueueBroken, VsockCore};

use super::{Activation, Backend, Identity};
use crate::config::VsockConfig;
use std::io;
use std::os::fd::RawFd;
use virtio_queue::QueueT;

/// Device type.
pub const KIND: u32 = 19;
/// Largest sizes of the queues: packets to the guest, packets from it, events.
pub const QUEUE_SIZES: &[u16] = &[128, 128, 16];

/// A vsock device of this VMM.
#[derive(Debug)]
pub(crate) struct Vsock {
    core: VsockCore,
    active: Option<Activation>,
}

impl Vsock {
    pub(crate) fn new(config: &VsockConfig) -> io::Result<Self> {
        Ok(Self {
            core: VsockCore::new(config.guest_cid, &config.uds_path)?,
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
        let from_guest = core.transmit(&active.ram, transmit)?;
        let to_guest = core.receive(&active.ram, receive)?;
        if from_guest.used {
            active.interrupt.used(&active.ram, transmit);
        }
        if to_guest.used {
            active.interrupt.used(&active.ram, receive);
        }
        Ok(from_guest.more || to_guest.more)
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
        self.core.take_host_events();
        self.notify()
    }

    fn poll_fd(&self) -> Option<RawFd> {
        Some(self.core.poll_fd())
    }

    fn reset(&mut self) {
        self.active = None;
        self.core.reset();
    }
}
