//! The host side of vsock: connections, credit and Unix sockets (virtio 1.2, section 5.10).
//!
//! [`VsockCore`] is the device without its transport: whoever owns the two data queues calls
//! [`VsockCore::service`] whenever the guest kicked one of them or [`VsockCore::epoll_fd`] is
//! readable. The microVM's own virtio device does that, and so does the helper machine's
//! vhost-user backend.
//!
//! A guest that dials port `P` of CID 2 reaches the Unix socket `<uds_path>_P`. A program of the
//! host dials `<uds_path>`, writes `CONNECT <port>\n` and reads `OK <port>\n`.
//!
//! Nothing here is without a bound: connections, callers, answers waiting for a receive buffer
//! (beyond [`MAX_ANSWERS`] the guest's packets wait in its own queue), and bytes held for a host
//! socket that does not take them.

mod connection;
mod host;
mod packet;

use connection::{Connection, Progress, State};
use host::{CALLER_PORT, HostSide, LISTENER_TOKEN};
use packet::{
    ConnectionKey, HEADER_LEN, HOST_CID, Header, MAX_PAYLOAD, Op, SHUTDOWN_RECEIVE, SHUTDOWN_SEND,
    TYPE_STREAM,
};
use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use virtio_queue::{
    DescriptorChain, Error as QueueError, Queue, QueueOwnedT, QueueT, Reader, Writer,
};
use vm_memory::GuestMemory;
use vm_memory::bitmap::BitmapSlice;
use vmm_sys_util::epoll::{Epoll, EpollEvent, EventSet};

/// Most connections at a time.
pub const MAX_CONNECTIONS: usize = 1023;
/// Most packets without payload that wait for a receive buffer of the guest.
pub const MAX_ANSWERS: usize = 512;
/// Host ports of connections that the host opened start here.
const FIRST_HOST_PORT: u32 = 1 << 30;
/// Events taken from epoll at a time.
const EVENT_BATCH: usize = 32;
/// Rounds of [`VsockCore::service`] before its caller gets to look at other events.
const MAX_ROUNDS: usize = 64;

/// Which queues have used buffers that the driver wants to hear of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Served {
    /// Notify the driver of the receive queue.
    pub rx: bool,
    /// Notify the driver of the transmit queue.
    pub tx: bool,
    /// There is more to do: call again without waiting.
    pub more: bool,
}

/// A packet without payload for the guest.
#[derive(Debug)]
enum Answer {
    /// About a connection, whose credit account is filled in when it is sent.
    About(ConnectionKey, Op, u32),
    /// There is no such connection.
    Reset(ConnectionKey),
}

/// The vsock device without its transport. See the module's documentation.
#[derive(Debug)]
pub struct VsockCore {
    guest_cid: u64,
    epoll: Epoll,
    host: HostSide,
    connections: HashMap<ConnectionKey, Connection>,
    answers: VecDeque<Answer>,
    /// Connections with bytes for the guest, in turn.
    ready: VecDeque<ConnectionKey>,
    next_host_port: u32,
    scratch: Box<[u8]>,
}

