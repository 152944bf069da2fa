//! Whoever is connected to the monitor.

use super::control::{self, Answer, Command};
use super::entrance::Entrance;
use super::pipes::ClientPipes;
use super::streams::index;
use hullbox_host::timing::Timing;
use hullbox_protocol::{Frame, Sender, Stream};
use hullbox_session::connection::{Connection, ConnectionError};
use hullbox_session::direct::Descriptors;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long it may take to send its command.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// What a client is here for.
#[derive(Debug)]
pub(super) enum Role {
    /// It has not sent its command yet.
    Asking,
    /// It is joined to the workload's streams.
    Attached {
        /// The container ends with it.
        owner: bool,
        /// Bytes of each output that were sent to it and for which it has not granted credit again.
        unread: [u64; 2],
        /// Outputs that it has closed.
        closed: [bool; 2],
    },
    /// It has a process of its own.
    Exec {
        /// The number of its session on the guest's side.
        session: u32,
    },
    /// It waits for the answer to a request.
    Asked,
    /// The workload is frozen until it leaves.
    Holding,
    /// It started the container and leaves when that runs.
    Starter,
    /// It asked for a stop and is answered when the container has ended.
    Stopper,
    /// It is answered with the exit code when the container has ended for good: not while a restart
    /// policy starts it again.
    Watcher,
    /// It has its answer and leaves when that is written.
    Leaving,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Clients<'a> {
    pub(super) list: Vec<Client>,
    next_id: u64,
    /// Where more connect.
    pub(super) entrance: Option<Entrance<'a>>,
}

impl<'a> Clients<'a> {
    pub(super) fn new(list: Vec<Client>, control: Option<BorrowedFd<'a>>) -> Self {
        let next_id = list.iter().map(|c| c.id + 1).max().unwrap_or(0);
        Self {
            list,
            next_id,
            entrance: control.map(Entrance::new),
        }
    }

    /// Accepts those that connect, while there are less than `most`. One that cannot be served sees
    /// its connection end.
    pub(super) fn accept(&mut self, most: usize) {
        let Some(entrance) = &mut self.entrance else {
            return;
        };
        while self.list.len() < most
            && let Some(fd) = entrance.accept()
        {
            if let Ok(client) = Client::new(self.next_id, fd, Role::Asking) {
                self.next_id += 1;
                self.list.push(client);
            }
        }
    }

    pub(super) fn find(&mut self, id: u64) -> Option<&mut Client> {
        self.list.iter_mut().find(|client| client.id == id)
    }
}

/// One of them.
#[derive(Debug)]
pub(super) struct Client {
    /// Never used twice.
    pub(super) id: u64,
    pub(super) connection: Connection,
    pub(super) role: Role,
    /// Its command, until the descriptors come that belong to it.
    pub(super) postponed: Option<Command>,
    /// The other ends of streams of the process that it asks for.
    pub(super) descriptors: Option<Descriptors>,
    /// Its own pipes, where those are written and read here.
    pub(super) pipes: ClientPipes,
    /// Frames for it that follow output which waits for its pipes.
    held: Vec<Frame>,
    since: Instant,
}

impl Role {
    /// Joined from now on.
    pub(super) const fn attached(owner: bool) -> Self {
        Self::Attached {
            owner,
            unread: [0; 2],
            closed: [false; 2],
        }
    }
}

impl Client {
    pub(super) fn new(id: u64, fd: OwnedFd, role: Role) -> io::Result<Self> {
        let mut connection = Connection::to(fd, Sender::Client).map_err(io::Error::other)?;
        connection.accept_descriptors();
        Ok(Self {
            id,
            connection,
            role,
            postponed: None,
            descriptors: None,
            pipes: ClientPipes::default(),
            held: Vec::new(),
            since: Instant::now(),
        })
    }

    /// Acknowledges its command.
    pub(super) fn acknowledge(&mut self) {
        // One that cannot be reached sees its connection end.
        if let Ok(frame) = control::to_frame(&Answer::Acknowledged) {
            let _ = self.connection.send(&frame);
        }
    }

    /// Queues a frame, behind output that waits for its pipes.
    pub(super) fn send(&mut self, frame: &Frame) -> Result<(), ConnectionError> {
        if let Frame::Eof {
            stream: Stream::Stdin,
            ..
        } = frame
        {
            // Nobody reads it any more.
            self.pipes.input = None;
        }
        if self.held.is_empty() && !self.pipes.is_waiting() {
            return self.connection.send(frame);
        }
        self.held.push(frame.clone());
        Ok(())
    }

