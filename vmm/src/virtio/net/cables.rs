//! What carries the device's frames: a socket for each network interface that the guest makes of its card.
//!
//! Interfaces beside the first have MAC addresses of their own, by which the guest's frames find their
//! socket. Whatever comes on any of them goes to the one receive queue. With one socket nobody looks at
//! addresses, and the device waits for that socket itself; with several it waits for an epoll descriptor
//! with all of them in it.

use crate::worker::DeviceLink;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// Length of a MAC address, in bytes.
pub(super) const MAC_BYTES: usize = 6;

/// A socket and whose it is.
#[derive(Debug)]
struct Cable {
    mac: [u8; MAC_BYTES],
    socket: OwnedFd,
}

/// The sockets as whoever has the VM plugs them in and out, at any time.
#[derive(Debug, Default)]
pub(crate) struct Cables {
    list: Mutex<Vec<Arc<Cable>>>,
    /// Counts the changes of the list.
    changes: AtomicU64,
    /// All sockets, once there were several.
    epoll: OnceLock<Epoll>,
    /// Has the device look.
    device: OnceLock<DeviceLink>,
}

impl Cables {
    /// Say whose device it is.
    pub(crate) fn belong_to(&self, device: DeviceLink) {
        // There is one.
        let _ = self.device.set(device);
    }

    /// Have frames with this source address, and those to it, pass through this socket. One that had
    /// the address before is unplugged.
    pub(crate) fn plug(&self, mac: [u8; MAC_BYTES], socket: OwnedFd) -> io::Result<()> {
        self.change(|list| {
            list.retain(|cable| cable.mac != mac);
            list.push(Arc::new(Cable { mac, socket }));
        })
    }

    /// Let go of the socket of this address.
    pub(crate) fn unplug(&self, mac: [u8; MAC_BYTES]) -> io::Result<()> {
        self.change(|list| list.retain(|cable| cable.mac != mac))
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Cable>>)) -> io::Result<()> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        // The first one plugged in is all that most devices ever have.
        if !list.is_empty() && self.epoll.get().is_none() {
            // Another thread cannot have been faster: it would hold the list.
            let _ = self.epoll.set(Epoll::new()?);
        }
        change(&mut list);
        self.changes.fetch_add(1, Ordering::Release);
        drop(list);
        if let Some(device) = self.device.get() {
            device.notify();
        }
        Ok(())
    }
}

/// A socket as the device uses it.
#[derive(Debug)]
pub(super) struct Plugged {
    cable: Arc<Cable>,
    /// Somebody may send something.
    pub(super) receives: bool,
    /// Somebody may take something.
    pub(super) sends: bool,
    /// The guest's next frame waits until this one takes it.
    pub(super) is_full: bool,
    /// What it is watched for, in the epoll descriptor.
    watched: EventSet,
}

impl Plugged {
    const fn new(cable: Arc<Cable>) -> Self {
        Self {
            cable,
            receives: true,
            sends: true,
            is_full: false,
            watched: EventSet::empty(),
        }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.cable.socket.as_fd()
    }
}

/// The device's own view of its sockets.
#[derive(Debug)]
pub(super) struct Sockets {
    cables: Arc<Cables>,
    changes: u64,
    pub(super) all: Vec<Plugged>,
    turn: usize,
    /// The device waits for the epoll descriptor, and no longer for its only socket, which is kept until
    /// its thread has heard so.
    watches_all: bool,
    first: Option<Arc<Cable>>,
}

impl Sockets {
    pub(super) fn new(cables: Arc<Cables>) -> Self {
        let mut sockets = Self {
            cables,
            changes: 0,
            all: Vec::new(),
            turn: 0,
            watches_all: false,
            first: None,
        };
        sockets.refresh();
        sockets
    }

    #[cfg(test)]
    pub(super) fn cables(&self) -> Arc<Cables> {
        Arc::clone(&self.cables)
    }

