//! Asking before something is removed.

use super::failure::Failure;
use rustix::termios::isatty;
use std::io::{self, BufRead, Write};
use std::os::fd::AsFd;

/// Asks on standard error and reads the answer from standard input.
pub(crate) fn confirm(warning: &str) -> Result<bool, Failure> {
    let question = format!("{warning}\nAre you sure you want to continue? [y/N] ");
    // An answer may come without the question having been seen, as from `yes |`.
    let _ = io::stderr().write_all(question.as_bytes());
    let mut answer = String::new();
    io::Read::take(io::stdin().lock(), 100)
        .read_line(&mut answer)
        .map_err(|error| Failure::of("cannot read the answer", &error))?;
    if answer.is_empty() && !isatty(io::stdin().as_fd()) {
        return Err(Failure::new("nobody is there to confirm").with_hint("use --force"));
    }
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
