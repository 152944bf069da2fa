//! One stream between a port of the guest and a Unix socket of the host.

use super::packet::{Op, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use crate::memory::{Iovecs, send};
use crate::virtio::chain::Pieces;
use std::collections::VecDeque;
use std::io;
use std::num::Wrapping;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use vm_memory::GuestMemoryBackend;

/// Bytes that the guest may have on their way to a host program: what we promise to keep when the
/// host program does not read.
pub(super) const BUFFER: u32 = 1024 * 1024;
/// The guest hears of new credit when it may have used up this much of the old.
const CREDIT_STEP: u32 = BUFFER / 4;

/// The ports of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) host_port: u32,
    pub(super) guest_port: u32,
}

/// How far a stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// A host program wants to connect; the guest has not been asked.
    Requesting,
    /// The guest has been asked.
    Requested,
    /// The guest wanted to connect, and a host program listened; the guest does not know yet.
    Accepted,
    /// Both sides know.
    Open,
    /// The guest is done with it; what it sent is still on its way to the host program.
    Draining,
}

/// A stream is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The guest must be told: by failure, by a broken rule, or in answer to its close.
    Reset,
    /// The guest knows.
    Silent,
}

/// What to tell the guest next about a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// A packet without data, with flags.
    Control(Op, u32),
    /// Whatever can be read, at most so many bytes.
    Data(usize),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: UnixStream,
    pub(super) phase: Phase,
    /// It is in the list of streams that have something for the guest.
    pub(super) queued: bool,
    /// What the socket was when last asked; edges of epoll set these.
    pub(super) readable: bool,
    writable: bool,
    /// The host program closed both directions.
    hung_up: bool,
    /// There is nothing more to read from the host program.
    ended: bool,

    /// From the guest, not yet taken by the socket. At most [`BUFFER`] bytes.
    backlog: VecDeque<u8>,
    /// Bytes taken by the socket, ever; and what the guest last heard of it.
    forwarded: Wrapping<u32>,
    forwarded_told: Wrapping<u32>,
    credit_wanted: bool,

    /// Bytes sent to the guest, ever; and what it last said about its buffer.
    sent: Wrapping<u32>,
    guest_buffer: u32,
    guest_forwarded: Wrapping<u32>,
    credit_asked: bool,

    /// What the guest said it will not do any more, and what we said.
    guest_shutdown: u32,
    own_shutdown: u32,
}

impl Connection {
    pub(super) const fn new(stream: UnixStream, phase: Phase) -> Self {
        Self {
            stream,
            phase,
            queued: false,
            readable: true,
            writable: true,
            hung_up: false,
            ended: false,
            backlog: VecDeque::new(),
            forwarded: Wrapping(0),
            forwarded_told: Wrapping(0),
            credit_wanted: false,
            sent: Wrapping(0),
            guest_buffer: 0,
            guest_forwarded: Wrapping(0),
            credit_asked: false,
            guest_shutdown: 0,
            own_shutdown: 0,
        }
    }

    /// Note what a packet's header says about the guest's buffer.
    pub(super) const fn take_credit(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.guest_buffer = buf_alloc;
        self.guest_forwarded = Wrapping(fwd_cnt);
        self.credit_asked = false;
    }

    /// How many bytes the guest can take. A guest that lies hurts itself.
    fn credit(&self) -> usize {
        let outstanding = (self.sent - self.guest_forwarded).0;
        self.guest_buffer.saturating_sub(outstanding) as usize
    }

    /// Values for the header of a packet to the guest; it then knows them.
    pub(super) const fn give_credit(&mut self) -> (u32, u32) {
        self.forwarded_told = self.forwarded;
        self.credit_wanted = false;
        (BUFFER, self.forwarded.0)
    }

    /// What to tell the guest next, if anything.
    pub(super) fn next(&self) -> Option<Next> {
        match self.phase {
            Phase::Requesting => return Some(Next::Control(Op::Request, 0)),
            Phase::Requested | Phase::Draining => return None,
            Phase::Accepted => return Some(Next::Control(Op::Response, 0)),
            Phase::Open => {}
        }
        if self.credit_wanted {
            return Some(Next::Control(Op::CreditUpdate, 0));
        }
        let shutdown = self.shutdown_due();
        if shutdown & !self.own_shutdown != 0 {
            return Some(Next::Control(Op::Shutdown, shutdown));
        }
        if self.ended || !self.readable || self.guest_shutdown & SHUTDOWN_RECEIVE != 0 {
            return None;
        }
        match self.credit() {
            0 if self.credit_asked => None,
            0 => Some(Next::Control(Op::CreditRequest, 0)),
            credit => Some(Next::Data(credit)),
        }
    }

    /// What the host program will not do any more, as far as the guest may know it: the end comes
    /// after all data.
    const fn shutdown_due(&self) -> u32 {
        match (self.ended, self.hung_up) {
            (false, _) => 0,
            (true, false) => SHUTDOWN_SEND,
            (true, true) => SHUTDOWN_BOTH,
        }
    }

