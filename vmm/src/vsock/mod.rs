//! The vsock device without its transport (virtio 1.2, section 5.10): packets in rings on one side,
//! Unix sockets on the other.
//!
//! The VMM's own device and the helper machine's vhost-user back end are both made of
//! [`VsockCore`]. A guest that dials port `P` of CID 2 reaches the Unix socket `<uds_path>_P`. A
//! program of the host dials `<uds_path>`, writes `CONNECT <port>\n` and reads `OK <port>\n`.
//!
//! Data goes from guest memory to sockets and back without a copy in between, except for what a
//! host program does not take at once. Nothing is without a bound: streams, host programs that
//! have not said what they want, resets that the guest has no buffer for, and bytes kept.

mod connection;
mod host;
mod packet;

use crate::memory::{Iovecs, recv};
use crate::virtio::chain::{Buffers, Pieces};
use connection::{BUFFER, Connection, End, Key, Next, Phase};
use host::{Host, HostEvent, welcome};
use packet::{HEADER_LEN, HOST_CID, Header, Op, SHUTDOWN_BOTH, TYPE_STREAM};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::GuestMemoryBackend;

/// What a pass over a queue did.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    used: bool,
    more: bool,
}

/// Packets from the guest that are done with, of which its driver was not told. All that it does when it
/// is told is to free them, so that can wait for something that matters: an interrupt for each would have
/// it stop what it does, twice.
#[derive(Debug, Clone, Copy, Default)]
struct Untold {
    packets: usize,
    bytes: usize,
}

impl Untold {
    /// A quarter of the fewest packets (of two descriptors each) that a full queue holds.
    const MAX_PACKETS: usize = 16;
    /// Memory of the guest that nobody uses.
    const MAX_BYTES: usize = 256 << 10;

    const fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes;
    }

    const fn are_many(self) -> bool {
        self.packets >= Self::MAX_PACKETS || self.bytes >= Self::MAX_BYTES
    }
}

/// Most streams at a time.
const MAX_CONNECTIONS: usize = 1024;
/// Most bytes kept for host programs that do not read, over all streams.
const MAX_BUFFERED: usize = 32 << 20;
/// Most resets that wait to be told to the guest; more are forgotten.
const MAX_RESETS: usize = 256;
/// Most packets for one call.
const MAX_PACKETS: usize = 256;
/// Largest data of a packet, either way.
const MAX_DATA: usize = 64 * 1024;
/// Ports of host programs that connect to the guest count up from here.
const FIRST_HOST_PORT: u32 = 1 << 30;

/// A ring in guest memory breaks the rules: the device cannot go on until it is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the driver broke a virtqueue's rules")]
pub struct QueueBroken;

impl From<virtio_queue::Error> for QueueBroken {
    fn from(_: virtio_queue::Error) -> Self {
        Self
    }
}

/// What [`VsockCore::service`] did, and what is left to its caller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Served {
    /// Notify the driver of the queue of packets to the guest.
    pub rx: bool,
    /// Notify the driver of the queue of packets from the guest.
    pub tx: bool,
    /// There is more to do: call again without waiting.
    pub more: bool,
}

/// See the module.
///
/// It waits for nothing. Its owner calls [`VsockCore::service`] whenever the guest notified one of
/// the two data queues or [`VsockCore::epoll_fd`] is readable.
#[derive(Debug)]
pub struct VsockCore {
    guest_cid: u64,
    host: Host,
    connections: HashMap<Key, Connection>,
    /// Streams that have something to tell the guest, in turn.
    ready: VecDeque<Key>,
    /// Streams that the guest must hear the end of.
    resets: VecDeque<Key>,
    next_port: u32,
    new_events: Vec<HostEvent>,
    untold: Untold,
}

impl VsockCore {
    /// A device for the guest with this context id, with the host's socket at `uds_path`.
    ///
    /// # Errors
    /// The socket could not be made.
    pub fn new(guest_cid: u64, uds_path: &Path) -> io::Result<Self> {
        Ok(Self::assemble(guest_cid, Host::new(uds_path)?))
    }

