//! The monitor's loop: frames from the workload's side to the attached client and back.
//!
//! Every frame is decoded under its limits, checked against what its sender may say at this
//! moment, and encoded anew. Neither side is read while what it said earlier waits for the other,
//! so no buffer here grows beyond a few frames whatever the two do.

use super::backend::{Backend, Link};
use super::rules::{Ending, GuestError, Meaning, WORKLOAD, check_guest, client_may_say, note};
use crate::timing::Timing;
use hullbox_protocol::{ExitStatus, Frame, Incoming, Started, Stream};
use hullbox_session::connection::{Connection, ConnectionError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

/// How long a guest may take to dial in. Software emulation on a busy machine is slow.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// How long a killed workload may take to say that it is dead.
const KILL_LIMIT: Duration = Duration::from_secs(3);
/// Input that is kept for a guest that boots.
const HELD_LIMIT: usize = 256 * 1024;
/// How long after a broken connection the backend may take to say why.
const CAUSE_LIMIT: Duration = Duration::from_secs(3);

/// Where the workload's side is.
#[derive(Debug)]
enum Guest {
    Awaited(UnixListener),
    Connected(Connection),
    Gone,
}

/// What happens when time is up.
#[derive(Debug, Clone, Copy)]
enum Deadline {
    Boot,
    Kill,
    Cause,
}

pub(super) struct Hub<'a> {
    backend: &'a mut dyn Backend,
    guest: Guest,
    client: Option<Connection>,
    signals: OwnedFd,
    timing: Timing,
    /// Said to the workload's side as soon as it is there.
    opening: Vec<Frame>,
    /// Bytes of input among it.
    held: usize,
    /// The signal that ended everything before there was a workload to send it to.
    interrupted: Option<u8>,
    started: bool,
    stopping: bool,
    first_output: bool,
    deadline: Option<(Instant, Deadline)>,
    /// The backend has ended; what is left is to read what was said before.
    over: bool,
    debug: bool,
    on_start: &'a mut dyn FnMut(&Started),
}

/// What a hub joins.
pub(super) struct Parts<'a> {
    pub backend: &'a mut dyn Backend,
    pub client: OwnedFd,
    /// Readable when this process is told to end.
    pub signals: OwnedFd,
    pub opening: Vec<Frame>,
    pub timing: Timing,
    /// Show the agent's diagnostics.
    pub debug: bool,
    pub on_start: &'a mut dyn FnMut(&Started),
}

impl<'a> Hub<'a> {
    pub(super) fn new(parts: Parts<'a>) -> io::Result<Self> {
        let mut hub = Self {
            guest: Guest::Gone,
            client: Some(connection(parts.client)?),
            signals: parts.signals,
            timing: parts.timing,
            opening: parts.opening,
            held: 0,
            interrupted: None,
            started: false,
            stopping: false,
            first_output: false,
            deadline: None,
            over: false,
            debug: parts.debug,
            on_start: parts.on_start,
            backend: parts.backend,
        };
        match hub.backend.link()? {
            Link::Awaited(listener) => {
                listener.set_nonblocking(true)?;
                hub.guest = Guest::Awaited(listener);
                hub.deadline = Some((Instant::now() + BOOT_LIMIT, Deadline::Boot));
            }
            Link::Connected(fd) => hub.connect(fd)?,
        }
        Ok(hub)
    }

