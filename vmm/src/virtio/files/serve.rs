//! Which thread does what: requests are passed on by the virtual CPU that notifies, if they are short and
//! the socket takes them, otherwise by the device's thread; replies are received by that.

use super::requests::{Bounds, Passed};
use super::{Activation, Active, Broken, State};
use crate::virtio::{Backend, Immediate, Interrupt, SavedQueue, saved_queues};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use virtio_queue::QueueT;
use vmm_sys_util::epoll::EventSet;

/// What the device's thread passes on in one go.
const PASS: Bounds = Bounds {
    requests: 128,
    bytes: 8 << 20,
};
/// What a virtual CPU does; copying that much takes it some 20 us.
const PASS_NOW: Bounds = Bounds {
    requests: 16,
    bytes: 64 << 10,
};

/// The device, as its thread, virtual CPUs and whoever has the VM reach it.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The end of the stream that is the device's.
    stream: OnceLock<OwnedFd>,
    state: Mutex<State>,
}

impl Shared {
    /// Give the device its stream; false if it has one.
    pub(crate) fn connect(&self, stream: OwnedFd) -> bool {
        self.stream.set(stream).is_ok()
    }

    /// Whether it has ever had one.
    pub(crate) fn is_connected(&self) -> bool {
        self.stream.get().is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Do something with what the driver has set up, and tell it what came back.
    fn with_active<T>(
        &mut self,
        stream: Option<&OwnedFd>,
        work: impl FnOnce(&mut Active, &mut bool) -> Result<T, Broken>,
    ) -> Option<T> {
        let mut active = self.active.take()?;
        let done = match work(&mut active, &mut self.used) {
            Err(Broken::Stream) => {
                self.end(stream);
                active.refuse_all().map(|()| None).map_err(Broken::from)
            }
            other => other.map(Some),
        };
        match done {
            Ok(done) => {
                tell(&mut active);
                self.active = Some(active);
                done
            }
            Err(_) => {
                active.all.interrupt.needs_reset();
                self.forget(stream);
                None
            }
        }
    }

    /// The driver is gone, with all that was under way for it.
    fn forget(&mut self, stream: Option<&OwnedFd>) {
        self.active = None;
        if self.used {
            self.end(stream);
        }
    }

    /// Pass requests on, or refuse them.
    fn pass(&mut self, stream: Option<&OwnedFd>, bounds: Bounds) -> Option<Passed> {
        if let Some(open) = stream.filter(|_| !self.ended) {
            let passed = self.with_active(stream, |active, used| {
                active.pass(open.as_fd(), bounds, used)
            });
            if !self.ended {
                return passed;
            }
        }
        self.with_active(stream, |active, _| active.refuse_next(bounds.requests))
    }

    fn is_blocked(&self) -> bool {
        let active = self.active.as_ref();
        active.is_some_and(|active| active.outgoing.is_some())
    }
}

/// Interrupt the driver once for all that has come back, if it wants to know.
fn tell(active: &mut Active) {
    if !std::mem::take(&mut active.news) {
        return;
    }
    let Activation {
        ram,
        queues,
        interrupt,
        ..
    } = &mut active.all;
    let mut due = false;
    for queue in queues {
        due |= queue.ready() && Interrupt::is_due(ram, queue);
    }
    if due {
        interrupt.trigger();
    }
}

/// A file system device.
#[derive(Debug)]
pub(crate) struct Files(Arc<Shared>);

impl Files {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }
}

impl Backend for Files {
    fn activate(&mut self, activation: Activation) {
        self.0.lock().active = Some(Active::new(activation));
    }

    fn notify(&mut self) -> bool {
        let passed = self.0.lock().pass(self.0.stream.get(), PASS);
        passed == Some(Passed::Bounded)
    }

    fn ready(&mut self) -> bool {
        let Some(stream) = self.0.stream.get() else {
            return false;
        };
        let mut state = self.0.lock();
        if state.ended {
            return false;
        }
        state.with_active(Some(stream), |active, _| active.receive(stream.as_fd()));
        // What ended is refused; what waits for the socket may have room by now.
        let again = state.is_blocked() || state.ended;
        again && state.pass(Some(stream), PASS) == Some(Passed::Bounded)
    }

    fn poll_fd(&self) -> Option<RawFd> {
        self.0.stream.get().map(AsRawFd::as_raw_fd)
    }

    fn interest(&self) -> EventSet {
        let state = self.0.lock();
        if state.ended || state.active.is_none() {
            return EventSet::empty();
        }
        let mut events = EventSet::IN;
        events.set(EventSet::OUT, state.is_blocked());
        events
    }

    fn immediate(&self) -> Option<Arc<dyn Immediate>> {
        let shared: Arc<dyn Immediate> = Arc::<Shared>::clone(&self.0);
        Some(shared)
    }

    fn queues(&self) -> Option<Vec<SavedQueue>> {
        let state = self.0.lock();
        state
            .active
            .as_ref()
            .map(|active| saved_queues(&active.all))
    }

    fn reset(&mut self) {
        self.0.lock().forget(self.0.stream.get());
    }
}

impl Immediate for Shared {
    fn serve(&self) -> bool {
        let Some(stream) = self.stream.get() else {
            return false;
        };
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            // Whoever serves it now may have looked for the last time.
            Err(TryLockError::WouldBlock) => return false,
        };
        // What changes what the device's thread waits for is for that thread.
        if state.ended || state.is_blocked() {
            return false;
        }
        if let Some(active) = &state.active {
            active.all.interrupt.notified();
        }
        let passed = state.pass(Some(stream), PASS_NOW);
        matches!(passed, Some(Passed::All)) && !state.ended
    }
}
