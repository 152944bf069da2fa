//! The user's end: our own standard streams, terminal and signals, joined to one session.

mod detach;
mod signals;
mod terminal;

pub use detach::Detach;
pub use terminal::terminal_size;

use crate::connection::{Connection, ConnectionError};
use crate::server::wait_for;
use crate::sink::{Sink, Writer};
use hullbox_protocol::{
    ExitStatus, Failure, Frame, INITIAL_CREDIT, Incoming, MAX_DATA, Sender, Stream,
};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use signals::{Signals, Watch};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use terminal::RawTerminal;

/// How to attach.
#[derive(Debug, Clone)]
pub struct AttachOptions {
    /// The session, as in its `Exec`.
    pub session: u32,
    /// Pass our standard input on (`-i`). Without it not a byte of it is read.
    pub stdin: bool,
    /// Bytes of it that may be sent before the other side grants more:
    /// [`hullbox_protocol::INITIAL_CREDIT`] to a process that is new, none to one that others may
    /// have written to.
    pub input_credit: u32,
    /// The process has a terminal (`-t`). If our input is one too and passed on, it is in
    /// raw mode meanwhile, so that Ctrl-C and the like travel as bytes.
    pub tty: bool,
    /// Send on the signals that we get (`--sig-proxy`). With a raw terminal none is sent on,
    /// as in Docker: what ends us then leaves the process alone.
    pub sig_proxy: bool,
    /// How to leave from a terminal without ending the process; `None`: not at all.
    pub detach: Option<Detach>,
}