    /// The same on a listener that somebody else bound to `uds_path`.
    ///
    /// # Errors
    /// The listener cannot be watched.
    pub fn on_listener(
        guest_cid: u64,
        listener: UnixListener,
        uds_path: &Path,
    ) -> io::Result<Self> {
        let host = Host::on_listener(listener, uds_path)?;
        Ok(Self::assemble(guest_cid, host))
    }

    fn assemble(guest_cid: u64, host: Host) -> Self {
        Self {
            guest_cid,
            host,
            connections: HashMap::new(),
            ready: VecDeque::new(),
            resets: VecDeque::new(),
            next_port: FIRST_HOST_PORT,
            new_events: Vec::new(),
            untold: Untold::default(),
        }
    }

    /// The guest's context id, which is also its driver's configuration space.
    #[must_use]
    pub const fn guest_cid(&self) -> u64 {
        self.guest_cid
    }

    /// Readable when the host's side has something for [`VsockCore::service`].
    #[must_use]
    pub fn epoll_fd(&self) -> RawFd {
        self.host.epoll_fd()
    }

    /// Move everything that can move, within a bound.
    ///
    /// # Errors
    /// [`QueueBroken`]: the device must stop and ask for a reset. Nonsense inside a packet is not
    /// an error but its sender's loss.
    pub fn service<M: GuestMemoryBackend>(
        &mut self,
        memory: &M,
        rx: &mut Queue,
        tx: &mut Queue,
    ) -> Result<Served, QueueBroken> {
        self.take_host_events();
        let more = self.transmit(memory, tx)?;
        let to_guest = self.receive(memory, rx)?;
        let told = to_guest.used && rx.needs_notification(memory)?;
        // Whether the driver wants to hear of it is not asked: that counts packets from the last time it
        // was asked, which in a guest that goes on from a snapshot was before it.
        let tell = self.untold.packets > 0 && (told || self.untold.are_many());
        if tell {
            self.untold = Untold::default();
        }
        Ok(Served {
            rx: told,
            tx: tell,
            more: more || to_guest.more,
        })
    }

    /// Forget all streams; host programs see them end.
    pub fn reset(&mut self) {
        self.connections.clear();
        self.ready.clear();
        self.resets.clear();
        self.untold = Untold::default();
    }

    /// Take note of what happened on the host's side.
    pub(crate) fn take_host_events(&mut self) {
        let mut events = std::mem::take(&mut self.new_events);
        self.host.events(&mut events);
        for event in events.drain(..) {
            match event {
                HostEvent::Wants(stream, port) => self.open_from_host(stream, port),
                HostEvent::Socket {
                    data,
                    readable,
                    writable,
                    hung_up,
                } => {
                    let key = Key {
                        host_port: (data >> 32) as u32,
                        guest_port: data as u32,
                    };
                    let Some(connection) = self.connections.get_mut(&key) else {
                        continue;
                    };
                    let result = connection.edges(readable, writable, hung_up);
                    self.settle(key, result);
                }
            }
        }
        self.new_events = events;
    }

