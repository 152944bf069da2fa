//! What waits to be written to a connection.

use super::{ConnectionError, HIGH_WATER};
use crate::direct::{Descriptors, send_with};
use hullbox_protocol::{
    DecodeError, Frame, HEADER_LEN, MAX_DATA, Stream, data_header, encode_into,
};
use rustix::io::Errno;
use rustix::net::SendFlags;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

/// Room for a full [`HIGH_WATER`] and one frame more. Untouched pages of it cost nothing.
const BUFFER_LEN: usize = HIGH_WATER + 2 * (MAX_DATA + HEADER_LEN);

/// Bytes on their way to the peer. The buffer is zeroed once, lazily by the
/// kernel, so that data can be read into its middle without unsafe code.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes that were written.
    written: u64,
    /// Descriptors that go with the byte of this number.
    attached: VecDeque<(u64, Descriptors)>,
}

impl Outbox {
    pub(crate) fn pending(&self) -> usize {
        self.end - self.start
    }

    /// Makes the buffer's free end at least `len` long.
    fn reserve(&mut self, len: usize) {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        if self.end + len <= self.buffer.len() {
            return;
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let needed = self.end + len;
        if self.buffer.is_empty() && needed <= BUFFER_LEN {
            self.buffer = vec![0; BUFFER_LEN];
        } else if self.buffer.len() < needed {
            self.buffer.resize(needed.next_multiple_of(BUFFER_LEN), 0);
        }
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.buffer[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Sends these with the next byte that is queued.
    pub(super) fn attach(&mut self, descriptors: Descriptors) {
        let at = self.written + self.pending() as u64;
        self.attached.push_back((at, descriptors));
    }

    pub(crate) fn push(&mut self, frame: &Frame) -> Result<(), DecodeError> {
        let mut wire = Vec::new();
        encode_into(frame, &mut wire)?;
        self.append(&wire);
        Ok(())
    }

    pub(super) fn read_from(
        &mut self,
        source: BorrowedFd<'_>,
        session: u32,
        stream: Stream,
        limit: usize,
    ) -> Result<usize, Errno> {
        let limit = limit.min(MAX_DATA);
        self.reserve(HEADER_LEN + limit);
        let body = self.end + HEADER_LEN;
        let read = loop {
            match rustix::io::read(source, &mut self.buffer[body..body + limit]) {
                Err(Errno::INTR) => {}
                result => break result?,
            }
        };
        if read > 0 {
            let header = data_header(session, stream, read).map_err(|_| Errno::OVERFLOW)?;
            self.buffer[self.end..body].copy_from_slice(&header);
            self.end = body + read;
        }
        Ok(read)
    }

    pub(super) fn flush(&mut self, fd: BorrowedFd<'_>) -> Result<(), ConnectionError> {
        while self.pending() > 0 {
            match self.write_some(fd) {
                Ok(sent) => {
                    self.start += sent;
                    self.written += sent as u64;
                }
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
        if self.buffer.len() > 2 * BUFFER_LEN {
            // A rare huge frame went out: give its memory back.
            (self.buffer, self.start, self.end) = (Vec::new(), 0, 0);
        }
        Ok(())
    }

    /// Writes once, what waits or the part of it before descriptors that go along.
    ///
    /// `MSG_NOSIGNAL`: a peer that went away is an error of this connection, not a SIGPIPE for the
    /// whole process.
    fn write_some(&mut self, fd: BorrowedFd<'_>) -> Result<usize, Errno> {
        let waiting = &self.buffer[self.start..self.end];
        let until = |at: u64| usize::try_from(at - self.written).unwrap_or(usize::MAX);
        let (now, next) = match self.attached.front() {
            Some((at, _)) if *at == self.written => (true, self.attached.get(1)),
            next => (false, next),
        };
        let len = next.map_or(waiting.len(), |(at, _)| until(*at).min(waiting.len()));
        let bytes = &waiting[..len];
        if !now {
            return rustix::net::send(fd, bytes, SendFlags::NOSIGNAL);
        }
        let sent = match self.attached.front() {
            Some((_, descriptors)) => send_with(fd, bytes, descriptors)?,
            None => 0,
        };
        if sent > 0 {
            // They are the peer's now.
            let _ = self.attached.pop_front();
        }
        Ok(sent)
    }
}
