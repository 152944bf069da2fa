//! QEMU's virtio-fs device, served over vhost-user.

use super::files::Files;
use super::message::MAX_MESSAGE;
use crate::vhost_user;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, RwLock};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackendMut, VringRwLock, VringT};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{DescriptorChain, QueueOwnedT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventNotifier};

/// As many as QEMU is told (`queue-size`).
pub const QUEUE_SIZE: usize = 1024;
/// High priority (FORGET, INTERRUPT), and requests.
const QUEUES: usize = 2;

type Memory = GuestMemoryLoadGuard<GuestMemoryMmap>;

struct Backend {
    files: Files,
    mem: Option<GuestMemoryAtomic<GuestMemoryMmap>>,
    request: Vec<u8>,
}

impl Backend {
    /// Answers one request. Gives how many bytes of the machine's memory were written.
    fn answer(&mut self, chain: DescriptorChain<Memory>, mem: &Memory) -> io::Result<u32> {
        let broken = |_| io::Error::from(io::ErrorKind::InvalidData);
        self.request.clear();
        let reader = chain.clone().reader::<()>(mem).map_err(broken)?;
        reader
            .take(MAX_MESSAGE as u64)
            .read_to_end(&mut self.request)?;
        let mut writer = chain.writer::<()>(mem).map_err(broken)?;
        let room = writer.available_bytes();
        let reply = self.files.answer(&mut self.request, room)?;
        writer.write_all(reply)?;
        u32::try_from(reply.len()).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// Answers what is in a queue.
    fn drain(&mut self, vring: &VringRwLock, mem: &Memory) -> io::Result<()> {
        loop {
            let mut ring = vring.get_mut();
            let next = ring.get_queue_mut().iter(mem.clone());
            let Some(chain) = next.map_err(io::Error::other)?.next() else {
                return Ok(());
            };
            drop(ring);
            let head = chain.head_index();
            // A chain that makes no sense goes back empty: the machine's kernel would wait for it.
            let written = self.answer(chain, mem).unwrap_or(0);
            vring.add_used(head, written).map_err(io::Error::other)?;
            if vring.needs_notification().map_err(io::Error::other)? {
                vring.signal_used_queue()?;
            }
        }
    }
}

impl VhostUserBackendMut for Backend {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
    }

    fn set_event_idx(&mut self, _enabled: bool) {} // each queue knows

    fn update_memory(&mut self, mem: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        self.mem = Some(mem);
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        vhost_user::exit_event()
    }

    fn handle_event(
        &mut self,
        event: u16,
        _events: EventSet,
        vrings: &[VringRwLock],
        _thread: usize,
    ) -> io::Result<()> {
        let (Some(vring), Some(mem)) = (vrings.get(usize::from(event)), &self.mem) else {
            return Ok(());
        };
        let mem = mem.memory();
        loop {
            vring.disable_notification().map_err(io::Error::other)?;
            self.drain(vring, &mem)?;
            if !vring.enable_notification().map_err(io::Error::other)? {
                return Ok(());
            }
        }
    }
}

/// Serves the one QEMU that connects, until it goes away.
///
/// # Errors
/// When the connection or a queue becomes unusable.
pub fn serve(files: Files, listener: UnixListener) -> io::Result<()> {
    let state = Arc::new(RwLock::new(Backend {
        files,
        mem: None,
        request: Vec::new(),
    }));
    vhost_user::serve(vhost_user::daemon("hullbox-share", state)?, listener)
}
