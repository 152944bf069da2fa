//! Attaching this process's streams to a process in a container, and what its end means for the exit
//! code.

use crate::args::values::DetachKeys;
use crate::output::failure::{BROKEN_PIPE, Failure};
use hullbox_engine::monitor::control::{self, Answer, Command};
use hullbox_engine::timing::Marks;
use hullbox_protocol::{FailureKind, Frame, TerminalSize};
use hullbox_session::client::{
    AttachError, AttachOptions, Detach, Outcome, attach, attach_or_leave, terminal_size,
};
use hullbox_session::direct::Descriptors;
use rustix::termios::isatty;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

/// The failure of a session whose monitor closed the connection without an answer.
pub(super) const MONITOR_DIED: &str = "the container's monitor was killed";

/// How attaching ended.
pub(super) struct Joint {
    pub(super) outcome: Outcome,
    /// The process was started.
    pub(super) started: bool,
    /// The monitor's answer in place of a session.
    pub(super) answer: Option<Answer>,
    /// The monitor's timing, if it was asked for.
    pub(super) timing: Option<Marks>,
    /// Writing to our standard output or standard error failed.
    output: Option<io::Error>,
}

/// Attaches until either side ends the session. If nobody reads our output any more, the process is
/// notified as by SIGPIPE.
pub(super) fn join(connection: OwnedFd, options: AttachOptions) -> Result<Joint, Failure> {
    join_by(options, |options, observe| {
        attach(connection, &[], options, observe)
    })
}

/// Attaches until either side ends the session, or nobody reads our output any more.
pub(super) fn join_or_leave(connection: OwnedFd, options: AttachOptions) -> Result<Joint, Failure> {
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
        // The monitor's own: it passes no such frame of a guest on.
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
    // A warning that cannot be written is no reason to fail.
    let _ = io::stderr().write_all(format!("hullbox: warning: {text}\n").as_bytes());
}

impl Joint {
    /// Our exit code, or the failure. `gone` is the message if the connection broke.
    pub(super) fn code(self, gone: &str) -> Result<u8, Failure> {
        match self.outcome {
            Outcome::Exited(status) => match self.output {
                // The workload's exit code counts, as with a pipe of the shell's.
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

/// Fails if `-it` was given and standard input is no terminal.
pub(super) fn check_terminal(tty: bool, interactive: bool) -> Result<(), Failure> {
    if tty && interactive && !isatty(io::stdin().as_fd()) {
        return Err(Failure::new("the input device is not a terminal")
            .with_hint("leave out -t, or run it from a terminal"));
    }
    Ok(())
}

/// Our standard streams, of those that a process's may be joined to without frames; none where
/// frames are wanted, for a terminal or for what they tell of the time.
pub(super) fn own_streams(interactive: bool, by_frames: bool) -> Result<Descriptors, Failure> {
    if by_frames {
        return Ok(Descriptors::default());
    }
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let input = interactive.then(|| stdin.as_fd());
    Descriptors::of(input, stdout.as_fd(), stderr.as_fd())
        .map_err(|error| Failure::of("cannot pass the standard streams on", &error))
}

/// The size of our terminal, if standard input or output is one.
pub(super) fn own_terminal_size() -> Option<TerminalSize> {
    terminal_size(io::stdin().as_fd()).or_else(|| terminal_size(io::stdout().as_fd()))
}

/// The value of [`AttachOptions::detach`] for these keys; `None` if there are none.
pub(super) fn detach(keys: DetachKeys) -> Option<Detach> {
    let frame = control::to_frame(&Command::Detach).ok()?;
    (!keys.0.is_empty()).then_some(Detach {
        keys: keys.0,
        frame,
    })
}
