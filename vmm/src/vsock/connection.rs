//! One connection: a Unix socket on the host, a credit account towards the guest.

use super::packet::{ConnectionKey, Header, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::num::Wrapping;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// Bytes from the guest that we hold for a host socket that does not take them (`buf_alloc`).
pub(super) const BUFFER_BYTES: u32 = 256 * 1024;

/// Whether the guest has agreed to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The host asked; the guest has not answered.
    AwaitingGuest,
    /// Both ends agreed.
    Established,
    /// The guest is done with it; what it sent is still on its way to the host.
    Draining,
}

/// What became of a connection's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It goes on.
    Open,
    /// Both directions are over and everything was delivered.
    Finished,
    /// The host closed its end under unsent bytes, or the socket failed.
    Broken,
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    pub state: State,
    /// Bytes from the guest that the host socket has not taken.
    backlog: VecDeque<u8>,
    /// Bytes sent to the guest, bytes it says it consumed, and the room it says it has.
    sent: Wrapping<u32>,
    consumed_by_guest: Wrapping<u32>,
    guest_buffer: u32,
    /// Bytes of the guest delivered to the host, and what of that the guest was told.
    delivered: Wrapping<u32>,
    announced: Wrapping<u32>,
    /// The guest will send, and receive, more.
    guest_sends: bool,
    guest_receives: bool,
    /// The host's end sent its last byte; both its directions are closed.
    pub host_ended: bool,
    pub host_hung_up: bool,
    /// It is in the queue of those with bytes for the guest.
    pub queued: bool,
    /// A credit request is outstanding.
    pub asked_for_credit: bool,
    /// What the one-shot epoll registration waits for; `None` after it fired.
    armed: Option<EventSet>,
}

impl Connection {
    /// Takes over a non-blocking socket and registers it.
    pub(super) fn new(
        stream: UnixStream,
        state: State,
        epoll: &Epoll,
        key: ConnectionKey,
    ) -> io::Result<Self> {
        let event = EpollEvent::new(EventSet::ONE_SHOT, key.token());
        epoll.ctl(ControlOperation::Add, stream.as_raw_fd(), event)?;
        Ok(Self {
            stream,
            state,
            backlog: VecDeque::new(),
            sent: Wrapping(0),
            consumed_by_guest: Wrapping(0),
            guest_buffer: 0,
            delivered: Wrapping(0),
            announced: Wrapping(0),
            guest_sends: true,
            guest_receives: true,
            host_ended: false,
            host_hung_up: false,
            queued: false,
            asked_for_credit: false,
            armed: Some(EventSet::empty()),
        })
    }

    /// Bytes that the guest has room for. A guest that lies only starves or overfills itself.
    pub(super) fn credit(&self) -> usize {
        let in_flight = (self.sent - self.consumed_by_guest).0;
        usize::try_from(self.guest_buffer.saturating_sub(in_flight)).unwrap_or(0)
    }

    /// Reads the credit account that every packet carries.
    pub(super) fn note_credit(&mut self, header: &Header) {
        self.guest_buffer = header.buf_alloc;
        self.consumed_by_guest = Wrapping(header.fwd_cnt);
        self.asked_for_credit = false;
    }

    /// Writes our side of the account into a packet to the guest.
    pub(super) fn stamp(&mut self, header: &mut Header) {
        header.buf_alloc = BUFFER_BYTES;
        header.fwd_cnt = self.delivered.0;
        self.announced = self.delivered;
    }

    /// Whether the guest should hear of the room it has, lest it stalls.
    pub(super) fn owes_credit(&self) -> bool {
        self.guest_sends && (self.delivered - self.announced).0 >= BUFFER_BYTES / 4
    }

