//! Whoever is connected to the monitor.

use super::control::{self, Answer, Command};
use crate::timing::Timing;
use hullbox_protocol::{Frame, Sender};
use hullbox_session::connection::{Connection, ConnectionError};
use hullbox_session::direct::Descriptors;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long it may take to say what it wants.
const SPEAK_LIMIT: Duration = Duration::from_secs(10);

/// What a client is here for.
#[derive(Debug)]
pub(super) enum Role {
    /// It has not said yet.
    Asking,
    /// It is joined to the workload's streams.
    Attached {
        /// The container ends with it.
        owner: bool,
        /// Bytes of each output that it has not said to have passed on.
        unread: [u64; 2],
        /// Outputs that it does not want any more.
        muted: [bool; 2],
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
    /// It waits for the end, which it is told of.
    Stopper,
    /// It waits for the end of the connection.
    Watcher,
    /// It has its answer and leaves when that is written.
    Leaving,
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
    since: Instant,
}

impl Role {
    /// Joined from now on.
    pub(super) const fn attached(owner: bool) -> Self {
        Self::Attached {
            owner,
            unread: [0; 2],
            muted: [false; 2],
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
            since: Instant::now(),
        })
    }

    /// Says that its command has arrived.
    pub(super) fn heard(&mut self) {
        // One that cannot be told sees its connection end.
        if let Ok(frame) = control::to_frame(&Answer::Heard) {
            let _ = self.connection.send(&frame);
        }
    }

    /// Answers and lets it go.
    pub(super) fn answer(&mut self, answer: &Answer) {
        let sent = control::to_frame(answer)
            .map_err(|_| ConnectionError::Violation("an answer too long"))
            .and_then(|frame| self.connection.send(&frame));
        // One that cannot be told sees its connection end.
        drop(sent);
        self.role = Role::Leaving;
    }

    /// Tells it something that its user should hear.
    pub(super) fn warn(&mut self, warning: &str) {
        if matches!(self.role, Role::Attached { .. } | Role::Starter) {
            // One that cannot be told sees its connection end.
            let _ = self.connection.send(&Frame::Log(warning.to_owned()));
        }
    }

    /// Tells it what took how long, if it wanted to know.
    pub(super) fn account(&mut self, timing: &Timing) {
        if let Some(frame) = timing
            .take()
            .and_then(|marks| control::to_frame(&Answer::Timing(marks)).ok())
        {
            // One that cannot be told sees its connection end.
            let _ = self.connection.send(&frame);
        }
    }

    /// Its first word.
    pub(super) fn command(frame: &Frame) -> Option<Command> {
        control::from_frame(frame)
    }

    /// When it is not waited for any longer, while it has not said what it wants.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.role {
            Role::Asking => self.since.checked_add(SPEAK_LIMIT),
            _ => None,
        }
    }

    /// Whether nothing keeps it.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.role, Role::Leaving) && self.connection.pending() == 0
    }

    /// Output that it has not passed on, of one stream.
    pub(super) fn unread(&self, stream: usize) -> u64 {
        match self.role {
            Role::Attached { unread, muted, .. } if !muted[stream] => unread[stream],
            _ => 0,
        }
    }
}
