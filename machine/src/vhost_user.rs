//! What every device has that is served to QEMU over vhost-user: one connection, and its end.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, RwLock};
use vhost::vhost_user::Listener;
use vhost_user_backend::{VhostUserBackendMut, VhostUserDaemon, VringRwLock};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

/// A device as its daemon has it.
pub type Shared<B> = Arc<RwLock<B>>;

/// A daemon that serves nobody yet.
///
/// # Errors
/// No threads or descriptors for its queues.
pub fn daemon<B>(name: &str, device: Shared<B>) -> io::Result<VhostUserDaemon<Shared<B>>>
where
    B: VhostUserBackendMut<Bitmap = (), Vring = VringRwLock> + Send + Sync + 'static,
{
    let mem = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    VhostUserDaemon::new(name.to_owned(), device, mem)
        .map_err(|error| io::Error::other(error.to_string()))
}

/// Serves the one QEMU that connects, until it goes away.
///
/// # Errors
/// When the connection or a queue becomes unusable.
pub fn serve<B>(mut daemon: VhostUserDaemon<Shared<B>>, listener: UnixListener) -> io::Result<()>
where
    B: VhostUserBackendMut<Bitmap = (), Vring = VringRwLock> + Send + Sync + 'static,
{
    let mut listener = Listener::from(listener);
    match daemon.start(&mut listener).and_then(|()| daemon.wait()) {
        // QEMU went away, which is how a machine ends.
        Err(vhost_user_backend::Error::HandleRequest(
            vhost::vhost_user::Error::Disconnected | vhost::vhost_user::Error::PartialMessage,
        )) => Ok(()),
        ended => ended.map_err(|error| io::Error::other(error.to_string())),
    }
}

/// What ends a queue's thread.
pub fn exit_event() -> Option<(EventConsumer, EventNotifier)> {
    new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC).ok()
}
