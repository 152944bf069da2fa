//! The process's end: pipes and terminals of many sessions on one connection.
//!
//! ```no_run
//! # use hullbox_session::server::{Drain, Event, Pump, Stdio};
//! # use hullbox_protocol::ExitStatus;
//! # fn demo(
//! #     socket: std::os::fd::OwnedFd,
//! #     spawn: impl Fn() -> (std::process::Child, Stdio),
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let mut pump = Pump::new(socket)?;
//! loop {
//!     match pump.wait(&[], None)? {
//!         Event::Exec { session, .. } => {
//!             let (mut child, stdio) = spawn();
//!             pump.open(session, stdio)?;
//!             // … and when a watched descriptor says that it ended:
//!             let code = child.wait()?.code().unwrap_or(1) as u8;
//!             pump.finish(session, ExitStatus::Code(code), Drain::ToEnd);
//!         }
//!         Event::Finished { .. } | Event::Closed(_) => return Ok(()),
//!         _ => {}
//!     }
//! }
//! # }
//! ```

mod poll;
mod session;
mod source;

use crate::connection::{Connection, ConnectionError};
use crate::direct::{Descriptors, MissingDescriptors, take_descriptors};
use crate::sink::Writer;
use hullbox_protocol::{
    ExitStatus, Failure, FailureKind, Frame, Incoming, ProcessSpec, Request, Sender, Setup,
    Started, Stream, TerminalSize,
};
pub(crate) use poll::wait_for;
use session::{Exit, Session, shared};
use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Sessions that one connection may have at a time.
const MAX_SESSIONS: usize = 1024;

/// A process's standard streams, as its parent holds them.
#[derive(Debug)]
pub enum Stdio {
    /// The parent's ends of pipes; `None` where the process has something else. Without
    /// `stdin` the peer is told at once that nobody reads.
    Pipes {
        /// Write end.
        stdin: Option<OwnedFd>,
        /// Read end.
        stdout: Option<OwnedFd>,
        /// Read end.
        stderr: Option<OwnedFd>,
    },
    /// The master of a pseudo-terminal whose slave the process has open already.
    Terminal(OwnedFd),
    /// A terminal's master, and pipes where a stream does not lead to the terminal. What the
    /// terminal itself says goes to the first of standard output and error that is no pipe.
    Mixed {
        /// The terminal's master.
        master: OwnedFd,
        /// Write end.
        stdin: Option<OwnedFd>,
        /// Read end.
        stdout: Option<OwnedFd>,
        /// Read end.
        stderr: Option<OwnedFd>,
    },
}

/// The streams of a process whose connection ended: see [`Pump::carry`].
#[derive(Debug)]
pub struct Carried(Session);

/// What to do, once a process ended, with an output that others still hold open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// Pass on everything until its end. For a process whose descendants die with it.
    ToEnd,
    /// Wait this long for the end, then pass on what is there and close.
    Grace(Duration),
}

/// What the pump does not settle by itself.
#[derive(Debug)]
pub enum Event {
    /// Arrange the guest.
    Setup(Box<Setup>),
    /// Run a process; answer with [`Pump::open`] and [`Pump::started`], or [`Pump::fail`].
    Exec {
        /// Its session; input for it is kept from now on.
        session: u32,
        /// What to run.
        spec: Box<ProcessSpec>,
    },
    /// Deliver a signal. The session may have ended; the number is 1 to 64.
    Signal {
        /// See [`Frame::Exec`].
        session: u32,
        /// Linux signal number.
        signal: u32,
    },
    /// A size for a session whose terminal the pump does not hold (yet).
    Resize {
        /// See [`Frame::Exec`].
        session: u32,
        /// The new size.
        size: TerminalSize,
    },
    /// End in an orderly way.
    Shutdown,
    /// Answer with [`Pump::send`] of a [`Frame::Reply`] with this number.
    Request {
        /// See [`Frame::Request`].
        number: u32,
        /// What.
        request: Request,
    },
    /// `Exited` of this session is written to the connection.
    Finished {
        /// See [`Frame::Exec`].
        session: u32,
    },
    /// The extra descriptor with this index is readable (or hung up).
    Ready(usize),
    /// The time is over.
    Timeout,
    /// The connection ended: cleanly, or why not. All sessions are dropped.
    Closed(Option<ConnectionError>),
}