    /// A host program asked for a port of the guest.
    fn open_from_host(&mut self, stream: UnixStream, guest_port: u32) {
        if self.connections.len() >= MAX_CONNECTIONS {
            return;
        }
        // There are more ports than streams.
        let key = loop {
            let key = Key {
                host_port: self.next_port,
                guest_port,
            };
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_HOST_PORT);
            if !self.connections.contains_key(&key) {
                break key;
            }
        };
        if self.host.rewatch(&stream, event_data(key)).is_ok() {
            let connection = Connection::new(stream, Phase::Requesting);
            self.connections.insert(key, connection);
            self.settle(key, Ok(()));
        }
    }

    /// The guest asked for a host program.
    fn open_from_guest(&mut self, key: Key, header: &Header) -> Result<(), End> {
        if self.connections.len() >= MAX_CONNECTIONS || key.host_port == 0 {
            return Err(End::Reset);
        }
        let stream = self.host.connect(key.host_port).map_err(|_| End::Reset)?;
        self.host
            .watch(&stream, event_data(key))
            .map_err(|_| End::Reset)?;
        let mut connection = Connection::new(stream, Phase::Accepted);
        connection.take_credit(header.buf_alloc, header.fwd_cnt);
        self.connections.insert(key, connection);
        Ok(())
    }

    /// After anything that happened to a stream: end it, or give it its turn if it has something
    /// to tell.
    fn settle(&mut self, key: Key, result: Result<(), End>) {
        if let Err(end) = result {
            self.connections.remove(&key);
            if end == End::Reset && self.resets.len() < MAX_RESETS {
                self.resets.push_back(key);
            }
            return;
        }
        if let Some(connection) = self.connections.get_mut(&key)
            && !connection.queued
            && connection.next().is_some()
        {
            connection.queued = true;
            self.ready.push_back(key);
        }
    }

    /// Take packets from the guest. True: there are more.
    fn transmit<M: GuestMemoryBackend>(
        &mut self,
        memory: &M,
        queue: &mut Queue,
    ) -> Result<bool, QueueBroken> {
        let mut buffers = Buffers::new();
        for _ in 0..MAX_PACKETS {
            let Some(mut chain) = queue.iter(memory)?.next() else {
                if queue.enable_notification(memory)? {
                    continue;
                }
                return Ok(false);
            };
            let mut bytes = 0;
            if buffers.fill(&mut chain, memory).is_ok() {
                bytes = buffers.readable.bytes();
                self.take_packet(&buffers.readable);
            }
            queue.add_used(memory, chain.head_index(), 0)?;
            self.untold.add(bytes);
        }
        Ok(true)
    }

    /// A packet from the guest. Packets that cannot be told to belong to anything are dropped.
    fn take_packet<M: GuestMemoryBackend>(&mut self, packet: &Pieces<'_, M>) {
        let mut bytes = [0u8; HEADER_LEN];
        if !packet.read(0, &mut bytes) {
            return;
        }
        let header = Header::parse(&bytes);
        if header.src_cid != self.guest_cid || header.dst_cid != HOST_CID {
            return;
        }
        let key = Key {
            host_port: header.dst_port,
            guest_port: header.src_port,
        };
        let op = Op::from_u16(header.op);
        if op == Some(Op::Rst) {
            if let Some(connection) = self.connections.get_mut(&key) {
                let result = connection.drain();
                self.settle(key, result);
            }
            return;
        }
        let result = match op {
            Some(op) if header.kind == TYPE_STREAM => self.obey(key, op, &header, packet),
            _ => Err(End::Reset),
        };
        self.settle(key, result);
    }

    fn obey<M: GuestMemoryBackend>(
        &mut self,
        key: Key,
        op: Op,
        header: &Header,
        packet: &Pieces<'_, M>,
    ) -> Result<(), End> {
        let Some(connection) = self.connections.get_mut(&key) else {
            return match op {
                Op::Request => self.open_from_guest(key, header),
                _ => Err(End::Reset),
            };
        };
        connection.take_credit(header.buf_alloc, header.fwd_cnt);
        match op {
            Op::Response if connection.phase == Phase::Requested => {
                connection.phase = Phase::Open;
                welcome(&connection.stream, key.host_port).map_err(|_| End::Reset)
            }
            Op::Rw => {
                let bytes = header.len as usize;
                if bytes > MAX_DATA || bytes > packet.bytes() - HEADER_LEN {
                    return Err(End::Reset);
                }
                connection.receive(packet, HEADER_LEN, bytes)?;
                let backlog = connection.buffered();
                if backlog > 0 && self.buffered() > MAX_BUFFERED {
                    return Err(End::Reset);
                }
                Ok(())
            }
            Op::Shutdown => connection.shut_down(header.flags & SHUTDOWN_BOTH),
            Op::CreditUpdate => Ok(()),
            Op::CreditRequest => {
                connection.ask_credit();
                Ok(())
            }
            // A second request, or an answer to none.
            Op::Request | Op::Response | Op::Rst => Err(End::Reset),
        }
    }

    fn buffered(&self) -> usize {
        self.connections.values().map(Connection::buffered).sum()
    }

    /// Give packets to the guest, as long as it has buffers for them.
    fn receive<M: GuestMemoryBackend>(
        &mut self,
        memory: &M,
        queue: &mut Queue,
    ) -> Result<Progress, QueueBroken> {
        let mut progress = Progress::default();
        let mut buffers = Buffers::new();
        for _ in 0..MAX_PACKETS {
            if self.ready.is_empty() && self.resets.is_empty() {
                return Ok(progress);
            }
            let Some(mut chain) = queue.iter(memory)?.next() else {
                if queue.enable_notification(memory)? {
                    continue;
                }
                return Ok(progress);
            };
            let head = chain.head_index();
            let fits =
                buffers.fill(&mut chain, memory).is_ok() && buffers.writable.bytes() >= HEADER_LEN;
            let written = if fits {
                self.next_packet(&buffers.writable)
            } else {
                // A buffer that can hold no packet goes back empty.
                Some(0)
            };
            let Some(written) = written else {
                queue.go_to_previous_position();
                return Ok(progress);
            };
            queue.add_used(memory, head, written)?;
            progress.used = true;
        }
        progress.more = true;
        Ok(progress)
    }

    /// Put the next packet for the guest into a buffer and tell its length; `None` if there turns
    /// out to be none. Each stream is asked once: where none has anything that fits, the buffer
    /// goes back empty.
    fn next_packet<M: GuestMemoryBackend>(&mut self, buffer: &Pieces<'_, M>) -> Option<u32> {
        if let Some(key) = self.resets.pop_front() {
            let header = self.header(key, Op::Rst, 0, 0, (0, 0));
            buffer.write(0, &header.bytes());
            return Some(HEADER_LEN as u32);
        }
        let mut too_small = false;
        for _ in 0..self.ready.len() {
            let Some(key) = self.ready.pop_front() else {
                break;
            };
            let Some(connection) = self.connections.get_mut(&key) else {
                continue;
            };
            connection.queued = false;
            let (op, flags, bytes) = match fill(connection, buffer) {
                Fill::Packet(op, flags, bytes) => (op, flags, bytes),
                Fill::Nothing => {
                    self.settle(key, Ok(()));
                    continue;
                }
                Fill::NoRoom => {
                    too_small = true;
                    self.settle(key, Ok(()));
                    continue;
                }
            };
            let credit = connection.give_credit();
            let header = self.header(key, op, flags, bytes as u32, credit);
            buffer.write(0, &header.bytes());
            self.settle(key, Ok(()));
            return Some((HEADER_LEN + bytes) as u32);
        }
        too_small.then_some(0)
    }

    const fn header(
        &self,
        key: Key,
        op: Op,
        flags: u32,
        len: u32,
        (buf_alloc, fwd_cnt): (u32, u32),
    ) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: key.host_port,
            dst_port: key.guest_port,
            len,
            kind: TYPE_STREAM,
            op: op as u16,
            flags,
            buf_alloc,
            fwd_cnt,
        }
    }
}