impl Default for AttachOptions {
    /// The output of a process that is new, as session 0: no input, no terminal, no signals.
    fn default() -> Self {
        Self {
            session: 0,
            stdin: false,
            input_credit: INITIAL_CREDIT,
            tty: false,
            sig_proxy: false,
            detach: None,
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The process ended; all its output is written.
    Exited(ExitStatus),
    /// It could not be run.
    Failed(Failure),
    /// The other side closed the connection before the process ended.
    Disconnected,
    /// This signal, which is not one to send on, asks ourselves to end. The terminal is
    /// restored; the process runs on as far as we know.
    Interrupted(i32),
    /// The user typed the keys of [`AttachOptions::detach`].
    Detached,
    /// Nobody reads what we write: see [`attach_or_leave`].
    Unread,
}

/// Why joining failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The connection failed, or the peer does not keep to the protocol.
    #[error("the connection to the container failed")]
    Connection(#[from] ConnectionError),
    /// Our terminal could not be set up.
    #[error("cannot set up the terminal")]
    Terminal(#[source] std::io::Error),
    /// Signals could not be caught.
    #[error("cannot catch signals")]
    Signals(#[source] std::io::Error),
    /// Output could not be written, though the process ended like this.
    #[error("cannot write the output")]
    Output {
        /// How the process ended.
        outcome: Box<Outcome>,
        /// What is wrong with our output.
        #[source]
        source: std::io::Error,
    },
}

/// The three descriptors to join: our own standard streams but for tests.
#[derive(Debug, Clone, Copy)]
pub struct Streams<'a> {
    /// Read from.
    pub stdin: BorrowedFd<'a>,
    /// Written to.
    pub stdout: BorrowedFd<'a>,
    /// Written to.
    pub stderr: BorrowedFd<'a>,
}

/// Joins our standard streams to a session until its process ends.
///
/// `first_frames` (such as `Setup` and `Exec`) are sent before anything else. `observer`
/// sees every frame that is no stream's: `Hello`, `Started`, `Log`.
///
/// # Errors
/// See [`AttachError`]; the terminal is restored on every path.
pub fn attach(
    connection: OwnedFd,
    first_frames: &[Frame],
    options: AttachOptions,
    observer: &mut dyn FnMut(&Frame),
) -> Result<Outcome, AttachError> {
    with_standard_streams(|streams| {
        attach_streams(connection, first_frames, options, streams, observer)
    })
}

/// As [`attach`], for a process that others attend to, or whose output is a terminal's: it cannot be
/// told that nobody reads what it writes. When it writes and nobody does, we leave, as a program of
/// our own in a pipeline would end.
///
/// # Errors
/// See [`attach`].
pub fn attach_or_leave(
    connection: OwnedFd,
    options: AttachOptions,
    observer: &mut dyn FnMut(&Frame),
) -> Result<Outcome, AttachError> {
    with_standard_streams(|streams| {
        let mut client = Client::begin(connection, &[], options, streams)?;
        client.leaves = true;
        client.run(observer)
    })
}

fn with_standard_streams<T>(attach: impl FnOnce(Streams<'_>) -> T) -> T {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    attach(Streams {
        stdin: stdin.as_fd(),
        stdout: stdout.as_fd(),
        stderr: stderr.as_fd(),
    })
}

/// As [`attach`], with other descriptors than our own standard streams.
///
/// # Errors
/// See [`attach`].
pub fn attach_streams(
    connection: OwnedFd,
    first_frames: &[Frame],
    options: AttachOptions,
    streams: Streams<'_>,
    observer: &mut dyn FnMut(&Frame),
) -> Result<Outcome, AttachError> {
    Client::begin(connection, first_frames, options, streams)?.run(observer)
}

/// A sink for one of our outputs. One that is closed swallows what comes.
fn output(fd: BorrowedFd<'_>) -> Sink {
    let mut sink = Sink::default();
    sink.open(Writer::for_shared(fd).ok(), false);
    sink
}

const OUTPUTS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

struct Client<'a> {
    connection: Connection,
    options: AttachOptions,
    streams: Streams<'a>,
    signals: Signals,
    terminal: Option<RawTerminal>,
    /// Our input is still to be read.
    input: bool,
    keys: detach::Watcher,
    /// Bytes of it that may be sent.
    credit: usize,
    outputs: [Sink; 2],
    outcome: Option<Outcome>,
    /// Whether we leave when nobody reads what is written: see [`attach_or_leave`].
    leaves: bool,
    /// Outputs whose readers are gone, before anything was written for them.
    unread: [bool; 2],
}

/// Which of the client's descriptors can be used now.
#[derive(Debug)]
struct Ready {
    connection: bool,
    signals: bool,
    input: bool,
    outputs: [PollFlags; 2],
}

impl<'a> Client<'a> {
    fn begin(
        connection: OwnedFd,
        first_frames: &[Frame],
        options: AttachOptions,
        streams: Streams<'a>,
    ) -> Result<Self, AttachError> {
        let mut connection = Connection::to(connection, Sender::Monitor)?;
        for frame in first_frames {
            connection.send(frame)?;
        }
        // Set the other side to work before we do anything for ourselves.
        connection.flush()?;
        let raw = options.tty && options.stdin && rustix::termios::isatty(streams.stdin);
        let watch = match (raw, options.sig_proxy) {
            (true, _) => Watch::RawTerminal,
            (false, true) => Watch::Proxy,
            (false, false) => Watch::SizeOnly,
        };
        let signals = Signals::watch(watch).map_err(AttachError::Signals)?;
        let terminal = raw.then(|| RawTerminal::enter(streams.stdin)).transpose();
        Ok(Self {
            connection,
            streams,
            signals,
            terminal: terminal.map_err(AttachError::Terminal)?,
            input: options.stdin,
            credit: options.input_credit as usize,
            options,
            keys: detach::Watcher::default(),
            outputs: [output(streams.stdout), output(streams.stderr)],
            outcome: None,
            leaves: false,
            unread: [false; 2],
        })
    }

    fn run(mut self, observer: &mut dyn FnMut(&Frame)) -> Result<Outcome, AttachError> {
        self.send_size()?;
        loop {
            self.decode(observer)?;
            if let Some(outcome) = self.finished() {
                return self.conclude(outcome);
            }
            if self.settle()? && self.outcome.is_none() {
                return self.conclude(Outcome::Unread);
            }
            // A peer that sent its last frames and left need not take ours any more.
            if let Err(error) = self.connection.flush()
                && self.outcome.is_none()
                && !self.drain_after(&error)?
            {
                // The last frames may have come with an earlier reading.
                self.decode(observer)?;
                let _ = self.outcome.get_or_insert(Outcome::Disconnected);
                continue;
            }
            let ready = self.poll()?;
            if ready.signals
                && let Some(signal) = self.handle_signals()?
            {
                return Ok(Outcome::Interrupted(signal));
            }
            let outputs = self.outputs.iter_mut().zip(&mut self.unread);
            for ((sink, unread), flags) in outputs.zip(ready.outputs) {
                if flags.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
                    // As with a program's own output: only who writes is told.
                    if self.leaves && !sink.is_waiting() {
                        *unread = true;
                        continue;
                    }
                    sink.break_off();
                } else if !flags.is_empty() {
                    sink.write_queued();
                }
            }
            if ready.input && self.read_input()? {
                return self.leave();
            }
            if ready.connection && !self.fill()? {
                self.decode(observer)?;
                let _ = self.outcome.get_or_insert(Outcome::Disconnected);
            }
        }
    }