    /// Runs until the workload's side has nothing more to say, and gives the client back.
    pub(super) fn run(mut self) -> (Ending, Option<Connection>) {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => return self.end(Ending::Died(Some(format!("poll failed: {error}")))),
            };
            if let Some(ending) = self.step(ready) {
                return self.end(ending);
            }
        }
    }

    fn end(self, ending: Ending) -> (Ending, Option<Connection>) {
        let ending = match (ending, self.interrupted) {
            (Ending::Died(None), Some(signal)) => {
                Ending::Exited(ExitStatus::Signal { signal, oom: false })
            }
            (ending, _) => ending,
        };
        (ending, self.client)
    }

    fn connect(&mut self, fd: OwnedFd) -> io::Result<()> {
        let mut guest = connection(fd)?;
        for frame in self.opening.drain(..) {
            guest.send(&frame).map_err(io::Error::other)?;
        }
        // One that is gone already may have said why: that is read first.
        let _ = guest.flush();
        self.guest = Guest::Connected(guest);
        if matches!(self.deadline, Some((_, Deadline::Boot))) {
            self.deadline = None;
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<Ready> {
        let mut fds = Vec::with_capacity(4);
        fds.push(PollFd::new(&self.signals, PollFlags::IN));
        let ended = self.backend.ended();
        // Once known, the end would only wake us again and again while the rest is read.
        fds.push(PollFd::from_borrowed_fd(ended, interest(!self.over, false)));
        let room = |other: Option<&Connection>| other.is_none_or(Connection::has_room);
        let guest_at = match &self.guest {
            Guest::Awaited(listener) => {
                fds.push(PollFd::new(listener, PollFlags::IN));
                Some(fds.len() - 1)
            }
            Guest::Connected(guest) => {
                let events = interest(room(self.client.as_ref()), guest.pending() > 0);
                fds.push(PollFd::from_borrowed_fd(guest.as_fd(), events));
                Some(fds.len() - 1)
            }
            Guest::Gone => None,
        };
        let client_at = self.client.as_ref().map(|client| {
            let read = match &self.guest {
                Guest::Awaited(_) => self.held < HELD_LIMIT,
                Guest::Connected(guest) => guest.has_room(),
                Guest::Gone => false,
            };
            let events = interest(read, client.pending() > 0);
            fds.push(PollFd::from_borrowed_fd(client.as_fd(), events));
            fds.len() - 1
        });
        let timeout = self.deadline.map(|(at, _)| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let events = |at: Option<usize>| at.map_or(PollFlags::empty(), |at| fds[at].revents());
        Ok(Ready {
            signals: !fds[0].revents().is_empty(),
            ended: fds[1].revents().contains(PollFlags::IN),
            guest: events(guest_at),
            client: events(client_at),
        })
    }

    fn step(&mut self, ready: Ready) -> Option<Ending> {
        if ready.signals {
            // Drained so that it does not wake us again; how often it came does not matter.
            let _ = rustix::io::read(&self.signals, &mut [0u8; 64]);
            self.stop();
        }
        if let Some(ending) = self.serve_guest(ready.guest) {
            return Some(ending);
        }
        self.serve_client(ready.client);
        if ready.ended {
            self.over = true;
            // What was said before the end still lies in the connection.
            self.deadline = Some((Instant::now() + CAUSE_LIMIT, Deadline::Cause));
        }
        if self.over && !matches!(self.guest, Guest::Connected(_)) {
            return Some(Ending::Died(None));
        }
        match self.deadline {
            Some((at, what)) if Instant::now() >= at => self.expire(what),
            _ => None,
        }
    }

    fn expire(&mut self, what: Deadline) -> Option<Ending> {
        match what {
            Deadline::Boot => Some(Ending::Died(Some(format!(
                "the guest did not come up within {} s",
                BOOT_LIMIT.as_secs()
            )))),
            Deadline::Cause => Some(Ending::Died(None)),
            Deadline::Kill => {
                self.backend.kill();
                self.deadline = Some((Instant::now() + CAUSE_LIMIT, Deadline::Cause));
                None
            }
        }
    }

    /// Kills the workload, and everything if that does not help.
    fn stop(&mut self) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        match &mut self.guest {
            Guest::Connected(guest) if self.started => {
                let kill = Frame::Signal {
                    session: WORKLOAD,
                    signal: 9,
                };
                // A connection that takes no frames is dealt with by the deadline.
                let _ = guest.send(&kill).and_then(|()| guest.flush());
                self.deadline = Some((Instant::now() + KILL_LIMIT, Deadline::Kill));
            }
            _ => {
                self.backend.kill();
                self.deadline = Some((Instant::now() + CAUSE_LIMIT, Deadline::Cause));
            }
        }
    }

    fn serve_guest(&mut self, events: PollFlags) -> Option<Ending> {
        if events.is_empty() {
            return None;
        }
        if let Guest::Awaited(listener) = &self.guest {
            return match listener.accept() {
                Ok((stream, _)) => {
                    // The listener is dropped here: there is exactly one connection.
                    self.timing.mark("guest agent connected");
                    self.connect(stream.into())
                        .err()
                        .map(|error| Ending::Died(Some(error.to_string())))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                Err(error) => Some(Ending::Died(Some(format!("accept failed: {error}")))),
            };
        }
        match self.exchange(events) {
            Ok(None) => None,
            Ok(Some(ending)) => Some(ending),
            Err(GuestError::Violation(what)) => Some(Ending::Died(Some(format!(
                "the guest broke the protocol: {what}"
            )))),
            Err(GuestError::Connection(ConnectionError::Io(_))) => {
                self.lose_guest();
                None
            }
            Err(GuestError::Connection(error)) => Some(Ending::Died(Some(error.to_string()))),
        }
    }

    /// The connection ended without `Exited`: the backend is about to know why.
    fn lose_guest(&mut self) {
        self.guest = Guest::Gone;
        self.deadline = Some((Instant::now() + CAUSE_LIMIT, Deadline::Cause));
    }

    fn exchange(&mut self, events: PollFlags) -> Result<Option<Ending>, GuestError> {
        let Guest::Connected(guest) = &mut self.guest else {
            return Ok(None);
        };
        // One that takes no more may still have said why.
        let broken = events.contains(PollFlags::OUT) && guest.flush().is_err();
        if !broken && !events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return Ok(None);
        }
        let open = guest.fill()?;
        let ending = self.pass_to_client()?;
        if ending.is_none() && !open {
            self.lose_guest();
        }
        Ok(ending)
    }

    fn pass_to_client(&mut self) -> Result<Option<Ending>, GuestError> {
        let Guest::Connected(guest) = &mut self.guest else {
            return Ok(None);
        };
        while let Some(incoming) = guest.next_incoming()? {
            let frame = match incoming {
                Incoming::Data {
                    session,
                    stream,
                    bytes,
                } => {
                    if session != WORKLOAD || stream == Stream::Stdin {
                        return Err(GuestError::Violation("output of no process".to_owned()));
                    }
                    if !self.first_output {
                        self.first_output = true;
                        self.timing.mark("first output");
                    }
                    if let Some(client) = &mut self.client {
                        client.send_data(session, stream, bytes)?;
                    }
                    continue;
                }
                Incoming::Frame(frame) => frame,
            };
            match check_guest(&frame, self.started)? {
                Meaning::Forward => {}
                Meaning::Keep => {
                    note(&frame, self.timing, self.debug);
                    continue;
                }
                Meaning::Started(started) => {
                    self.started = true;
                    self.timing
                        .mark(&format!("started, guest uptime {} us", started.uptime_us));
                    (self.on_start)(&started);
                }
                Meaning::End(ending) => return Ok(Some(ending)),
            }
            if let Some(client) = &mut self.client {
                client.send(&frame)?;
            }
        }
        if let Some(client) = &mut self.client
            && client.flush().is_err()
        {
            self.lose_client();
        }
        Ok(None)
    }

    fn serve_client(&mut self, events: PollFlags) {
        let Some(client) = &mut self.client else {
            return;
        };
        if events.is_empty() {
            return;
        }
        let mut lost = events.contains(PollFlags::OUT) && client.flush().is_err();
        if events.contains(PollFlags::IN) {
            lost |= !matches!(client.fill(), Ok(true));
            lost |= match self.guest {
                Guest::Awaited(_) => self.hold_for_guest().is_err(),
                Guest::Connected(_) => self.pass_to_guest().is_err(),
                Guest::Gone => false,
            };
        } else if events.intersects(PollFlags::HUP | PollFlags::ERR) {
            lost = true;
        }
        if lost {
            self.lose_client();
        }
    }

    fn lose_client(&mut self) {
        self.client = None;
        self.stop();
    }

    /// Keeps what the client says until the guest is there; but whoever wants to end it need not
    /// wait for it.
    fn hold_for_guest(&mut self) -> Result<(), ConnectionError> {
        let Some(client) = &mut self.client else {
            return Ok(());
        };
        let mut ended_by = None;
        while let Some(incoming) = client.next_incoming()? {
            let frame = match incoming {
                Incoming::Data {
                    session: session @ WORKLOAD,
                    stream: stream @ Stream::Stdin,
                    bytes,
                } => {
                    self.held += bytes.len();
                    Frame::Data {
                        session,
                        stream,
                        bytes: bytes.to_vec(),
                    }
                }
                Incoming::Frame(frame) if client_may_say(&frame) => frame,
                _ => return Err(ConnectionError::Violation("not a client's frame")),
            };
            match frame {
                Frame::Signal {
                    signal: signal @ (1 | 2 | 3 | 9 | 15),
                    ..
                } => ended_by = u8::try_from(signal).ok(),
                frame => self.opening.push(frame),
            }
        }
        if ended_by.is_some() {
            self.interrupted = ended_by;
            self.stop();
        }
        Ok(())
    }

    /// The client is this user's own program, but it is checked all the same: other programs may
    /// attach one day.
    fn pass_to_guest(&mut self) -> Result<(), ConnectionError> {
        let (Some(client), Guest::Connected(guest)) = (&mut self.client, &mut self.guest) else {
            return Ok(());
        };
        while let Some(incoming) = client.next_incoming()? {
            match incoming {
                Incoming::Data {
                    session: session @ WORKLOAD,
                    stream: stream @ Stream::Stdin,
                    bytes,
                } => guest.send_data(session, stream, bytes)?,
                Incoming::Frame(frame) if client_may_say(&frame) => guest.send(&frame)?,
                _ => return Err(ConnectionError::Violation("not a client's frame")),
            }
        }
        // A broken guest is noticed when it is read.
        let _ = guest.flush();
        Ok(())
    }
}

struct Ready {
    signals: bool,
    ended: bool,
    guest: PollFlags,
    client: PollFlags,
}

fn interest(read: bool, write: bool) -> PollFlags {
    let mut events = PollFlags::empty();
    events.set(PollFlags::IN, read);
    events.set(PollFlags::OUT, write);
    events
}

fn connection(fd: OwnedFd) -> io::Result<Connection> {
    Connection::new(fd).map_err(io::Error::other)
}