/// What [`fill`] put into a buffer.
enum Fill {
    /// Operation, flags and number of bytes of data.
    Packet(Op, u32, usize),
    /// The stream has nothing to tell after all.
    Nothing,
    /// The stream has data, and the buffer takes a header alone.
    NoRoom,
}

/// Put what a stream has to tell after the place for the header.
fn fill<M: GuestMemoryBackend>(connection: &mut Connection, buffer: &Pieces<'_, M>) -> Fill {
    loop {
        let limit = match connection.next() {
            None => return Fill::Nothing,
            Some(Next::Control(op, flags)) => {
                connection.told(op, flags);
                return Fill::Packet(op, flags, 0);
            }
            Some(Next::Data(limit)) => limit,
        };
        let room = (buffer.bytes() - HEADER_LEN).min(limit).min(MAX_DATA);
        let mut vecs = Iovecs::new();
        for piece in buffer.range(HEADER_LEN, room) {
            vecs.push(&piece);
        }
        if vecs.bytes() == 0 {
            return Fill::NoRoom;
        }
        match recv(connection.stream.as_fd(), &vecs) {
            Ok(0) => connection.end(),
            Ok(bytes) => {
                connection.sent(bytes);
                return Fill::Packet(Op::Rw, 0, bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => connection.readable = false,
            // A reset by the host program is an end, too.
            Err(_) => connection.end(),
        }
    }
}

/// The number under which epoll tells of a stream's socket. A host port is never 0, so that it is
/// none of the host's own.
const fn event_data(key: Key) -> u64 {
    (key.host_port as u64) << 32 | key.guest_port as u64
}

const _: () = assert!(MAX_DATA <= BUFFER as usize);

#[cfg(test)]
mod tests;
