//! QEMU's vsock device, served over vhost-user by the same core as the microVM's own.

use super::plan::{MACHINE_CID, RuntimeFiles};
use crate::sys::inherited_fd;
use crate::vhost_user;
use hullbox_vmm::vsock::VsockCore;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, RwLock};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackendMut, VringRwLock, VringT};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::QueueT;
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventNotifier};

const QUEUE_SIZE: usize = 256;
/// Receive, transmit; QEMU keeps the event queue to itself.
const QUEUES: usize = 2;
/// What [`VhostUserBackendMut::handle_event`] is told when a Unix socket stirs: the numbers up to
/// the count of queues are kicks, the next is the daemon's own exit event.
const CORE_EVENT: u16 = 3;

struct Backend {
    core: VsockCore,
    mem: Option<GuestMemoryAtomic<GuestMemoryMmap>>,
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
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::MQ
    }

    fn reset_device(&mut self) {
        self.core.reset();
    }

    fn set_event_idx(&mut self, _enabled: bool) {} // each queue knows

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let config = self.core.guest_cid().to_le_bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let len = usize::try_from(size).unwrap_or(0);
        let rest = config.get(start..).unwrap_or(&[]);
        rest.get(..len).unwrap_or(rest).to_vec()
    }

    fn update_memory(&mut self, mem: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        self.mem = Some(mem);
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        vhost_user::exit_event()
    }

    fn handle_event(
        &mut self,
        _event: u16,
        _events: EventSet,
        vrings: &[VringRwLock],
        _thread: usize,
    ) -> io::Result<()> {
        let ([rx, tx, ..], Some(mem)) = (vrings, &self.mem) else {
            return Ok(());
        };
        let mem = mem.memory();
        loop {
            let (mut rx_ring, mut tx_ring) = (rx.get_mut(), tx.get_mut());
            if !rx_ring.get_queue().ready() || !tx_ring.get_queue().ready() {
                return Ok(());
            }
            let queues = (rx_ring.get_queue_mut(), tx_ring.get_queue_mut());
            let served = self
                .core
                .service(&*mem, queues.0, queues.1)
                .map_err(io::Error::other)?;
            if served.rx {
                rx_ring.signal_used_queue()?;
            }
            if served.tx {
                tx_ring.signal_used_queue()?;
            }
            if !served.more {
                return Ok(());
            }
        }
    }
}

/// Arguments of the child that runs [`serve_inherited`].
#[must_use]
pub fn arguments(
    files: &RuntimeFiles,
    backend: BorrowedFd<'_>,
    sessions: BorrowedFd<'_>,
) -> Vec<OsString> {
    vec![
        "vsock".into(),
        backend.as_raw_fd().to_string().into(),
        sessions.as_raw_fd().to_string().into(),
        files.vsock().into(),
    ]
}

/// Serves on the listeners that [`arguments`] names.
///
/// # Errors
/// Bad arguments, or as [`serve`].
pub fn serve_inherited(args: &[OsString]) -> io::Result<()> {
    let [backend, sessions, path] = args else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let listener = |number: &OsString| {
        let number = number.to_str().and_then(|text| text.parse().ok());
        let fd = inherited_fd(number.ok_or(io::ErrorKind::InvalidInput)?)?;
        io::Result::Ok(UnixListener::from(fd))
    };
    serve(
        MACHINE_CID,
        listener(backend)?,
        listener(sessions)?,
        Path::new(path),
    )
}

/// Serves the one QEMU that connects to `backend`, until it goes away.
///
/// # Errors
/// When the connection or a queue becomes unusable.
pub fn serve(
    guest_cid: u64,
    backend: UnixListener,
    sessions: UnixListener,
    sessions_path: &Path,
) -> io::Result<()> {
    let core = VsockCore::on_listener(guest_cid, sessions, sessions_path)?;
    let core_fd: RawFd = core.epoll_fd();
    let state = Arc::new(RwLock::new(Backend { core, mem: None }));
    let daemon = vhost_user::daemon("hullbox-vsock", state)?;
    for handler in daemon.get_epoll_handlers() {
        handler.register_listener(core_fd, EventSet::IN, u64::from(CORE_EVENT))?;
    }
    vhost_user::serve(daemon, backend)
}
