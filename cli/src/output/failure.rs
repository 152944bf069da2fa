//! Failures as they are printed: `hullbox: <what>: <why>`, and a hint where there is one.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// The exit code of a command that fails itself, of every command but `run`: as Docker's.
pub(crate) const FAILED: u8 = 1;
/// The same of `run`, whose other codes are the workload's; and of every command for a flag or a value
/// that is not valid.
pub(crate) const RUN_FAILED: u8 = 125;
/// The exit code of a program that wrote into a pipe without a reader, to a shell: 128 + SIGPIPE.
pub(crate) const BROKEN_PIPE: u8 = 141;

/// One line and perhaps a hint.
#[derive(Debug)]
pub(crate) struct Failure {
    line: String,
    hint: Option<String>,
    /// None: the command's own, see [`Failure::or_code`].
    code: Option<u8>,
}

impl Failure {
    pub(crate) fn new(line: impl Into<String>) -> Self {
        Self {
            line: line.into(),
            hint: None,
            code: None,
        }
    }

    /// What was tried, and the error with its causes.
    pub(crate) fn of(what: impl Into<String>, error: &dyn Error) -> Self {
        let mut line = what.into();
        let _ = write!(line, ": {}", chain(error));
        Self::new(line)
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) const fn with_code(mut self, code: u8) -> Self {
        self.code = Some(code);
        self
    }

    /// Sets the exit code of a failure that has none.
    pub(crate) const fn or_code(mut self, code: u8) -> Self {
        if self.code.is_none() {
            self.code = Some(code);
        }
        self
    }

    /// Prints nothing, because whatever failed has printed it already.
    pub(crate) const fn silent(code: u8) -> Self {
        Self {
            line: String::new(),
            hint: None,
            code: Some(code),
        }
    }
}

/// An error and its causes in one line. A cause that its effect already quotes is left out.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !line.ends_with(&text) {
            let _ = write!(line, ": {text}");
        }
        next = cause.source();
    }
    line
}

/// For errors whose own message is enough.
impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(chain(&error))
    }
}

/// Writing to standard output failed.
pub(crate) fn output_failed(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::silent(BROKEN_PIPE)
    } else {
        Failure::of("cannot write the output", error)
    }
}

/// Prints a failure and gives its exit code.
pub(crate) fn report(failure: &Failure) -> ExitCode {
    if !failure.line.is_empty() {
        let mut text = format!("hullbox: {}\n", one_line(&failure.line));
        if let Some(hint) = &failure.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        // Standard error was the last way to report anything.
        let _ = io::stderr().write_all(text.as_bytes());
    }
    ExitCode::from(failure.code.unwrap_or(FAILED))
}

/// The last failure as the command's own; those before it are printed at once, so that all are printed in
/// the order in which they happened.
pub(crate) fn one_of(mut failures: Vec<Failure>) -> Result<(), Failure> {
    let Some(last) = failures.pop() else {
        return Ok(());
    };
    for failure in &failures {
        report(failure);
    }
    Err(last)
}

/// No text from an image or a guest moves the cursor of the reader's terminal.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
