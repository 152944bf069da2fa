//! Joining our streams to a process behind a wall, and what its end means for our exit code.

use crate::failure::{BROKEN_PIPE, Failure};
use hullbox_engine::monitor::control::{self, Answer};
use hullbox_engine::timing::Marks;
use hullbox_protocol::{FailureKind, Frame, TerminalSize};
use hullbox_session::client::{
    AttachError, AttachOptions, Outcome, attach, attach_or_leave, terminal_size,
};
use rustix::termios::isatty;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

/// How it went.
pub(crate) struct Joint {
    pub(crate) outcome: Outcome,
    /// The process ran at some time.
    pub(crate) started: bool,
    /// What the monitor answered instead of joining us to anything.
    pub(crate) answer: Option<Answer>,
    /// What took how long on the other side, if that was asked.
    pub(crate) timing: Option<Marks>,
    /// Our own output failed.
    output: Option<io::Error>,
}

/// Joins until one side ends it. Whose output nobody reads any more is told.
pub(crate) fn join(connection: OwnedFd, options: AttachOptions) -> Result<Joint, Failure> {
    join_by(options, |options, observe| {
        attach(connection, &[], options, observe)
    })
}

/// Joins until one side ends it, or nobody reads our output any more.
pub(crate) fn join_or_leave(connection: OwnedFd, options: AttachOptions) -> Result<Joint, Failure> {
    join_by(options, |options, observe| {
        attach_or_leave(connection, options, observe)
    })
}

fn join_by(
    options: AttachOptions,
    attach: impl FnOnce(AttachOptions, &mut dyn FnMut(&Frame)) -> Result<Outcome, AttachError>,
) -> Result<Joint, Failure> {
    let (mut started, mut answer, mut timing) = (false, None, None);
    let mut observe = |frame: &Frame| match frame {
        Frame::Started { .. } => started = true,
        // No guest's word comes as this: it is the monitor's own.
        Frame::Log(text) => warn(text),
        Frame::Local(_) => match control::from_frame(frame) {
            Some(Answer::Timing(marks)) => timing = Some(marks),
            other => answer = other,
        },
        _ => {}
    };
    let (outcome, output) = match attach(options, &mut observe) {
        Ok(outcome) => (outcome, None),
        Err(AttachError::Output { outcome, source }) => (*outcome, Some(source)),
        Err(error) => return Err(error.into()),
    };
    Ok(Joint {
        outcome,
        started,
        answer,
        timing,
        output,
    })
}

/// One line on standard error.
fn warn(text: &str) {
    // Nobody to tell of failing to warn.
    let _ = io::stderr().write_all(format!("hullbox: warning: {text}\n").as_bytes());
}

impl Joint {
    /// Our exit code. `gone` says what it means that the connection broke.
    pub(crate) fn code(self, gone: &str) -> Result<u8, Failure> {
        match self.outcome {
            Outcome::Exited(status) => match self.output {
                // The workload's own end counts, as with a pipe that the shell made.
                Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    Err(Failure::of("cannot write the output", &error)
                        .with_code(status.exit_code()))
                }
                _ => Ok(status.exit_code()),
            },
            Outcome::Failed(failure) => Err(match failure.kind {
                FailureKind::Setup => Failure::new(failure.message),
                FailureKind::NotExecutable | FailureKind::NotFound => {
                    let code = failure.exit_code();
                    Failure::new(failure.message).with_code(code)
                }
            }),
            Outcome::Interrupted(signal) => {
                Ok(u8::try_from(signal).map_or(u8::MAX, |signal| 128u8.saturating_add(signal)))
            }
            Outcome::Detached => Ok(0),
            Outcome::Unread => Err(Failure::silent(BROKEN_PIPE)),
            Outcome::Disconnected => match self.answer {
                Some(Answer::Failed(why)) => Err(Failure::new(why)),
                _ => Err(Failure::new(gone)),
            },
        }
    }
}

/// `-it` wants a terminal to be typed at.
pub(crate) fn check_terminal(tty: bool, interactive: bool) -> Result<(), Failure> {
    if tty && interactive && !isatty(io::stdin().as_fd()) {
        return Err(Failure::new("the input device is not a terminal")
            .with_hint("leave out -t, or run it from a terminal"));
    }
    Ok(())
}

/// The size of the terminal we are at, if it is one.
pub(crate) fn own_terminal_size() -> Option<TerminalSize> {
    terminal_size(io::stdin().as_fd()).or_else(|| terminal_size(io::stdout().as_fd()))
}
