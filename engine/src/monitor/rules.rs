//! Who may say what when, and what it means for the container.

use crate::timing::Timing;
use hullbox_protocol::{
    ExitStatus, Failure, FailureKind, Frame, PROTOCOL_VERSION, Started, Stream,
};
use hullbox_session::connection::ConnectionError;
use std::io;

/// The only session there is, yet: the workload.
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

/// Why the workload's side is not listened to any longer.
pub(super) enum GuestError {
    Connection(ConnectionError),
    Violation(String),
}

impl From<ConnectionError> for GuestError {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(error)
    }
}

/// Whether a frame that is no data is one of an attached client.
pub(super) const fn client_may_say(frame: &Frame) -> bool {
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

/// What becomes of a frame from the workload's side.
pub(super) enum Meaning {
    Forward,
    Keep,
    Started(Started),
    End(Ending),
}

pub(super) fn check_guest(frame: &Frame, started: bool) -> Result<Meaning, GuestError> {
    Ok(match frame {
        Frame::Hello(hello) if hello.version != PROTOCOL_VERSION => {
            return Err(GuestError::Violation(
                "its version is not that of this program".to_owned(),
            ));
        }
        Frame::Hello(_) | Frame::Log(_) => Meaning::Keep,
        Frame::Started {
            session: WORKLOAD,
            started: who,
        } if !started => Meaning::Started(who.clone()),
        Frame::Failed {
            session: WORKLOAD,
            failure,
        } if !started => Meaning::End(Ending::Failed(clean(failure))),
        Frame::Exited {
            session: WORKLOAD,
            status,
        } if started => Meaning::End(Ending::Exited(*status)),
        // Streams may move before `Started`: an input that nobody reads is said so at once.
        Frame::Eof {
            session: WORKLOAD, ..
        }
        | Frame::Credit {
            session: WORKLOAD,
            stream: Stream::Stdin,
            ..
        } => Meaning::Forward,
        other => {
            let text = format!("{other:?}");
            let name: String = text
                .chars()
                .take_while(char::is_ascii_alphanumeric)
                .collect();
            return Err(GuestError::Violation(format!("{name} out of turn")));
        }
    })
}

/// What is for us alone.
pub(super) fn note(frame: &Frame, timing: Timing, debug: bool) {
    match frame {
        Frame::Hello(hello) => {
            timing.mark(&format!("hello, guest uptime {} us", hello.uptime_us));
        }
        Frame::Log(text) if debug => {
            let line = format!("hullbox: guest: {}\n", one_line(text));
            // A debugging aid that nobody reads is no failure.
            let _ = io::Write::write_all(&mut io::stderr(), line.as_bytes());
        }
        _ => {}
    }
}

/// A message from inside, fit for a terminal.
fn clean(failure: &Failure) -> Failure {
    Failure {
        kind: failure.kind,
        message: one_line(&failure.message),
    }
}

/// Without control characters, and of bounded length.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(1024)
        .collect()
}

impl Ending {
    /// The frame that tells the client, given what the backend knows.
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