    /// Reads from the connection; `false` at its end. A reset is an end like any other:
    /// that is how a peer's death looks on vsock.
    fn fill(&mut self) -> Result<bool, ConnectionError> {
        match self.connection.fill() {
            Err(error) if error.is_disconnect() => Ok(false),
            result => result,
        }
    }

    /// The peer takes no more bytes; what it sent before may still be read. `false` if
    /// there is nothing.
    fn drain_after(&mut self, error: &ConnectionError) -> Result<bool, AttachError> {
        if error.is_disconnect() {
            return Ok(self.fill()?);
        }
        Ok(false)
    }

    /// The outcome, once everything is written that came before it.
    fn finished(&mut self) -> Option<Outcome> {
        if self.outputs.iter().any(Sink::is_waiting) {
            return None;
        }
        self.outcome.take()
    }

    fn conclude(mut self, outcome: Outcome) -> Result<Outcome, AttachError> {
        // Before the error is printed, so that it is not printed on a raw terminal.
        self.terminal = None;
        match self.outputs.iter_mut().find_map(Sink::take_error) {
            None => Ok(outcome),
            Some(errno) => Err(AttachError::Output {
                outcome: Box::new(outcome),
                source: errno.into(),
            }),
        }
    }

    fn decode(&mut self, observer: &mut dyn FnMut(&Frame)) -> Result<(), ConnectionError> {
        let ours = self.options.session;
        while let Some(incoming) = self.connection.next_incoming()? {
            match incoming {
                Incoming::Data {
                    session,
                    stream,
                    bytes,
                } => {
                    let Some(index) = OUTPUTS.iter().position(|&s| s == stream) else {
                        return Err(ConnectionError::Violation("input sent to the user"));
                    };
                    if session == ours && !self.outputs[index].accept(bytes) {
                        return Err(ConnectionError::Violation("output beyond its credit"));
                    }
                }
                Incoming::Frame(frame) => {
                    observer(&frame);
                    self.take_frame(frame);
                }
            }
        }
        Ok(())
    }

    fn take_frame(&mut self, frame: Frame) {
        let ours = self.options.session;
        match frame {
            Frame::Exited { session, status } if session == ours => {
                self.outcome = Some(Outcome::Exited(status));
            }
            Frame::Failed { session, failure } if session == ours => {
                self.outcome = Some(Outcome::Failed(failure));
            }
            Frame::Credit {
                session,
                stream: Stream::Stdin,
                bytes,
            } if session == ours => self.credit = self.credit.saturating_add(bytes as usize),
            Frame::Eof {
                session,
                stream: Stream::Stdin,
            } if session == ours => self.input = false,
            _ => {}
        }
        if self.outcome.is_some() {
            self.input = false;
        }
    }

    /// Says what the state of the outputs calls for; true if there is one that we leave for.
    fn settle(&mut self) -> Result<bool, ConnectionError> {
        let session = self.options.session;
        let mut leave = false;
        for (stream, sink) in OUTPUTS.into_iter().zip(&mut self.outputs) {
            if let Some(bytes) = sink.take_credit() {
                self.connection.send(&Frame::Credit {
                    session,
                    stream,
                    bytes,
                })?;
            }
            if sink.take_broken() {
                if self.leaves {
                    leave = true;
                    continue;
                }
                self.connection.send(&Frame::Eof { session, stream })?;
            }
        }
        Ok(leave)
    }