/// Joins the standard streams of any number of processes to one connection.
#[derive(Debug)]
pub struct Pump {
    connection: Connection,
    sessions: Vec<Session>,
    events: VecDeque<Event>,
    finishing: Vec<u32>,
    closed: bool,
    /// Sessions outlive the connection.
    lasting: bool,
    /// The streams of a process that is about to be asked for.
    announced: Option<(u32, Result<Descriptors, MissingDescriptors>)>,
}

impl Pump {
    /// Takes over a connected stream socket.
    ///
    /// # Errors
    /// [`ConnectionError::Io`] if it cannot be made non-blocking.
    pub fn new(connection: OwnedFd) -> Result<Self, ConnectionError> {
        Ok(Self {
            connection: Connection::to(connection, Sender::Host)?,
            sessions: Vec::new(),
            events: VecDeque::new(),
            finishing: Vec::new(),
            closed: false,
            lasting: false,
            announced: None,
        })
    }

    /// Takes descriptors for processes' streams from the peer, which is on the same host.
    pub fn accept_descriptors(&mut self) {
        self.connection.accept_descriptors();
    }

    /// Joins streams of a session to these descriptors, in place of the connection, when the session
    /// is asked for next.
    pub fn announce(&mut self, session: u32, descriptors: Descriptors) {
        self.announced = Some((session, Ok(descriptors)));
    }

    /// Keeps the sessions when the connection ends, for [`Self::carry`], or no longer.
    pub fn keep_sessions(&mut self, lasting: bool) {
        self.lasting = lasting;
    }

    /// Takes a process's streams out, to be joined to another connection.
    pub fn carry(&mut self, session: u32) -> Option<Carried> {
        let is_it = |state: &Session| state.id == session && state.opened;
        let at = self.sessions.iter().position(is_it)?;
        Some(Carried(self.sessions.swap_remove(at)))
    }

    /// Gives a session the streams of [`Self::carry`], which had another connection before. What was under way on that one belongs to
    /// whoever was there.
    pub fn adopt(&mut self, session: u32, carried: Carried) {
        let Carried(old) = carried;
        let new = self.session_or_new(session);
        new.opened = true;
        new.terminal = old.terminal;
        let in_terminal = old.stdin.is_terminal();
        new.stdin.open(old.stdin.writer, in_terminal);
        for (new, old) in [(&mut new.stdout, old.stdout), (&mut new.stderr, old.stderr)] {
            let terminal = old.is_terminal();
            new.open(old.fd, terminal);
        }
    }

    /// Queues a frame of the caller's own, such as `Hello` or `Log`.
    ///
    /// # Errors
    /// [`ConnectionError::Encode`] if it is over its limits.
    pub fn send(&mut self, frame: &Frame) -> Result<(), ConnectionError> {
        if self.closed {
            return Ok(());
        }
        self.connection.send(frame)
    }

    /// Joins a process's streams to its session. Input that came before is passed on.
    ///
    /// # Errors
    /// [`ConnectionError::Io`] if a descriptor cannot be made non-blocking.
    pub fn open(&mut self, session: u32, stdio: Stdio) -> Result<(), ConnectionError> {
        let session = self.session_or_new(session);
        session.opened = true;
        match stdio {
            Stdio::Pipes {
                stdin,
                stdout,
                stderr,
            } => {
                let stdin = shared(stdin)?.map(Writer::Pipe);
                session.stdin.open(stdin, false);
                session.stdout.open(shared(stdout)?, false);
                session.stderr.open(shared(stderr)?, false);
            }
            Stdio::Terminal(master) => session.open_terminal(master, [None, None, None])?,
            Stdio::Mixed {
                master,
                stdin,
                stdout,
                stderr,
            } => session.open_terminal(master, [stdin, stdout, stderr])?,
        }
        Ok(())
    }

    /// Tells the peer that the process runs.
    ///
    /// # Errors
    /// See [`Self::send`].
    pub fn started(&mut self, session: u32, started: Started) -> Result<(), ConnectionError> {
        self.send(&Frame::Started { session, started })
    }