    /// Sends output of its process.
    pub(super) fn send_output(
        &mut self,
        stream: Stream,
        bytes: &[u8],
    ) -> Result<(), ConnectionError> {
        let Some(pipe) = index(stream).and_then(|at| self.pipes.outputs[at].as_mut()) else {
            return self.connection.send_data(0, stream, bytes);
        };
        match pipe.write(bytes) {
            true => Ok(()),
            false => Err(ConnectionError::Violation("output beyond its credit")),
        }
    }

    /// Writes what its pipes and its connection take.
    pub(super) fn flush(&mut self) -> Result<(), ConnectionError> {
        self.pipes.flush();
        self.flush_connection()
    }

    /// Writes what its connection takes of all that does not have to wait for its pipes.
    pub(super) fn flush_connection(&mut self) -> Result<(), ConnectionError> {
        if !self.pipes.is_waiting() {
            for frame in self.held.drain(..) {
                self.connection.send(&frame)?;
            }
        }
        self.connection.flush()
    }

    /// As [`Self::flush`], after asking the kernel to take all of it.
    pub(super) fn flush_with_room(&mut self) -> Result<(), ConnectionError> {
        self.flush()?;
        self.connection.flush_with_room()
    }

    /// What to poll for until what waits for it can be written: its end, room in its connection, and
    /// room in its pipes.
    pub(super) fn awaited(&self) -> impl Iterator<Item = PollFd<'_>> {
        let mut events = PollFlags::empty();
        events.set(PollFlags::OUT, self.connection.pending() > 0);
        let own = PollFd::from_borrowed_fd(self.connection.as_fd(), events);
        // A pipe that nothing waits for would report an end again and again.
        let pipes = self.pipes.interests(false);
        let waiting = pipes.filter(|(_, _, events)| !events.is_empty());
        let pipes = waiting.map(|(_, fd, events)| PollFd::from_borrowed_fd(fd, events));
        std::iter::once(own).chain(pipes)
    }

    /// Whether nobody is at its connection's other end.
    pub(super) fn has_hung_up(&self) -> bool {
        let own = PollFd::from_borrowed_fd(self.connection.as_fd(), PollFlags::empty());
        let mut fds = [own];
        let polled = poll(&mut fds, Some(&Timespec::default()));
        polled.is_ok() && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }

    /// Whether something for it waits.
    pub(super) fn is_waiting(&self) -> bool {
        self.connection.pending() > 0 || !self.held.is_empty()
    }

    /// Answers and lets it go.
    pub(super) fn answer(&mut self, answer: &Answer) {
        let sent = control::to_frame(answer)
            .map_err(|_| ConnectionError::Violation("an answer too long"))
            .and_then(|frame| self.send(&frame));
        // One that cannot be reached sees its connection end.
        drop(sent);
        self.role = Role::Leaving;
    }

    /// Sends a warning for its user.
    pub(super) fn warn(&mut self, warning: &str) {
        if matches!(self.role, Role::Attached { .. } | Role::Starter) {
            // One that cannot be reached sees its connection end.
            let _ = self.connection.send(&Frame::Log(warning.to_owned()));
        }
    }

    /// Sends the durations of phases, if it asked for them.
    pub(super) fn send_timing(&mut self, timing: &Timing) {
        if let Some(frame) = timing
            .take()
            .and_then(|marks| control::to_frame(&Answer::Timing(marks)).ok())
        {
            // One that cannot be reached sees its connection end.
            let _ = self.send(&frame);
        }
    }

    /// The command in its first frame.
    pub(super) fn command(frame: &Frame) -> Option<Command> {
        control::from_frame(frame)
    }

    /// When it is not waited for any longer, while it has not sent a command.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.role {
            Role::Asking => self.since.checked_add(COMMAND_LIMIT),
            _ => None,
        }
    }

    /// Whether nothing keeps it.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.role, Role::Leaving) && !self.is_waiting()
    }

    /// Bytes of one output that it has not passed on.
    pub(super) fn unread(&self, stream: usize) -> u64 {
        match self.role {
            Role::Attached { unread, closed, .. } if !closed[stream] => unread[stream],
            _ => 0,
        }
    }
}