    /// A control packet is in the guest's hands.
    pub(super) const fn told(&mut self, op: Op, flags: u32) {
        match op {
            Op::Request => self.phase = Phase::Requested,
            Op::Response => self.phase = Phase::Open,
            Op::Shutdown => self.own_shutdown |= flags,
            Op::CreditRequest => self.credit_asked = true,
            _ => {}
        }
    }

    /// Data is in the guest's hands.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u32;
    }

    /// The socket has no more data, for good.
    pub(super) const fn end(&mut self) {
        self.ended = true;
        self.readable = false;
    }

    /// Epoll saw edges on the socket.
    pub(super) fn edges(
        &mut self,
        readable: bool,
        writable: bool,
        hung_up: bool,
    ) -> Result<(), End> {
        self.readable |= readable || hung_up;
        self.hung_up |= hung_up;
        if self.hung_up && matches!(self.phase, Phase::Requesting | Phase::Requested) {
            return Err(End::Reset);
        }
        if self.hung_up && self.guest_shutdown & SHUTDOWN_RECEIVE != 0 {
            // Its end will not be read, and nobody reads what the guest sends.
            return Err(End::Reset);
        }
        if writable {
            self.writable = true;
            self.flush()?;
        }
        Ok(())
    }

    /// Data from the guest: `bytes` of a packet's pieces, from `at` on.
    pub(super) fn receive<M: GuestMemoryBackend>(
        &mut self,
        pieces: &Pieces<'_, M>,
        at: usize,
        bytes: usize,
    ) -> Result<(), End> {
        if self.phase != Phase::Open || self.guest_shutdown & SHUTDOWN_SEND != 0 {
            return Err(End::Reset);
        }
        let mut done = 0;
        if self.backlog.is_empty() && self.writable {
            let mut vecs = Iovecs::new();
            for piece in pieces.range(at, bytes) {
                vecs.push(&piece);
            }
            done = self.sent_to_host(send(self.stream.as_fd(), &vecs))?;
        }
        let left = bytes - done;
        if left == 0 {
            return Ok(());
        }
        if self.backlog.len() + left > BUFFER as usize {
            // The guest had no credit for this.
            return Err(End::Reset);
        }
        let mut copy = vec![0u8; left];
        if !pieces.read(at + done, &mut copy) {
            return Err(End::Reset);
        }
        self.backlog.extend(copy);
        Ok(())
    }

    /// Account for a write to the socket.
    fn sent_to_host(&mut self, result: io::Result<usize>) -> Result<usize, End> {
        match result {
            Ok(bytes) => {
                self.forwarded += bytes as u32;
                if (self.forwarded - self.forwarded_told).0 >= CREDIT_STEP {
                    self.credit_wanted = true;
                }
                Ok(bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.writable = false;
                Ok(0)
            }
            Err(_) => Err(End::Reset),
        }
    }

    /// Give the socket what it can take of the backlog, and then what a guest's shutdown asks for.
    fn flush(&mut self) -> Result<(), End> {
        use rustix::net::SendFlags;
        while self.writable && !self.backlog.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let result = rustix::io::retry_on_intr(|| {
                rustix::net::send(&self.stream, self.backlog.as_slices().0, flags)
            });
            let done = self.sent_to_host(result.map_err(io::Error::from))?;
            self.backlog.drain(..done);
        }
        if self.backlog.is_empty() {
            // A burst's buffer is not kept.
            self.backlog = VecDeque::new();
            return self.finish();
        }
        Ok(())
    }

    /// The guest wants to know our credit.
    pub(super) const fn ask_credit(&mut self) {
        self.credit_wanted = true;
    }

    /// The guest will not do something any more. It is over when it will do nothing.
    pub(super) fn shut_down(&mut self, flags: u32) -> Result<(), End> {
        self.guest_shutdown |= flags & SHUTDOWN_BOTH;
        if self.backlog.is_empty() {
            self.finish()?;
        }
        Ok(())
    }

    /// The guest forgot the stream: it ends as soon as the host program has everything.
    pub(super) fn drain(&mut self) -> Result<(), End> {
        self.phase = Phase::Draining;
        if self.backlog.is_empty() {
            return Err(End::Silent);
        }
        Ok(())
    }

    /// Pass the guest's shutdown on, now that all its data is.
    fn finish(&self) -> Result<(), End> {
        use std::net::Shutdown;
        if self.phase == Phase::Draining {
            return Err(End::Silent);
        }
        let how = match self.guest_shutdown {
            0 => return Ok(()),
            SHUTDOWN_RECEIVE => Shutdown::Read,
            SHUTDOWN_SEND => Shutdown::Write,
            _ => return Err(End::Reset),
        };
        // An error means that the host program is gone already, and epoll says so too.
        let _ = self.stream.shutdown(how);
        Ok(())
    }

    /// Bytes kept for the host program.
    pub(super) fn buffered(&self) -> usize {
        self.backlog.len()
    }
}
