//! The file system device (virtio 1.2, section 5.11): FUSE messages between a guest and a stream
//! socket, whose other end serves files.
//!
//! ```text
//!  hiprio ──┐ requests, one after the other ─►
//!           ├────────────── stream ──────────── the file server
//! request ──┘ ◄─ replies in any order
//! ```
//!
//! Of FUSE the device knows the two headers: a request's length and number (`unique`), and a reply's.
//! All else goes straight between the socket and guest memory, and is for both ends to judge. A message
//! is as long as its header says; a request whose header says something else than its buffers is refused
//! here, and so is one that is longer than any driver of ours makes, so that the stream stays in step.
//! What a request's header said is copied once and sent from that copy.
//!
//! Where the socket takes no more, the queues are not read; a reply is received whether the guest has
//! asked for more meanwhile or not. A reply to nothing, or one that does not fit, ends the connection.
//! When it has ended, or was never there, every request is answered with EIO. A driver that is
//! reset ends a connection that it used: the other end knows a guest by its files.
//!
//! There is no notification queue, and no DAX: a window into the host's page cache would let a guest
//! write to what is read-only.

mod replies;
mod requests;
mod serve;
#[cfg(test)]
mod tests;

pub(crate) use serve::{Files, Shared};

use super::spans::Spans;
use super::{Activation, Identity};
use crate::config::{FilesConfig, MAX_TAG_BYTES};
use replies::Incoming;
use requests::Outgoing;
use rustix::net::Shutdown;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use virtio_queue::{Error, QueueT};

const KIND: u32 = 26;
/// Largest sizes of the queues: requests of high priority, and the others. Linux's longest request is a
/// page shorter than four descriptors less than its queue has, so that its usual 1 MiB needs 260.
const QUEUE_SIZES: &[u16] = &[64, 512];
/// Lengths of `struct fuse_in_header` and `struct fuse_out_header`.
const IN_HEADER: usize = 40;
const OUT_HEADER: usize = 16;
/// Most bytes of a message: 1 MiB of data, and a page for what stands before it.
const MAX_MESSAGE: usize = (1 << 20) + 4096;
/// EIO, as a reply has it.
const IO_ERROR: i32 = -5;

/// What the driver sees.
pub(crate) fn identity(config: &FilesConfig) -> Identity {
    // struct virtio_fs_config: the tag, and the number of request queues.
    let mut space = vec![0; MAX_TAG_BYTES + 4];
    for (place, byte) in space[..MAX_TAG_BYTES].iter_mut().zip(config.tag.bytes()) {
        *place = byte;
    }
    space[MAX_TAG_BYTES..].copy_from_slice(&1u32.to_le_bytes());
    Identity {
        kind: KIND,
        features: 0,
        queue_sizes: QUEUE_SIZES,
        config: space,
    }
}

/// A request that the server has, and its place for the reply.
#[derive(Debug)]
struct Pending {
    queue: usize,
    head: u16,
    writable: Spans,
}

/// Why the device cannot go on as before.
#[derive(Debug)]
enum Broken {
    /// The driver's queue makes no sense.
    Queue,
    /// The stream is over, or the other end does not keep to the rules.
    Stream,
}

impl From<Error> for Broken {
    fn from(_: Error) -> Self {
        Self::Queue
    }
}

/// What a driver has set up, and what is under way for it.
#[derive(Debug)]
struct Active {
    all: Activation,
    /// By `unique`.
    pending: HashMap<u64, Pending>,
    outgoing: Option<Outgoing>,
    incoming: Incoming,
    /// Something went back that the driver was not told of.
    news: bool,
}

/// The device between two calls.
#[derive(Debug, Default)]
struct State {
    active: Option<Active>,
    /// Some request went out.
    used: bool,
    /// No request goes out any more.
    ended: bool,
}

impl Active {
    fn new(all: Activation) -> Self {
        Self {
            all,
            pending: HashMap::new(),
            outgoing: None,
            incoming: Incoming::default(),
            news: false,
        }
    }

    /// Give a chain back with a reply in it, whose header comes last.
    fn reply(
        &mut self,
        (queue, head): (usize, u16),
        writable: &Spans,
        header: [u8; OUT_HEADER],
        bytes: usize,
    ) -> Result<(), Error> {
        let whole = writable.write(&self.all.ram, &header);
        // At most the longest message.
        let written = if whole { bytes as u32 } else { 0 };
        self.give_back(queue, head, written)
    }

    fn give_back(&mut self, queue: usize, head: u16, written: u32) -> Result<(), Error> {
        self.news = true;
        let Activation { ram, queues, .. } = &mut self.all;
        match queues.get_mut(queue) {
            Some(queue) => queue.add_used(&*ram, head, written),
            None => Ok(()),
        }
    }

    /// Answer a request with EIO, if it has a place for an answer.
    fn refuse(&mut self, chain: (usize, u16), writable: &Spans, unique: u64) -> Result<(), Error> {
        let mut header = [0; OUT_HEADER];
        header[..4].copy_from_slice(&(OUT_HEADER as u32).to_le_bytes());
        header[4..8].copy_from_slice(&IO_ERROR.to_le_bytes());
        header[8..].copy_from_slice(&unique.to_le_bytes());
        self.reply(chain, writable, header, OUT_HEADER)
    }

    /// Answer all that is under way with EIO.
    fn refuse_all(&mut self) -> Result<(), Error> {
        if let Some(outgoing) = self.outgoing.take() {
            self.refuse(outgoing.chain(), &outgoing.writable, outgoing.unique())?;
        }
        if let Some((unique, pending)) = self.incoming.abandon() {
            self.refuse((pending.queue, pending.head), &pending.writable, unique)?;
        }
        for (unique, pending) in std::mem::take(&mut self.pending) {
            self.refuse((pending.queue, pending.head), &pending.writable, unique)?;
        }
        Ok(())
    }
}

impl State {
    /// The connection is over. The other end shall hear so.
    fn end(&mut self, stream: Option<&OwnedFd>) {
        if self.ended {
            return;
        }
        self.ended = true;
        if let Some(stream) = stream {
            // It fails where the other end was faster.
            let _ = rustix::net::shutdown(stream, Shutdown::Both);
        }
    }
}
