//! The network device (virtio 1.2, section 5.1): frames between a guest and a socket.
//!
//! The socket is of type `SOCK_SEQPACKET`. A frame is one message, with the virtio-net header
//! before it in both directions; checksums and segmentation are left to whoever is at its other end,
//! and so is the judgement of what is in either. Frames go straight between the socket and guest
//! memory.
//!
//! Each direction waits in its own way. Where the socket takes no frame the guest's stay in its
//! queue, and where the guest has no buffers the socket's stay there; either goes on when the other
//! side makes room, and nothing is polled. Without a socket, or with nobody at its other end,
//! what the guest sends is dropped.
//!
//! There may be several sockets: see [`cables`].

mod cables;
mod card;
mod receive;
#[cfg(test)]
mod tests;
mod transmit;

pub(crate) use cables::Cables;
pub(crate) use card::Card;

use super::used::UsedRing;
use super::{Activation, Backend, Identity, SavedQueue, saved_queues};
use crate::config::NetConfig;
use crate::stats::Counters;
use cables::Sockets;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use virtio_queue::{Error, QueueT};
use vmm_sys_util::epoll::EventSet;

const KIND: u32 = 1;
/// Largest sizes of the queues: frames to the guest, frames from it. One to the guest takes up to
/// 43 buffers of Linux's; one from it takes a single descriptor, which leads to a table. Linux fills the
/// first with buffers as its interface comes up, in a start's time: 1.5 KiB each, of pages touched first.
const QUEUE_SIZES: &[u16] = &[128, 128];
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// VIRTIO_NET_F_*: checksums and segments of TCP may be left to the other side, in both directions.
const F_CSUM: u64 = 1 << 0;
const F_GUEST_CSUM: u64 = 1 << 1;
const F_MTU: u64 = 1 << 3;
const F_MAC: u64 = 1 << 5;
const F_GUEST_TSO4: u64 = 1 << 7;
const F_GUEST_TSO6: u64 = 1 << 8;
const F_HOST_TSO4: u64 = 1 << 11;
const F_HOST_TSO6: u64 = 1 << 12;
/// The configuration says whether there is a link.
const F_STATUS: u64 = 1 << 16;
/// A frame to the guest may fill several buffers.
const F_MRG_RXBUF: u64 = 1 << 15;

/// Where the configuration says whether there is a link.
pub(crate) const LINK_AT: usize = 6;
/// Length of the virtio-net header, in bytes, and where it says how many buffers a frame fills.
const HEADER: usize = 12;
const NUM_BUFFERS: usize = 10;
/// Shortest and longest message, in bytes: header, Ethernet header, up to the longest IP packet.
const MIN_MESSAGE: usize = HEADER + 14;
const MAX_MESSAGE: usize = MIN_MESSAGE + 65535;
/// A pass in either direction ends after this many frames or bytes.
const MAX_PASS_FRAMES: usize = 64;
const MAX_PASS_BYTES: usize = 1 << 20;
/// What the device's thread sends in a pass.
const PASS: Limits = Limits {
    frames: MAX_PASS_FRAMES,
    bytes: MAX_PASS_BYTES,
    frame_bytes: MAX_MESSAGE,
};

/// What the driver sees.
pub(crate) fn identity(config: &NetConfig) -> Identity {
    // struct virtio_net_config, up to its last field that we use.
    let mut space = vec![0u8; 12];
    space[..6].copy_from_slice(&config.mac);
    space[LINK_AT..LINK_AT + 2].copy_from_slice(&link(true));
    space[10..].copy_from_slice(&config.mtu.to_le_bytes());
    Identity {
        kind: KIND,
        features: F_CSUM
            | F_GUEST_CSUM
            | F_MTU
            | F_MAC
            | F_GUEST_TSO4
            | F_GUEST_TSO6
            | F_HOST_TSO4
            | F_HOST_TSO6
            | F_MRG_RXBUF
            | F_STATUS,
        queue_sizes: QUEUE_SIZES,
        config: space,
    }
}

/// What the configuration says there: VIRTIO_NET_S_LINK_UP, or nothing. A template's card says the same as
/// any other: it is the guest that has its interface down.
pub(crate) const fn link(up: bool) -> [u8; 2] {
    (up as u16).to_le_bytes()
}

