//! Frames to the guest.

use super::cables::Plugged;
use super::{
    Active, F_MRG_RXBUF, Flow, HEADER, MAX_MESSAGE, MAX_PASS_BYTES, MAX_PASS_FRAMES, MIN_MESSAGE,
    NUM_BUFFERS, Net, RECEIVE,
};
use crate::memory::{GuestRam, Iovecs, recv};
use crate::stats::Counters;
use crate::virtio::Activation;
use crate::virtio::chain::Buffers;
use crate::virtio::used::{Used, UsedRing};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::io;
use std::os::fd::BorrowedFd;
use virtio_queue::{Error, Queue, QueueOwnedT, QueueT};

/// What is at the head of the socket.
enum Next {
    /// A frame of so many bytes.
    Frame(usize),
    /// A message that is no frame, or one that is too long.
    Refused,
    /// Nothing at the moment.
    Nothing,
    /// Nothing any more.
    End,
}

/// Look at the next message, which stays.
fn peek(socket: BorrowedFd<'_>) -> Next {
    let flags = RecvFlags::PEEK | RecvFlags::TRUNC | RecvFlags::DONTWAIT;
    match rustix::net::recv(socket, &mut [0u8; 0], flags) {
        // No frame is empty, and the end cannot be told from a message that is.
        Ok((_, 0)) => Next::End,
        Ok((_, length)) if (MIN_MESSAGE..=MAX_MESSAGE).contains(&length) => Next::Frame(length),
        Ok(_) => Next::Refused,
        Err(Errno::AGAIN | Errno::INTR) => Next::Nothing,
        Err(_) => Next::End,
    }
}

/// Throw the next message away.
fn discard(socket: BorrowedFd<'_>) {
    // If it cannot be, the next look at it tells.
    let _ = rustix::net::recv(socket, &mut [0u8; 0], RecvFlags::DONTWAIT);
}

/// Whether the guest has buffers for a frame.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    /// They have been taken from the queue.
    Enough,
    /// It may have later, and will notify.
    NotYet,
    /// Not for one of this length.
    Never,
}

/// Buffers of the guest that a frame is to fill, and what it takes to find them.
struct Gathered<'a> {
    /// The queue's position before the first.
    begin: u16,
    /// Chains and the bytes that each takes.
    chains: Vec<(u16, usize)>,
    vecs: Iovecs<'a>,
    first: Buffers<'a, GuestRam>,
    other: Buffers<'a, GuestRam>,
    used: Vec<Used>,
}

impl<'a> Gathered<'a> {
    const fn new() -> Self {
        Self {
            begin: 0,
            chains: Vec::new(),
            vecs: Iovecs::new(),
            first: Buffers::new(),
            other: Buffers::new(),
            used: Vec::new(),
        }
    }

    /// Take up to `most` chains that hold `bytes` bytes from the queue. If there are not as many, the
    /// queue is left as it is.
    fn gather(
        &mut self,
        ram: &'a GuestRam,
        queue: &mut Queue,
        bytes: usize,
        most: usize,
    ) -> Result<Room, Error> {
        self.chains.clear();
        self.vecs.clear();
        self.begin = queue.next_avail();
        // A driver that adds buffers all the while has its frame the next time.
        for _ in 0..=2 * usize::from(queue.size()) {
            if self.vecs.bytes() >= bytes {
                return Ok(Room::Enough);
            }
            if self.chains.len() == most || self.vecs.is_full() {
                queue.set_next_avail(self.begin);
                return Ok(Room::Never);
            }
            let Some(mut chain) = queue.iter(ram)?.next() else {
                // It has seen all that there are: the driver notifies of the one after them.
                if queue.enable_notification(ram)? {
                    continue;
                }
                break;
            };
            let head = chain.head_index();
            let buffers = match self.chains.is_empty() {
                true => &mut self.first,
                false => &mut self.other,
            };
            let whole = buffers.fill(&mut chain, ram).is_ok();
            let room = if whole { buffers.writable.bytes() } else { 0 };
            if self.chains.is_empty() && room < HEADER {
                // The header must lie in the first (virtio 1.2, section 5.1.6.3.1).
                UsedRing::add(ram, queue, &[Used { head, bytes: 0 }])?;
                self.begin = queue.next_avail();
                continue;
            }
            for piece in buffers.writable.range(0, room) {
                self.vecs.push(&piece);
            }
            self.chains.push((head, room));
        }
        queue.set_next_avail(self.begin);
        Ok(Room::NotYet)
    }

    /// Give the buffers back with a frame of `bytes` bytes in them.
    fn give_back(
        &mut self,
        ram: &GuestRam,
        queue: &mut Queue,
        mut bytes: usize,
    ) -> Result<(), Error> {
        // No more than there are in a queue.
        let count = self.chains.len() as u16;
        self.first.writable.write(NUM_BUFFERS, &count.to_le_bytes());
        self.used.clear();
        for &(head, room) in &self.chains {
            let filled = bytes.min(room);
            bytes -= filled;
            self.used.push(Used {
                head,
                // At most the longest message.
                bytes: filled as u32,
            });
        }
        UsedRing::add(ram, queue, &self.used)
    }
}

impl Net {
    /// Put what is in the socket into the receive queue, as far as there are buffers. Never true:
    /// what is left keeps the socket readable.
    pub(super) fn receive(&mut self, active: &mut Active) -> Result<bool, Error> {
        let Activation {
            ram,
            queues,
            interrupt,
            features,
        } = &mut active.all;
        let Some(queue) = queues.get_mut(RECEIVE).filter(|queue| queue.ready()) else {
            return Ok(false);
        };
        let ram = &*ram;
        let most = match *features & F_MRG_RXBUF {
            0 => 1,
            _ => usize::from(queue.size()),
        };
        let mut buffers = Gathered::new();
        for one in self.sockets.in_turn().filter(|one| one.receives) {
            self.receiving = pass(one, &mut buffers, (ram, &mut *queue), most, &self.counters)?;
            if self.receiving == Flow::Blocked {
                break;
            }
        }
        if active.used.is_due(ram, queue) {
            interrupt.trigger();
        }
        Ok(false)
    }
}

/// Put what is in a socket into the receive queue, as far as there are buffers.
fn pass<'a>(
    one: &mut Plugged,
    buffers: &mut Gathered<'a>,
    (ram, queue): (&'a GuestRam, &mut Queue),
    most: usize,
    counters: &Counters,
) -> Result<Flow, Error> {
    let mut bytes = 0;
    for _ in 0..MAX_PASS_FRAMES {
        if bytes >= MAX_PASS_BYTES {
            break;
        }
        let length = match peek(one.socket()) {
            Next::Frame(length) => length,
            Next::Refused => {
                discard(one.socket());
                counters.dropped_frames.add(1);
                continue;
            }
            Next::Nothing => break,
            Next::End => {
                one.receives = false;
                break;
            }
        };
        match buffers.gather(ram, queue, length, most)? {
            Room::Enough => {}
            Room::NotYet => return Ok(Flow::Blocked),
            Room::Never => {
                discard(one.socket());
                counters.dropped_frames.add(1);
                continue;
            }
        }
        match recv(one.socket(), &buffers.vecs) {
            Ok(length) => {
                buffers.give_back(ram, queue, length)?;
                bytes += length;
            }
            // Somebody else took it.
            Err(error) => {
                queue.set_next_avail(buffers.begin);
                one.receives = error.kind() == io::ErrorKind::WouldBlock;
                break;
            }
        }
    }
    Ok(Flow::Open)
}
