//! Requests from the guest.

use super::{Active, Broken, IN_HEADER, MAX_MESSAGE, OUT_HEADER, Pending};
use crate::memory::{GuestRam, Iovecs, send};
use crate::virtio::spans::{Spans, spans_of};
use std::io;
use std::os::fd::BorrowedFd;
use virtio_queue::{Error, QueueOwnedT, QueueT};

/// What may be done in one go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) requests: usize,
    pub(super) bytes: usize,
}

/// How far that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    /// The queues are empty, and the driver notifies of what comes next.
    All,
    /// There is more than the bounds allow.
    Bounded,
    /// The socket takes no more at the moment.
    Blocked,
}

/// A request that was taken from a queue.
#[derive(Debug)]
pub(super) struct Outgoing {
    queue: usize,
    head: u16,
    /// As the guest had it when the request was taken.
    header: [u8; IN_HEADER],
    readable: Spans,
    pub(super) writable: Spans,
    sent: usize,
}

impl Outgoing {
    pub(super) const fn chain(&self) -> (usize, u16) {
        (self.queue, self.head)
    }

    /// The request's number.
    pub(super) fn unique(&self) -> u64 {
        let bytes = self.header[8..].first_chunk();
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// Whether it is as long as it says and not too long, and any reply has a place for its header.
    fn is_whole(&self) -> bool {
        let [a, b, c, d, ..] = self.header;
        let says = u32::from_le_bytes([a, b, c, d]) as usize;
        let answerable = self.writable.bytes() == 0 || self.writable.bytes() >= OUT_HEADER;
        (IN_HEADER..=MAX_MESSAGE).contains(&says) && says == self.readable.bytes() && answerable
    }

    /// Send what is left of it, as far as the socket takes it; whether that was all.
    fn send(&mut self, ram: &GuestRam, socket: BorrowedFd<'_>) -> Result<bool, Broken> {
        while self.sent < self.readable.bytes() {
            // The kernel only reads it; a piece of one's own is one to write to.
            let mut header = self.header;
            let mut vecs = Iovecs::new();
            vecs.push_own(header.get_mut(self.sent..).unwrap_or_default());
            let skip = self.sent.max(IN_HEADER);
            self.readable
                .gather(ram, skip, self.readable.bytes() - skip, &mut vecs);
            match send(socket, &vecs) {
                Ok(0) => return Err(Broken::Stream),
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(_) => return Err(Broken::Stream),
            }
        }
        Ok(true)
    }
}

impl Active {
    /// Pass requests on, those of high priority first.
    pub(super) fn pass(
        &mut self,
        socket: BorrowedFd<'_>,
        bounds: Bounds,
        used: &mut bool,
    ) -> Result<Passed, Broken> {
        let mut left = bounds;
        loop {
            if let Some(outgoing) = &mut self.outgoing {
                *used = true;
                if !outgoing.send(&self.all.ram, socket)? {
                    return Ok(Passed::Blocked);
                }
                self.sent()?;
            }
            let Some(next) = self.take_next()? else {
                return Ok(Passed::All);
            };
            let goes_on = next.is_whole() && !self.pending.contains_key(&next.unique());
            let bytes = if goes_on { next.readable.bytes() } else { 0 };
            if left.requests == 0 || left.bytes < bytes {
                self.put_back(&next);
                return Ok(Passed::Bounded);
            }
            left.requests -= 1;
            left.bytes -= bytes;
            if goes_on {
                self.outgoing = Some(next);
            } else {
                self.refuse(next.chain(), &next.writable, next.unique())?;
            }
        }
    }

    /// A request is out: it waits for its reply, or it is one that gets none.
    fn sent(&mut self) -> Result<(), Broken> {
        let Some(outgoing) = self.outgoing.take() else {
            return Ok(());
        };
        if outgoing.writable.bytes() == 0 {
            return Ok(self.give_back(outgoing.queue, outgoing.head, 0)?);
        }
        let unique = outgoing.unique();
        let pending = Pending {
            queue: outgoing.queue,
            head: outgoing.head,
            writable: outgoing.writable,
        };
        self.pending.insert(unique, pending);
        // A driver has as many under way as there is room for in its queues.
        let queues = self.all.queues.iter();
        let room: usize = queues.map(|queue| usize::from(queue.size())).sum();
        match self.pending.len() > room {
            true => Err(Broken::Queue),
            false => Ok(()),
        }
    }

    /// Answer what is in the queues with EIO.
    pub(super) fn refuse_next(&mut self, most: usize) -> Result<Passed, Broken> {
        self.refuse_all()?;
        for _ in 0..most {
            let Some(next) = self.take_next()? else {
                return Ok(Passed::All);
            };
            self.refuse(next.chain(), &next.writable, next.unique())?;
        }
        Ok(Passed::Bounded)
    }

    /// The next request of any queue; what is none goes back at once.
    fn take_next(&mut self) -> Result<Option<Outgoing>, Error> {
        let ram = &self.all.ram;
        for (index, queue) in self.all.queues.iter_mut().enumerate() {
            if !queue.ready() {
                continue;
            }
            loop {
                let Some(mut chain) = queue.iter(ram)?.next() else {
                    if queue.enable_notification(ram)? {
                        continue;
                    }
                    break;
                };
                let head = chain.head_index();
                let mut header = [0; IN_HEADER];
                if let Ok((readable, writable)) = spans_of(&mut chain, ram)
                    && readable.read(ram, &mut header)
                {
                    return Ok(Some(Outgoing {
                        queue: index,
                        head,
                        header,
                        readable,
                        writable,
                        sent: 0,
                    }));
                }
                queue.add_used(ram, head, 0)?;
                self.news = true;
            }
        }
        Ok(None)
    }

    fn put_back(&mut self, outgoing: &Outgoing) {
        if let Some(queue) = self.all.queues.get_mut(outgoing.queue) {
            queue.go_to_previous_position();
        }
    }
}
