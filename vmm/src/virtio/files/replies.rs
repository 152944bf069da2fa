//! Replies to the guest.

use super::{Active, Broken, MAX_MESSAGE, OUT_HEADER, Pending};
use crate::memory::{Iovecs, recv};
use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;

/// A pass ends after so many calls, or bytes: others have their turn, and the driver hears of what came.
const MAX_PASS: usize = 256;
const MAX_PASS_BYTES: usize = 2 << 20;

/// A reply that has come in part.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    header: [u8; OUT_HEADER],
    /// Bytes of the message so far, its header among them.
    got: usize,
    /// Whose it is, once the header is there.
    body: Option<Body>,
}

#[derive(Debug)]
struct Body {
    unique: u64,
    length: usize,
    pending: Pending,
}

impl Incoming {
    /// Give up what has begun.
    pub(super) fn abandon(&mut self) -> Option<(u64, Pending)> {
        let body = std::mem::take(self).body;
        body.map(|body| (body.unique, body.pending))
    }

    const fn is_idle(&self) -> bool {
        self.got == 0 && self.body.is_none()
    }
}

impl Active {
    /// Receive what has come. It is over when the socket has no more.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> Result<(), Broken> {
        let mut bytes = 0;
        for _ in 0..MAX_PASS {
            let received = match self.incoming.body.take() {
                Some(body) => self.receive_body(socket, body)?,
                None => self.receive_header(socket)?,
            };
            bytes += received;
            // One that waits for nothing hears of an end, or of what it did not ask for, soon enough.
            let rests = self.pending.is_empty() && self.incoming.is_idle();
            if received == 0 || rests || bytes >= MAX_PASS_BYTES {
                break;
            }
        }
        Ok(())
    }

    /// Receive a header, and what it leads if there is only one request that it can answer.
    fn receive_header(&mut self, socket: BorrowedFd<'_>) -> Result<usize, Broken> {
        let got = self.incoming.got;
        let mut header = self.incoming.header;
        let only = only(&self.pending).filter(|_| got == 0);
        let mut vecs = Iovecs::new();
        vecs.push_own(header.get_mut(got..).unwrap_or_default());
        if let Some((_, pending)) = only {
            let room = pending.writable.bytes().min(MAX_MESSAGE);
            let rest = room.saturating_sub(OUT_HEADER);
            pending
                .writable
                .gather(&self.all.ram, OUT_HEADER, rest, &mut vecs);
        }
        let bytes = read(socket, &vecs)?;
        if bytes == 0 {
            return Ok(0);
        }
        self.incoming.header = header;
        self.incoming.got += bytes;
        self.identify()?;
        Ok(bytes)
    }

    /// Find out whose reply it is, once its header is there, and finish it if it is whole.
    fn identify(&mut self) -> Result<(), Broken> {
        let Incoming { header, got, .. } = self.incoming;
        if got < OUT_HEADER {
            return Ok(());
        }
        let [a, b, c, d, _, _, _, _, unique @ ..] = header;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let unique = u64::from_le_bytes(unique);
        let fits =
            |pending: &Pending| (got..=pending.writable.bytes().min(MAX_MESSAGE)).contains(&length);
        // What came behind the header, if anything, is where the only one has its place.
        if !self.pending.get(&unique).is_some_and(fits) {
            return Err(Broken::Stream);
        }
        if let Some(pending) = self.pending.remove(&unique) {
            self.advance(Body {
                unique,
                length,
                pending,
            })?;
        }
        Ok(())
    }

    /// Receive what follows a header, and the header behind it.
    fn receive_body(&mut self, socket: BorrowedFd<'_>, body: Body) -> Result<usize, Broken> {
        let left = body.length - self.incoming.got;
        let mut next = [0; OUT_HEADER];
        let mut vecs = Iovecs::new();
        body.pending
            .writable
            .gather(&self.all.ram, self.incoming.got, left, &mut vecs);
        if !self.pending.is_empty() {
            vecs.push_own(&mut next);
        }
        let bytes = match read(socket, &vecs) {
            Ok(bytes) if bytes > 0 => bytes,
            nothing => {
                self.incoming.body = Some(body);
                return nothing;
            }
        };
        let (now, behind) = (bytes.min(left), bytes.saturating_sub(left));
        self.incoming.got += now;
        self.advance(body)?;
        if behind > 0 {
            self.incoming.header = next;
            self.incoming.got = behind;
            self.identify()?;
        }
        Ok(bytes)
    }

    /// Finish a reply that is whole; any other is waited for.
    fn advance(&mut self, body: Body) -> Result<(), Broken> {
        if self.incoming.got < body.length {
            self.incoming.body = Some(body);
            return Ok(());
        }
        let Incoming { header, .. } = std::mem::take(&mut self.incoming);
        let Body {
            length, pending, ..
        } = body;
        let Pending {
            queue,
            head,
            writable,
        } = pending;
        Ok(self.reply((queue, head), &writable, header, length)?)
    }
}

/// The only request that is waited for, if it is the only one.
fn only(pending: &HashMap<u64, Pending>) -> Option<(&u64, &Pending)> {
    pending.iter().next().filter(|_| pending.len() == 1)
}

/// How many bytes were there; 0 if there are none at the moment.
fn read(socket: BorrowedFd<'_>, vecs: &Iovecs<'_>) -> Result<usize, Broken> {
    match recv(socket, vecs) {
        Ok(0) => Err(Broken::Stream),
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(_) => Err(Broken::Stream),
    }
}