impl VsockCore {
    /// Listens at `uds_path` for a guest whose context id is `guest_cid`.
    ///
    /// # Errors
    /// When the socket cannot be bound (its directory is missing, the path is taken or too long).
    pub fn new(guest_cid: u64, uds_path: &Path) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let host = HostSide::listen(uds_path, &epoll)?;
        Ok(Self::assemble(guest_cid, epoll, host))
    }

    /// The same on a listener that somebody else bound to `uds_path`.
    ///
    /// # Errors
    /// When the listener cannot be watched.
    pub fn on_listener(
        guest_cid: u64,
        listener: UnixListener,
        uds_path: &Path,
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let host = HostSide::take_over(listener, uds_path, &epoll)?;
        Ok(Self::assemble(guest_cid, epoll, host))
    }

    fn assemble(guest_cid: u64, epoll: Epoll, host: HostSide) -> Self {
        Self {
            guest_cid,
            host,
            epoll,
            connections: HashMap::new(),
            answers: VecDeque::new(),
            ready: VecDeque::new(),
            next_host_port: FIRST_HOST_PORT,
            scratch: vec![0; MAX_PAYLOAD].into_boxed_slice(),
        }
    }

    /// The guest's context id, as its driver reads it from the configuration space.
    #[must_use]
    pub const fn guest_cid(&self) -> u64 {
        self.guest_cid
    }

    /// Readable when a host socket has something for [`Self::service`].
    #[must_use]
    pub fn epoll_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Forgets every connection: the device was reset, or the VM restored.
    pub fn reset(&mut self) {
        self.connections.clear();
        self.answers.clear();
        self.ready.clear();
        self.host.hang_up();
    }

    /// Moves everything that can move, within a bound.
    ///
    /// # Errors
    /// When a queue itself is unusable (an index or address that cannot be): the device should
    /// stop and ask for a reset. Nonsense inside a packet is the sender's loss only.
    pub fn service<M: GuestMemory>(
        &mut self,
        mem: &M,
        rx: &mut Queue,
        tx: &mut Queue,
    ) -> Result<Served, QueueError> {
        let mut served = Served::default();
        self.take_events();
        rx.disable_notification(mem)?; // we hear of new buffers only while we lack them
        let (mut rx_used, mut tx_used) = (false, false);
        for round in 0..MAX_ROUNDS {
            tx.disable_notification(mem)?;
            let sent = self.take_from_guest(mem, tx)?;
            let received = self.give_to_guest(mem, rx)?;
            tx_used |= sent;
            rx_used |= received;
            let stalled = self.answers.len() >= MAX_ANSWERS;
            // The driver may have added buffers since we looked; it kicks for later ones only.
            let more_tx = tx.enable_notification(mem)? && !stalled;
            let more_rx = self.wants_to_give() && rx.enable_notification(mem)?;
            if !more_tx && !more_rx {
                break;
            }
            served.more = round + 1 == MAX_ROUNDS;
        }
        served.tx = tx_used && tx.needs_notification(mem)?;
        served.rx = rx_used && rx.needs_notification(mem)?;
        Ok(served)
    }

    fn wants_to_give(&self) -> bool {
        !self.answers.is_empty() || !self.ready.is_empty()
    }

    // --- from the guest

    fn take_from_guest<M: GuestMemory>(
        &mut self,
        mem: &M,
        tx: &mut Queue,
    ) -> Result<bool, QueueError> {
        let mut used = false;
        // At most one queue's worth: a driver cannot keep us here.
        for _ in 0..tx.size() {
            if self.answers.len() >= MAX_ANSWERS {
                break;
            }
            let Some(chain) = tx.pop_descriptor_chain(mem) else {
                break;
            };
            let head = chain.head_index();
            if let Some((header, len)) = self.read_packet(mem, chain) {
                self.handle(&header, len);
            }
            tx.add_used(mem, head, 0)?;
            used = true;
        }
        Ok(used)
    }

    /// Copies a packet out of guest memory, once: header, and payload into the scratch buffer.
    fn read_packet<M: GuestMemory>(
        &mut self,
        mem: &M,
        chain: DescriptorChain<&M>,
    ) -> Option<(Header, usize)> {
        let mut reader = Reader::new(mem, chain).ok()?;
        let header = Header::read_from(&mut reader).ok()?;
        let len = usize::try_from(header.len).ok()?;
        if header.op() != Some(Op::Data) {
            return Some((header, 0));
        }
        let payload = self.scratch.get_mut(..len)?;
        reader.read_exact(payload).ok()?;
        Some((header, len))
    }

    fn handle(&mut self, header: &Header, len: usize) {
        let key = header.key();
        if header.src_cid != self.guest_cid || header.dst_cid != HOST_CID {
            return; // not from this guest, or not for us: there is nobody to answer
        }
        let op = header.op().filter(|_| header.kind == TYPE_STREAM);
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.note_credit(header);
        } else if op != Some(Op::Request) {
            if op != Some(Op::Reset) {
                self.answers.push_back(Answer::Reset(key));
            }
            return;
        }
        match op {
            Some(Op::Request) => self.guest_dials(key, header),
            Some(Op::Response) => self.guest_answers(key),
            Some(Op::Reset) => self.settle(key, Connection::drain),
            Some(Op::Shutdown) => self.guest_shuts_down(key, header.flags),
            Some(Op::Data) => self.guest_sends(key, len),
            Some(Op::CreditUpdate) => {}
            Some(Op::CreditRequest) => self.answer(key, Op::CreditUpdate, 0),
            None => self.break_off(key),
        }
        self.rearm(key);
    }

    fn answer(&mut self, key: ConnectionKey, op: Op, flags: u32) {
        self.answers.push_back(Answer::About(key, op, flags));
    }

    /// Ends a connection at once; the guest hears of it.
    fn break_off(&mut self, key: ConnectionKey) {
        self.connections.remove(&key);
        self.answers.push_back(Answer::Reset(key));
    }

    fn guest_dials(&mut self, key: ConnectionKey, header: &Header) {
        if self.connections.contains_key(&key) {
            return self.break_off(key);
        }
        let opened = (self.connections.len() < MAX_CONNECTIONS && key.host_port != CALLER_PORT)
            .then(|| self.host.dial(key.host_port).ok())
            .flatten()
            .and_then(|stream| Connection::new(stream, State::Established, &self.epoll, key).ok());
        match opened {
            Some(mut connection) => {
                connection.note_credit(header);
                self.connections.insert(key, connection);
                self.answer(key, Op::Response, 0);
            }
            None => self.answers.push_back(Answer::Reset(key)),
        }
    }

    fn guest_answers(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        if connection.state != State::AwaitingGuest || connection.greet_host(key).is_err() {
            return self.break_off(key);
        }
        connection.state = State::Established;
    }

    fn guest_shuts_down(&mut self, key: ConnectionKey, flags: u32) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        if connection.shut_down(flags) == Progress::Finished {
            self.break_off(key);
        }
    }

    fn guest_sends(&mut self, key: ConnectionKey, len: usize) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        match connection.take_from_guest(&self.scratch[..len]) {
            Some(Progress::Open) => self.settle_credit(key),
            _ => self.break_off(key),
        }
    }

    fn settle_credit(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.get_mut(&key)
            && connection.owes_credit()
        {
            // Counts as told from now on: the answer carries the account of when it is sent.
            connection.stamp(&mut Header::default());
            self.answer(key, Op::CreditUpdate, 0);
        }
    }

    /// Takes a step that may end the connection without a word to the guest.
    fn settle(&mut self, key: ConnectionKey, step: impl FnOnce(&mut Connection) -> Progress) {
        if let Some(connection) = self.connections.get_mut(&key)
            && step(connection) != Progress::Open
        {
            self.connections.remove(&key);
        }
    }

    fn rearm(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.get_mut(&key)
            && connection.arm(&self.epoll, key).is_err()
        {
            self.break_off(key);
        }
    }

    // --- to the guest

    fn give_to_guest<M: GuestMemory>(
        &mut self,
        mem: &M,
        rx: &mut Queue,
    ) -> Result<bool, QueueError> {
        let mut used = false;
        for _ in 0..rx.size() {
            if !self.wants_to_give() {
                break;
            }
            let Some(chain) = rx.pop_descriptor_chain(mem) else {
                break;
            };
            let head = chain.head_index();
            // A chain that cannot hold a header is handed back empty.
            let written = match Writer::new(mem, chain) {
                Ok(writer) if writer.available_bytes() >= HEADER_LEN => self.fill(writer),
                _ => Some(0),
            };
            let Some(written) = written else {
                rx.go_to_previous_position();
                continue;
            };
            rx.add_used(mem, head, written)?;
            used = true;
        }
        Ok(used)
    }

    /// Writes the next packet: bytes written, or `None` when there turned out to be nothing.
    fn fill<B: BitmapSlice>(&mut self, mut writer: Writer<'_, B>) -> Option<u32> {
        let header = match self.answers.pop_front() {
            Some(answer) => self.answer_header(&answer)?,
            None => {
                let room = writer.available_bytes() - HEADER_LEN;
                let (header, len) = self.next_data(room)?;
                header.write_to(&mut writer).ok()?;
                writer.write_all(self.scratch.get(..len)?).ok()?;
                return u32::try_from(HEADER_LEN + len).ok();
            }
        };
        header.write_to(&mut writer).ok()?;
        u32::try_from(HEADER_LEN).ok()
    }

    fn answer_header(&mut self, answer: &Answer) -> Option<Header> {
        match *answer {
            Answer::Reset(key) => Some(Header::to_guest(self.guest_cid, key, Op::Reset)),
            Answer::About(key, op, flags) => {
                let connection = self.connections.get_mut(&key)?; // it ended meanwhile
                let mut header = Header::to_guest(self.guest_cid, key, op);
                header.flags = flags;
                connection.stamp(&mut header);
                Some(header)
            }
        }
    }

    /// Reads at most `room` bytes of the connection whose turn it is into the scratch buffer.
    fn next_data(&mut self, room: usize) -> Option<(Header, usize)> {
        let key = self.ready.pop_front()?;
        let connection = self.connections.get_mut(&key)?;
        connection.queued = false;
        let limit = room.min(connection.credit()).min(self.scratch.len());
        if limit == 0 || !connection.may_read() {
            if !connection.asked_for_credit && !connection.host_ended && connection.credit() == 0 {
                connection.asked_for_credit = true;
                self.answer(key, Op::CreditRequest, 0);
            }
            self.rearm(key);
            return None;
        }
        match connection.read(&mut self.scratch[..limit]) {
            Ok(0) => {
                self.host_ends(key);
                None
            }
            Ok(count) => {
                let mut header = Header::to_guest(self.guest_cid, key, Op::Data);
                header.len = u32::try_from(count).ok()?;
                connection.stamp(&mut header);
                if count == limit && connection.may_read() {
                    connection.queued = true;
                    self.ready.push_back(key);
                }
                self.rearm(key);
                Some((header, count))
            }
            Err(error) if connection::is_transient(&error) => {
                self.rearm(key);
                None
            }
            Err(_) => {
                self.break_off(key);
                None
            }
        }
    }

    /// The host sent its last byte, or closed its end altogether.
    fn host_ends(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        connection.host_ended = true;
        if connection.state == State::AwaitingGuest {
            return self.break_off(key);
        }
        let flags = if connection.host_hung_up {
            SHUTDOWN_SEND | SHUTDOWN_RECEIVE
        } else {
            SHUTDOWN_SEND
        };
        self.answer(key, Op::Shutdown, flags);
        self.rearm(key);
    }

    // --- from the host

    /// Takes one batch of events; the rest keeps [`Self::epoll_fd`] readable.
    fn take_events(&mut self) {
        let mut events = [EpollEvent::default(); EVENT_BATCH];
        let Ok(count) = self.epoll.wait(0, &mut events) else {
            return; // interrupted: the caller comes again
        };
        for event in &events[..count] {
            let key = ConnectionKey::from_token(event.data());
            if event.data() == LISTENER_TOKEN {
                // A caller that gave up meanwhile is no loss.
                let _ = self.host.accept(&self.epoll);
            } else if key.host_port == CALLER_PORT {
                if let Some((port, stream)) = self.host.hear(key.guest_port, &self.epoll) {
                    self.host_dials(port, stream);
                }
            } else {
                self.host_stirs(key, event.event_set());
            }
        }
    }

    fn host_dials(&mut self, guest_port: u32, stream: UnixStream) {
        if self.connections.len() >= MAX_CONNECTIONS || self.answers.len() >= MAX_ANSWERS {
            return; // dropping the socket is the answer
        }
        let host_port = self.next_host_port;
        self.next_host_port = FIRST_HOST_PORT | ((host_port + 1) % FIRST_HOST_PORT);
        let key = ConnectionKey {
            host_port,
            guest_port,
        };
        if self.connections.contains_key(&key) {
            return;
        }
        if let Ok(connection) = Connection::new(stream, State::AwaitingGuest, &self.epoll, key) {
            self.connections.insert(key, connection);
            self.answer(key, Op::Request, 0);
        }
    }

    fn host_stirs(&mut self, key: ConnectionKey, events: EventSet) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        connection.disarm();
        connection.host_hung_up |= events.intersects(EventSet::HANG_UP | EventSet::ERROR);
        match connection.flush() {
            Progress::Open => {}
            Progress::Finished if connection.state == State::Draining => {
                self.connections.remove(&key);
                return;
            }
            Progress::Finished | Progress::Broken => return self.break_off(key),
        }
        if connection.may_read() {
            if !connection.queued {
                connection.queued = true;
                self.ready.push_back(key);
            }
        } else if connection.host_hung_up && connection.host_ended {
            // It has nothing more to say and hears nothing more.
            return self.break_off(key);
        } else if connection.host_hung_up && connection.state == State::AwaitingGuest {
            return self.break_off(key);
        }
        self.settle_credit(key);
        self.rearm(key);
    }
}

#[cfg(test)]
mod tests;