    /// Reads at most `buffer.len()` bytes for the guest.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&self.stream).read(buffer)?;
        self.sent += Wrapping(u32::try_from(count).unwrap_or(u32::MAX));
        Ok(count)
    }

    /// Whether bytes from the host could go to the guest now.
    pub(super) fn may_read(&self) -> bool {
        self.state == State::Established
            && !self.host_ended
            && self.guest_receives
            && self.credit() > 0
    }

    /// Takes bytes of the guest. `None`: it sent more than it had room for, or after its end.
    pub(super) fn take_from_guest(&mut self, bytes: &[u8]) -> Option<Progress> {
        let room = usize::try_from(BUFFER_BYTES).unwrap_or(0) - self.backlog.len();
        if self.state != State::Established || !self.guest_sends || bytes.len() > room {
            return None;
        }
        let mut direct = 0;
        if self.backlog.is_empty() {
            direct = match (&self.stream).write(bytes) {
                Ok(count) => count,
                Err(error) if is_transient(&error) => 0,
                Err(_) => return Some(Progress::Broken),
            };
            self.count_delivered(direct);
        }
        self.backlog.extend(&bytes[direct..]);
        Some(Progress::Open)
    }

    /// Gives the host socket what it takes of the backlog.
    pub(super) fn flush(&mut self) -> Progress {
        while !self.backlog.is_empty() {
            let (front, _) = self.backlog.as_slices();
            match (&self.stream).write(front) {
                Ok(0) => return Progress::Broken,
                Ok(count) => {
                    self.backlog.drain(..count);
                    self.count_delivered(count);
                }
                Err(error) if is_transient(&error) => return Progress::Open,
                Err(_) => return Progress::Broken,
            }
        }
        if self.state == State::Draining {
            return Progress::Finished;
        }
        self.pass_on_shutdown()
    }

    fn count_delivered(&mut self, count: usize) {
        self.delivered += Wrapping(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// Notes a shutdown of the guest; it reaches the host behind the backlog.
    pub(super) fn shut_down(&mut self, flags: u32) -> Progress {
        self.guest_sends &= flags & SHUTDOWN_SEND == 0;
        self.guest_receives &= flags & SHUTDOWN_RECEIVE == 0;
        self.pass_on_shutdown()
    }

    fn pass_on_shutdown(&self) -> Progress {
        if self.guest_sends || !self.backlog.is_empty() {
            return Progress::Open;
        }
        if !self.guest_receives {
            return Progress::Finished;
        }
        // The host may be gone already, which its own hang-up tells.
        let _ = self.stream.shutdown(Shutdown::Write);
        Progress::Open
    }

    /// The guest is done: drop the connection now, or once the backlog is delivered.
    pub(super) fn drain(&mut self) -> Progress {
        if self.backlog.is_empty() {
            return Progress::Finished;
        }
        self.state = State::Draining;
        Progress::Open
    }

    /// Tells a host that asked for a connection that it has one.
    pub(super) fn greet_host(&self, key: ConnectionKey) -> io::Result<()> {
        (&self.stream).write_all(format!("OK {}\n", key.host_port).as_bytes())
    }

    /// Notes that the one-shot registration fired.
    pub(super) fn disarm(&mut self) {
        self.armed = None;
    }

    /// Waits for what can be acted on now: one-shot, so that a socket that nobody can serve at the
    /// moment costs nothing. An empty set still reports a hang-up.
    pub(super) fn arm(&mut self, epoll: &Epoll, key: ConnectionKey) -> io::Result<()> {
        let mut wanted = EventSet::empty();
        if self.may_read() && !self.queued {
            wanted |= EventSet::IN;
        }
        if !self.backlog.is_empty() {
            wanted |= EventSet::OUT;
        }
        if self.armed == Some(wanted) || (wanted.is_empty() && self.host_hung_up) {
            return Ok(());
        }
        let event = EpollEvent::new(wanted | EventSet::ONE_SHOT, key.token());
        epoll.ctl(ControlOperation::Modify, self.stream.as_raw_fd(), event)?;
        self.armed = Some(wanted);
        Ok(())
    }
}

/// Not now, rather than never.
pub(super) fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
