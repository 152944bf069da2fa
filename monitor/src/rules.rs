//! Which frames are allowed in which state, and what they mean for the container.

use hullbox_host::timing::{Phase, Timing};
use hullbox_protocol::{
    ExitStatus, Failure, FailureKind, Frame, PROTOCOL_VERSION, Started, Stream,
};
use hullbox_session::connection::ConnectionError;
use std::io;

/// The workload's session.
pub(super) const WORKLOAD: u32 = 0;

/// How it went.
#[derive(Debug)]
pub(super) enum Ending {
    /// The workload ended.
    Exited(ExitStatus),
    /// The workload could not be started.
    Failed(Failure),
    /// The workload's side broke off; `Some` is what it did wrong, otherwise the backend knows.
    Died(Option<String>),
}

/// Why the connection to the workload's side is given up.
pub(super) enum GuestError {
    Connection(ConnectionError),
    Violation(String),
}

impl From<ConnectionError> for GuestError {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(error)
    }
}

/// Whether a frame that is no data is one of a client's that has a process on the other side.
pub(super) const fn is_client_frame(frame: &Frame) -> bool {
    matches!(
        frame,
        Frame::Eof {
            session: WORKLOAD,
            ..
        } | Frame::Credit {
            session: WORKLOAD,
            stream: Stream::Stdout | Stream::Stderr,
            ..
        } | Frame::Signal {
            session: WORKLOAD,
            signal: 1..=64,
        } | Frame::Resize {
            session: WORKLOAD,
            ..
        }
    )
}

/// What becomes of a frame about the workload.
pub(super) enum Meaning {
    Forward,
    Keep,
    Credit(u32),
    /// The out-of-memory killer was at work.
    Oom,
    Started(Started),
    End(Ending),
}

/// What was reported of a process and may be reported once. Each report is passed on, and whoever
/// repeats one would fill our memory.
#[derive(Debug, Default)]
pub(super) struct Reported {
    pub(super) started: bool,
    ended: [bool; 3],
}

impl Reported {
    /// A stream has ended, or nobody reads it any more.
    fn end(&mut self, stream: Stream) -> Result<(), GuestError> {
        if std::mem::replace(&mut self.ended[place(stream)], true) {
            return Err(GuestError::Violation("a stream ended twice".to_owned()));
        }
        Ok(())
    }

    pub(super) const fn has_ended(&self, stream: Stream) -> bool {
        self.ended[place(stream)]
    }
}

const fn place(stream: Stream) -> usize {
    match stream {
        Stream::Stdin => 0,
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    }
}

/// Checks a frame about the workload. `hello_received`: whether there was a `Hello`.
pub(super) fn check_workload(
    frame: &Frame,
    reported: &mut Reported,
    hello_received: &mut bool,
) -> Result<Meaning, GuestError> {
    let started = reported.started;
    Ok(match frame {
        Frame::Hello(hello) if hello.version != PROTOCOL_VERSION => {
            return Err(GuestError::Violation(
                "its version is not that of this program".to_owned(),
            ));
        }
        Frame::Hello(_) if std::mem::replace(hello_received, true) => {
            return Err(out_of_turn(frame));
        }
        Frame::Hello(_) | Frame::Log(_) => Meaning::Keep,
        Frame::Oom => Meaning::Oom,
        Frame::Started { started: who, .. } if !started => Meaning::Started(who.clone()),
        Frame::Failed { failure, .. } if !started => Meaning::End(Ending::Failed(clean(failure))),
        Frame::Exited { status, .. } if started => Meaning::End(Ending::Exited(*status)),
        // Streams may move before `Started`: the end of an input that nobody reads is sent at once.
        Frame::Eof { stream, .. } => {
            reported.end(*stream)?;
            Meaning::Forward
        }
        Frame::Credit {
            stream: Stream::Stdin,
            bytes,
            ..
        } => Meaning::Credit(*bytes),
        other => return Err(out_of_turn(other)),
    })
}

/// The same for a frame about a process beside the workload.
pub(super) fn check_exec(frame: &Frame, reported: &mut Reported) -> Result<(), GuestError> {
    let started = reported.started;
    match frame {
        Frame::Started { .. } | Frame::Failed { .. } if !started => Ok(()),
        Frame::Exited { .. } if started => Ok(()),
        Frame::Eof { stream, .. } => reported.end(*stream),
        Frame::Credit {
            stream: Stream::Stdin,
            ..
        } => Ok(()),
        other => Err(out_of_turn(other)),
    }
}

fn out_of_turn(frame: &Frame) -> GuestError {
    let text = format!("{frame:?}");
    let name: String = text
        .chars()
        .take_while(char::is_ascii_alphanumeric)
        .collect();
    GuestError::Violation(format!("{name} out of turn"))
}

/// Deals with a frame that is for the monitor alone.
pub(super) fn consume(frame: &Frame, timing: &Timing, debug: bool) {
    match frame {
        Frame::Hello(_) => timing.mark(Phase::AgentContact),
        Frame::Log(text) if debug => {
            let line = format!("hullbox: guest: {}\n", one_line(text));
            // A debugging aid that nobody reads is no failure.
            let _ = io::Write::write_all(&mut io::stderr(), line.as_bytes());
        }
        _ => {}
    }
}

/// A message from inside, fit for a terminal.
pub(super) fn clean(failure: &Failure) -> Failure {
    Failure {
        kind: failure.kind,
        message: one_line(&failure.message),
    }
}

/// Without control characters, and of bounded length.
pub(super) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(1024)
        .collect()
}

impl Ending {
    /// The frame that ends the client's session, given what the backend knows.
    pub(super) fn frame(&self, cause: &str) -> Frame {
        let session = WORKLOAD;
        match self {
            Self::Exited(status) => Frame::Exited {
                session,
                status: *status,
            },
            Self::Failed(failure) => Frame::Failed {
                session,
                failure: failure.clone(),
            },
            Self::Died(_) => Frame::Failed {
                session,
                failure: Failure {
                    kind: FailureKind::Setup,
                    message: self.words(cause).unwrap_or_default(),
                },
            },
        }
    }

    /// The cause of death where it was not the workload's own end.
    pub(super) fn words(&self, cause: &str) -> Option<String> {
        match self {
            Self::Exited(_) => None,
            Self::Failed(failure) => Some(failure.message.clone()),
            Self::Died(Some(why)) => Some(why.clone()),
            Self::Died(None) => Some(cause.to_owned()),
        }
    }
}
