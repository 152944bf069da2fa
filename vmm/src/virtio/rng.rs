//! The entropy device (virtio 1.2, section 5.4).

use super::chain::Buffers;
use super::{Activation, Backend, Identity, SavedQueue, saved_queues};
use virtio_queue::{QueueOwnedT, QueueT};

const KIND: u32 = 4;
const QUEUE_SIZES: &[u16] = &[16];
/// Most bytes for one request, and requests for one notification.
const MAX_BYTES: usize = 4096;
const MAX_REQUESTS: usize = 64;

/// What the driver sees.
pub(crate) fn identity() -> Identity {
    Identity {
        kind: KIND,
        features: 0,
        queue_sizes: QUEUE_SIZES,
        config: Vec::new(),
    }
}

/// Answers each request from the host's random numbers.
#[derive(Debug, Default)]
pub(crate) struct Rng {
    active: Option<Activation>,
}

impl Backend for Rng {
    fn activate(&mut self, activation: Activation) {
        self.active = Some(activation);
    }

    fn notify(&mut self) -> bool {
        let Some(active) = &mut self.active else {
            return false;
        };
        let Some(queue) = active.queues.first_mut().filter(|queue| queue.ready()) else {
            return false;
        };
        let ram = &active.ram;
        let mut buffers = Buffers::new();
        let mut used = false;
        for served in 0.. {
            if served == MAX_REQUESTS {
                active.interrupt.used(ram, queue);
                return true;
            }
            let Ok(mut chains) = queue.iter(ram) else {
                active.interrupt.needs_reset();
                self.active = None;
                return false;
            };
            let Some(mut chain) = chains.next() else {
                match queue.enable_notification(ram) {
                    Ok(true) => continue,
                    _ => break,
                }
            };
            let written = match buffers.fill(&mut chain, ram) {
                Ok(()) => fill_random(&buffers),
                Err(_) => 0,
            };
            if queue.add_used(ram, chain.head_index(), written).is_err() {
                active.interrupt.needs_reset();
                self.active = None;
                return false;
            }
            used = true;
        }
        if used {
            active.interrupt.used(ram, queue);
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

fn fill_random<M: vm_memory::GuestMemoryBackend>(buffers: &Buffers<'_, M>) -> u32 {
    let mut random = [0u8; MAX_BYTES];
    let wanted = buffers.writable.bytes().min(MAX_BYTES);
    let flags = rustix::rand::GetRandomFlags::empty();
    let Ok(filled) = rustix::rand::getrandom(&mut random[..wanted], flags) else {
        return 0;
    };
    if buffers.writable.write(0, &random[..filled]) {
        filled as u32
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::testing::{DATA, NEXT, Ring, WRITE, activation, ram};

    #[test]
    fn buffers_get_random_bytes_and_bad_chains_none() {
        let ram = ram();
        let mut ring = Ring::new(&ram, 0, 16);
        let (activation, _) = activation(&ram, &[&ring]);
        let mut rng = Rng::default();
        rng.activate(activation);
        ring.descriptor(0, (DATA, 64, WRITE, 0));
        ring.descriptor(1, (DATA, 64, 0, 0));
        ring.descriptor(2, (u64::MAX, 64, WRITE, 0));
        ring.descriptor(3, (DATA, 1 << 20, WRITE | NEXT, 3));
        for head in 0..4 {
            ring.offer(head);
        }
        assert!(!rng.notify());
        assert_eq!(ring.take(), Some((0, 64)));
        assert_eq!(ring.take(), Some((1, 0)));
        assert_eq!(ring.take(), Some((2, 0)));
        assert_eq!(ring.take(), Some((3, 4096)));
        assert_ne!(ring.get::<[u8; 32]>(DATA), [0; 32]);
        rng.reset();
        ring.offer(0);
        assert!(!rng.notify());
        assert_eq!(ring.take(), None);
    }

    #[test]
    fn a_pass_is_bounded_and_a_broken_queue_stops_the_device() {
        let ram = ram();
        let mut ring = Ring::new(&ram, 0, 16);
        let (first, _) = activation(&ram, &[&ring]);
        let mut rng = Rng::default();
        rng.activate(first);
        for head in 0..16 {
            // Nothing to write to: no descriptor at all, or one that leads to itself.
            ring.descriptor(head, (DATA, 0, WRITE | NEXT, head));
            ring.offer(head);
        }
        assert!(!rng.notify());
        for head in 0..16 {
            assert_eq!(ring.take(), Some((head, 0)));
        }
        ring.offer(99);
        assert!(!rng.notify());
        assert!(rng.active.is_none());
        let mut leaping = Ring::new(&ram, 0, 16);
        let (again, _) = activation(&ram, &[&leaping]);
        rng.activate(again);
        leaping.leap(17);
        assert!(!rng.notify());
        assert!(rng.active.is_none());
    }
}
