//! Frames from the guest.

use super::cables::MAC_BYTES;
use super::{Active, Flow, HEADER, Limits, MAX_MESSAGE, MIN_MESSAGE, Net, TRANSMIT, is_end};
use crate::memory::{GuestRam, Iovecs, send};
use crate::virtio::Activation;
use crate::virtio::chain::Buffers;
use std::io;
use virtio_queue::{Error, QueueOwnedT, QueueT};

impl Net {
    /// Pass on what is in the transmit queue, as far as the sockets take it and within limits. True: there
    /// is more.
    pub(super) fn transmit(&mut self, active: &mut Active, limits: &Limits) -> Result<bool, Error> {
        let Activation {
            ram,
            queues,
            interrupt,
            ..
        } = &mut active.all;
        let Some(queue) = queues.get_mut(TRANSMIT).filter(|queue| queue.ready()) else {
            return Ok(false);
        };
        let ram = &*ram;
        let (mut buffers, mut vecs) = (Buffers::new(), Iovecs::new());
        let (mut taken, mut bytes) = (0, 0);
        let mut more = true;
        while taken < limits.frames && bytes < limits.bytes {
            let Some(mut chain) = queue.iter(ram)?.next() else {
                more = queue.enable_notification(ram)?;
                break;
            };
            let head = chain.head_index();
            let whole = buffers.fill(&mut chain, ram).is_ok();
            let length = buffers.readable.bytes();
            if (limits.frame_bytes + 1..=MAX_MESSAGE).contains(&length) {
                queue.go_to_previous_position();
                break;
            }
            if !whole || !(MIN_MESSAGE..=MAX_MESSAGE).contains(&length) {
                self.count_dropped();
            } else if let Some(to) = self.sockets.place_of(|| source(&buffers))
                && let Some(one) = self.sockets.all.get_mut(to)
                && one.sends
            {
                one.is_full = false;
                vecs.clear();
                for piece in buffers.readable.range(0, length) {
                    vecs.push(&piece);
                }
                match send(one.socket(), &vecs) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        queue.go_to_previous_position();
                        one.is_full = true;
                        self.transmitting = Flow::Blocked;
                        more = false;
                        break;
                    }
                    Err(error) => {
                        one.sends = !is_end(&error);
                        self.count_dropped();
                    }
                }
            }
            queue.add_used(ram, head, 0)?;
            taken += 1;
            bytes += length;
        }
        if taken > 0 {
            interrupt.config_seen();
            interrupt.used(ram, queue);
        }
        Ok(more)
    }
}

/// The Ethernet address of a frame's sender. A frame is longer than that.
fn source(buffers: &Buffers<'_, GuestRam>) -> [u8; MAC_BYTES] {
    let mut source = [0; MAC_BYTES];
    buffers.readable.read(HEADER + MAC_BYTES, &mut source);
    source
}