    /// Whether something was plugged in or out since the last [`Self::refresh`].
    pub(super) fn is_outdated(&self) -> bool {
        self.changes != self.cables.changes.load(Ordering::Acquire)
    }

    /// Take note of what was plugged in and out.
    pub(super) fn refresh(&mut self) {
        if !self.is_outdated() {
            return;
        }
        let cables = Arc::clone(&self.cables);
        let list = cables.list.lock().unwrap_or_else(PoisonError::into_inner);
        self.changes = cables.changes.load(Ordering::Acquire);
        let mut before = std::mem::take(&mut self.all);
        for cable in list.iter() {
            let same = |one: &Plugged| Arc::ptr_eq(&one.cable, cable);
            self.all.push(match before.iter().position(same) {
                Some(at) => before.swap_remove(at),
                None => Plugged::new(Arc::clone(cable)),
            });
        }
        drop(list);
        if let Some(epoll) = self.cables.epoll.get() {
            self.watches_all = true;
            for gone in &mut before {
                watch(epoll, gone, EventSet::empty());
            }
        }
        if let (None, [only]) = (&self.first, self.all.as_slice()) {
            self.first = Some(Arc::clone(&only.cable));
        }
    }

    /// All of them, beginning with another one each time: the guest's buffers may not be enough for all.
    pub(super) fn in_turn(&mut self) -> impl Iterator<Item = &mut Plugged> {
        self.turn = self.turn.wrapping_add(1);
        let begin = self.turn.checked_rem(self.all.len()).unwrap_or(0);
        let (after, from) = self.all.split_at_mut(begin);
        from.iter_mut().chain(after)
    }

    /// The socket for a frame of the guest, by its place.
    pub(super) fn place_of(&self, source: impl FnOnce() -> [u8; MAC_BYTES]) -> Option<usize> {
        if let [] | [_] = self.all.as_slice() {
            return (!self.all.is_empty()).then_some(0);
        }
        let source = source();
        // What is nobody's is for others to judge.
        let found = self.all.iter().position(|one| one.cable.mac == source);
        Some(found.unwrap_or(0))
    }

    /// What the device's thread is to wait for.
    pub(super) fn poll_fd(&self) -> Option<RawFd> {
        match self.watches_all {
            true => self.cables.epoll.get().map(AsRawFd::as_raw_fd),
            false => self.first.as_ref().map(|cable| cable.socket.as_raw_fd()),
        }
    }

    /// And what of it, given whether anything is received at the moment.
    pub(super) fn interest(&self, receives: bool) -> EventSet {
        if self.watches_all {
            return EventSet::IN;
        }
        self.all
            .first()
            .map_or(EventSet::empty(), |only| wanted(only, receives))
    }

    /// Watch each socket for what the device waits for now, where it waits for them together.
    pub(super) fn watch(&mut self, receives: bool) {
        let Some(epoll) = self.cables.epoll.get().filter(|_| self.watches_all) else {
            return;
        };
        for one in &mut self.all {
            let wanted = wanted(one, receives);
            watch(epoll, one, wanted);
        }
    }
}

fn wanted(one: &Plugged, receives: bool) -> EventSet {
    let mut events = EventSet::empty();
    events.set(EventSet::IN, receives && one.receives);
    events.set(EventSet::OUT, one.is_full);
    events
}

/// With nothing, not even its errors are heard of.
fn watch(epoll: &Epoll, one: &mut Plugged, wanted: EventSet) {
    let operation = match (one.watched.is_empty(), wanted.is_empty()) {
        _ if wanted == one.watched => return,
        (true, _) => ControlOperation::Add,
        (false, true) => ControlOperation::Delete,
        (false, false) => ControlOperation::Modify,
    };
    let event = EpollEvent::new(wanted, 0);
    // It fails only for want of memory; then this one stands still until the next change.
    if epoll
        .ctl(operation, one.cable.socket.as_raw_fd(), event)
        .is_ok()
    {
        one.watched = wanted;
    }
}