    fn poll(&self) -> Result<Ready, ConnectionError> {
        let mut fds = Vec::with_capacity(5);
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.outcome.is_none());
        flags.set(PollFlags::OUT, self.connection.pending() > 0);
        // A closed connection would report itself for ever while the last output is written.
        let connected = self.outcome.is_none();
        if connected {
            fds.push(PollFd::from_borrowed_fd(self.connection.as_fd(), flags));
        }
        fds.push(PollFd::from_borrowed_fd(
            self.signals.as_fd(),
            PollFlags::IN,
        ));
        let input = self.input && self.credit > self.held_keys() && self.connection.has_room();
        if input {
            fds.push(PollFd::from_borrowed_fd(self.streams.stdin, PollFlags::IN));
        }
        let mut watched = [false; 2];
        let outputs = self.outputs.iter().zip(self.unread);
        for ((sink, unread), watched) in outputs.zip(&mut watched) {
            // One without a reader would report that for ever.
            if let Some(writer) = sink.writer.as_ref().filter(|_| !unread) {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::OUT, sink.is_waiting());
                fds.push(PollFd::from_borrowed_fd(writer.as_fd(), flags));
                *watched = true;
            }
        }
        wait_for(&mut fds, None)?;
        let mut flags = fds.iter().map(PollFd::revents);
        let mut take = |there: bool| match there {
            true => flags.next().unwrap_or(PollFlags::empty()),
            false => PollFlags::empty(),
        };
        Ok(Ready {
            connection: take(connected).intersects(!PollFlags::OUT),
            signals: !take(true).is_empty(),
            input: !take(input).is_empty(),
            outputs: watched.map(&mut take),
        })
    }

    /// Most bytes of what was typed that may be held back, and that other keys bring to light.
    fn held_keys(&self) -> usize {
        match self.options.detach.as_ref() {
            Some(detach) if self.terminal.is_some() => detach.keys.len(),
            _ => 0,
        }
    }

    /// Passes our input on; true if the user wants to leave.
    fn read_input(&mut self) -> Result<bool, ConnectionError> {
        let (session, stream) = (self.options.session, Stream::Stdin);
        let limit = self.credit.min(MAX_DATA);
        let mut leave = false;
        let read = match self.options.detach.as_ref() {
            Some(detach) if self.terminal.is_some() => {
                // A key sequence's beginning was held back and may have to follow now.
                let room = limit.saturating_sub(self.held_keys()).clamp(1, 4096);
                let mut typed = vec![0; room];
                rustix::io::read(self.streams.stdin, &mut typed).inspect(|&read| {
                    let pass;
                    (pass, leave) = self.keys.filter(&detach.keys, &typed[..read]);
                    if !pass.is_empty() {
                        // No more than there is: `poll` left the keys out of account.
                        self.credit = self.credit.saturating_sub(pass.len());
                        // At most 4096 bytes and the keys: they fit a frame.
                        let _ = self.connection.send_data(session, stream, &pass);
                    }
                })
            }
            _ => self
                .connection
                .send_from(self.streams.stdin, session, stream, limit)
                .inspect(|read| self.credit -= read),
        };
        match read {
            Ok(1..) | Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            // An end, or an input that cannot be read, such as one that is closed.
            Ok(0) | Err(_) => {
                self.input = false;
                self.connection.send(&Frame::Eof { session, stream })?;
            }
        }
        Ok(leave)
    }

    /// Says that we leave, and leaves.
    fn leave(mut self) -> Result<Outcome, AttachError> {
        if let Some(detach) = self.options.detach.take() {
            self.connection.send(&detach.frame)?;
        }
        while self.connection.pending() > 0 {
            let mut fds = [PollFd::new(&self.connection, PollFlags::OUT)];
            wait_for(&mut fds, None)?;
            self.connection.flush()?;
        }
        self.conclude(Outcome::Detached)
    }

    /// Acts on the signals that came; returns one that is meant for ourselves.
    fn handle_signals(&mut self) -> Result<Option<i32>, AttachError> {
        for signal in self.signals.take() {
            if signal == signals::RESIZED {
                self.send_size()?;
            } else if signal == signals::CONTINUED {
                // The shell set its own modes while we were stopped.
                if let Some(terminal) = &self.terminal {
                    terminal.set_raw().map_err(AttachError::Terminal)?;
                }
                self.send_size()?;
            } else if self.signals.is_for_us(signal) || self.outcome.is_some() {
                return Ok(Some(signal));
            } else if let Ok(signal) = u32::try_from(signal) {
                let session = self.options.session;
                self.connection.send(&Frame::Signal { session, signal })?;
            }
        }
        Ok(None)
    }

    fn send_size(&mut self) -> Result<(), ConnectionError> {
        if !self.options.tty || self.outcome.is_some() {
            return Ok(());
        }
        let fds = [self.streams.stdout, self.streams.stdin, self.streams.stderr];
        let Some(size) = fds.into_iter().find_map(terminal_size) else {
            return Ok(());
        };
        let session = self.options.session;
        self.connection.send(&Frame::Resize { session, size })
    }
}

#[cfg(test)]
mod tests;