    /// Tells the peer that the process could not be run, and ends the session.
    ///
    /// # Errors
    /// See [`Self::send`].
    pub fn fail(&mut self, session: u32, failure: Failure) -> Result<(), ConnectionError> {
        self.sessions.retain(|s| s.id != session);
        self.send(&Frame::Failed { session, failure })
    }

    /// The process ended: once its output is drained, `Exited` is sent and
    /// [`Event::Finished`] reported.
    pub fn finish(&mut self, session: u32, status: ExitStatus, drain: Drain) {
        let deadline = match drain {
            Drain::ToEnd => None,
            Drain::Grace(time) => Some(Instant::now() + time),
        };
        let session = self.session_or_new(session);
        session.input = None;
        session.stdin.break_off();
        // Nobody is left whom the peer could send anything.
        let _ = session.stdin.take_broken();
        session.exit = Some(Exit { status, deadline });
    }

    /// Waits for the next event, moving bytes meanwhile.
    ///
    /// `extra` descriptors are watched for reading; `timeout` is for this call.
    ///
    /// # Errors
    /// [`ConnectionError::Io`] if polling itself fails. The end of the connection
    /// is an event, not an error.
    pub fn wait(
        &mut self,
        extra: &[BorrowedFd<'_>],
        timeout: Option<Duration>,
    ) -> Result<Event, ConnectionError> {
        let end = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            if let Err(error) = self.advance() {
                self.close(Some(error));
            }
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if self.closed && extra.is_empty() && end.is_none() {
                return Ok(Event::Closed(None));
            }
            let ready = self.poll(extra, end)?;
            if let Some(event) = self.dispatch(&ready) {
                return Ok(event);
            }
            if ready.is_empty() && end.is_some_and(|end| Instant::now() >= end) {
                return Ok(Event::Timeout);
            }
        }
    }

    /// Everything that needs no waiting: decode, settle, write.
    fn advance(&mut self) -> Result<(), ConnectionError> {
        if self.closed {
            return Ok(());
        }
        self.decode()?;
        self.settle()?;
        self.connection.flush()?;
        if self.connection.pending() == 0 {
            let finished = self.finishing.drain(..);
            self.events
                .extend(finished.map(|session| Event::Finished { session }));
        }
        Ok(())
    }

    fn close(&mut self, why: Option<ConnectionError>) {
        self.closed = true;
        if !self.lasting {
            self.sessions.clear();
        }
        self.finishing.clear();
        let why = why.filter(|error| !error.is_disconnect());
        self.events.push_back(Event::Closed(why));
    }

    fn session_or_new(&mut self, id: u32) -> &mut Session {
        let index = self.sessions.iter().position(|s| s.id == id);
        let index = index.unwrap_or_else(|| {
            self.sessions.push(Session {
                id,
                ..Session::default()
            });
            self.sessions.len() - 1
        });
        &mut self.sessions[index]
    }