/// Where a pass over the guest's frames ends.
#[derive(Debug)]
struct Limits {
    /// After so many.
    frames: usize,
    /// After the one that makes it so many bytes.
    bytes: usize,
    /// Before one that is longer.
    frame_bytes: usize,
}

/// How one direction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// Frames pass.
    Open,
    /// A frame waits until there is room for it.
    Blocked,
}

/// What a driver has set up.
#[derive(Debug)]
struct Active {
    all: Activation,
    /// Of the receive queue.
    used: UsedRing,
}

/// A network device.
#[derive(Debug)]
pub(crate) struct Net {
    sockets: Sockets,
    counters: Arc<Counters>,
    active: Option<Active>,
    receiving: Flow,
    transmitting: Flow,
}

impl Net {
    /// A device that passes frames through these sockets, when they are there.
    pub(crate) fn new(cables: Arc<Cables>, counters: Arc<Counters>) -> Self {
        Self {
            sockets: Sockets::new(cables),
            counters,
            active: None,
            receiving: Flow::Open,
            transmitting: Flow::Open,
        }
    }

    /// Call one direction; a queue that makes no sense ends the device until it is reset.
    fn serve(&mut self, pass: impl FnOnce(&mut Self, &mut Active) -> Result<bool, Error>) -> bool {
        let Some(mut active) = self.active.take() else {
            return false;
        };
        match pass(self, &mut active) {
            Ok(more) => {
                self.active = Some(active);
                more
            }
            Err(_) => {
                active.all.interrupt.needs_reset();
                self.forget_driver();
                false
            }
        }
    }

    /// What waited for a driver's buffers, or in its queue, does so no more.
    fn forget_driver(&mut self) {
        self.active = None;
        for flow in [&mut self.receiving, &mut self.transmitting] {
            *flow = Flow::Open;
        }
        for one in &mut self.sockets.all {
            one.is_full = false;
        }
    }

    /// Whether the guest can be given anything at the moment.
    fn receives(&self) -> bool {
        let queues = self.active.as_ref().map(|active| &active.all.queues);
        let ready = queues
            .and_then(|queues| queues.get(RECEIVE))
            .is_some_and(QueueT::ready);
        ready && self.receiving == Flow::Open
    }

    /// Count a frame that did not arrive.
    fn count_dropped(&self) {
        self.counters.dropped_frames.add(1);
    }
}

impl Backend for Net {
    fn activate(&mut self, activation: Activation) {
        self.sockets.refresh();
        self.active = activation
            .queues
            .get(RECEIVE)
            .map(UsedRing::new)
            .map(|used| Active {
                all: activation,
                used,
            });
        self.sockets.watch(self.receives());
    }

    fn notify(&mut self) -> bool {
        self.sockets.refresh();
        // One of the queues has buffers that it had not: which, nobody tells. Or there is another socket.
        if self.receiving == Flow::Blocked {
            self.receiving = Flow::Open;
            self.serve(Self::receive);
        }
        if !self.sockets.all.iter().any(|one| one.is_full) {
            // The one that took no more is gone, if there was one.
            self.transmitting = Flow::Open;
        }
        let more = match self.transmitting {
            Flow::Blocked => false,
            Flow::Open => self.serve(|net, active| net.transmit(active, &PASS)),
        };
        self.sockets.watch(self.receives());
        more
    }

    fn ready(&mut self) -> bool {
        if self.receiving == Flow::Open {
            // What it leaves has the descriptor stay readable.
            self.serve(Self::receive);
        }
        let mut more = false;
        if self.transmitting == Flow::Blocked {
            self.transmitting = Flow::Open;
            more = self.serve(|net, active| net.transmit(active, &PASS));
        }
        self.sockets.watch(self.receives());
        more
    }

    fn poll_fd(&self) -> Option<RawFd> {
        self.sockets.poll_fd()
    }

    fn interest(&self) -> EventSet {
        match &self.active {
            Some(_) => self.sockets.interest(self.receives()),
            None => EventSet::empty(),
        }
    }

    fn queues(&self) -> Option<Vec<SavedQueue>> {
        self.active.as_ref().map(|active| saved_queues(&active.all))
    }

    fn reset(&mut self) {
        self.forget_driver();
        self.sockets.watch(false);
    }
}

/// Whether a socket's error says that it has no other end any more.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NotConnected
    )
}