    /// Takes all whole frames that were read.
    fn decode(&mut self) -> Result<(), ConnectionError> {
        let sessions = &mut self.sessions;
        let announced = &mut self.announced;
        let (decoder, outbox, mut received) = self.connection.split();
        while let Some(incoming) = decoder.next_incoming()? {
            match incoming {
                Incoming::Data {
                    session,
                    stream: Stream::Stdin,
                    bytes,
                } => {
                    let target = sessions.iter_mut().find(|s| s.id == session);
                    if !target.is_none_or(|s| s.stdin.accept(bytes)) {
                        return Err(ConnectionError::Violation("input beyond its credit"));
                    }
                }
                Incoming::Data { .. } => {
                    return Err(ConnectionError::Violation("output sent to the process"));
                }
                Incoming::Frame(Frame::Descriptors { session, streams }) => {
                    let taken = take_descriptors(received.as_deref_mut(), streams);
                    *announced = Some((session, taken));
                }
                Incoming::Frame(frame) => {
                    let Some(event) = take_frame(sessions, frame)? else {
                        continue;
                    };
                    let refused = match &event {
                        Event::Exec { session, .. } => join(sessions, announced, *session),
                        _ => None,
                    };
                    match refused {
                        None => self.events.push_back(event),
                        // No fault of any other session's.
                        Some(refused) => outbox.push(&refused).map_err(ConnectionError::Encode)?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Queues what the state of the sessions calls for.
    fn settle(&mut self) -> Result<(), ConnectionError> {
        let (_, outbox, _) = self.connection.split();
        let mut push = |frame| outbox.push(&frame).map_err(ConnectionError::Encode);
        for state in &mut self.sessions {
            let (session, stream) = (state.id, Stream::Stdin);
            if let Some(bytes) = state.stdin.take_credit() {
                push(Frame::Credit {
                    session,
                    stream,
                    bytes,
                })?;
            }
            if state.stdin.take_broken() {
                push(Frame::Eof { session, stream })?;
            }
            if state.is_drained()
                && let Some(Exit { status, .. }) = state.exit.take()
            {
                push(Frame::Exited { session, status })?;
                state.over = true;
                self.finishing.push(session);
            }
        }
        self.sessions.retain(|session| !session.over);
        Ok(())
    }
}

/// Settles a frame or turns it into an event.
fn take_frame(sessions: &mut Vec<Session>, frame: Frame) -> Result<Option<Event>, ConnectionError> {
    Ok(match frame {
        Frame::Setup(setup) => Some(Event::Setup(setup)),
        Frame::Exec { session, spec } => {
            if find(sessions, session).is_some() {
                return Err(ConnectionError::Violation("a session number in use"));
            }
            if sessions.len() >= MAX_SESSIONS {
                return Err(ConnectionError::Violation("too many sessions"));
            }
            sessions.push(Session {
                id: session,
                ..Session::default()
            });
            Some(Event::Exec { session, spec })
        }
        Frame::Signal { session, signal } => Some(Event::Signal { session, signal }),
        Frame::Resize { session, size } => match find(sessions, session).map(|s| &s.terminal) {
            Some(Some(master)) => {
                // The terminal may be gone already; its size is then of no interest.
                let _ = rustix::termios::tcsetwinsize(master, window(size));
                None
            }
            Some(None) => Some(Event::Resize { session, size }),
            None => None,
        },
        Frame::Relay { session } => {
            if let Some(session) = find(sessions, session) {
                session.stdout.direct(None);
                session.stderr.direct(None);
            }
            None
        }
        Frame::Shutdown => Some(Event::Shutdown),
        Frame::Request { number, request } => Some(Event::Request { number, request }),
        Frame::Credit {
            session,
            stream,
            bytes,
        } => {
            if let Some(source) = find(sessions, session).and_then(|s| s.source(stream)) {
                source.add_credit(bytes);
            }
            None
        }
        Frame::Eof { session, stream } => {
            if let Some(session) = find(sessions, session) {
                session.end(stream);
            }
            None
        }
        Frame::Data { .. }
        | Frame::Hello(_)
        | Frame::Started { .. }
        | Frame::Failed { .. }
        | Frame::Exited { .. }
        | Frame::Reply { .. }
        | Frame::Local(_)
        | Frame::Oom
        // Dealt with by whoever has what came with it.
        | Frame::Descriptors { .. }
        | Frame::Log(_) => {
            return Err(ConnectionError::Violation("a frame of the other direction"));
        }
    })
}

/// Joins a session that was asked for just now to the descriptors that were announced for it. Without
/// them there is no such session: gives the frame that says so.
fn join(
    sessions: &mut Vec<Session>,
    announced: &mut Option<(u32, Result<Descriptors, MissingDescriptors>)>,
    session: u32,
) -> Option<Frame> {
    match announced.take_if(|(id, _)| *id == session)?.1 {
        Ok(descriptors) => {
            if let Some(state) = find(sessions, session) {
                state.direct(descriptors);
            }
            None
        }
        Err(missing) => {
            sessions.retain(|state| state.id != session);
            let failure = Failure {
                kind: FailureKind::Setup,
                message: missing.to_string(),
            };
            Some(Frame::Failed { session, failure })
        }
    }
}

fn find(sessions: &mut [Session], id: u32) -> Option<&mut Session> {
    sessions.iter_mut().find(|s| s.id == id)
}

fn window(size: TerminalSize) -> rustix::termios::Winsize {
    rustix::termios::Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

#[cfg(test)]
mod tests;
