//! What libcontainer has to say about a failure.
//!
//! Its processes report to each other only the outermost message of an error; the cause is in an
//! event that it traces where the error arises, which may be in a process that it forked. So
//! error events go into a pipe, and the first of them is the cause.

use rustix::fd::OwnedFd;
use rustix::pipe::{PipeFlags, pipe_with};
use std::fmt::{Debug, Write};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Longest cause, in bytes; a line of this length goes into a pipe whole.
const MAX_LINE: usize = 600;

/// Runs `work`, and returns what it traced first as an error, if it did.
pub(super) fn first_error<T>(work: impl FnOnce() -> T) -> (T, Option<String>) {
    let Ok((read, write)) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK) else {
        return (work(), None);
    };
    let result = tracing::subscriber::with_default(Errors { pipe: write }, work);
    let mut text = [0; MAX_LINE];
    let length = rustix::io::read(&read, &mut text).unwrap_or(0);
    let text = String::from_utf8_lossy(&text[..length]);
    let first = text.lines().next().map(str::to_owned);
    (result, first.filter(|line| !line.is_empty()))
}

/// Writes error events into a pipe. When it is full, they are lost: the first is in it.
struct Errors {
    pipe: OwnedFd,
}

impl Subscriber for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::ERROR)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let mut text = line.text();
        text.push('\n');
        let _ = rustix::io::write(&self.pipe, text.as_bytes());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// An event as one line: its message, then its error.
#[derive(Default)]
struct Line {
    message: String,
    error: String,
}

impl Line {
    fn text(&self) -> String {
        let separator = if self.error.is_empty() { "" } else { ": " };
        let text = format!("{}{separator}{}", self.message, self.error).replace('\n', " ");
        let end = (0..=text.len().min(MAX_LINE - 1))
            .rev()
            .find(|&i| text.is_char_boundary(i));
        text[..end.unwrap_or(0)].to_owned()
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing into a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "err" | "error" | "errno" | "e" => write!(self.error, "{value:?}"),
            _ => Ok(()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_kept() {
        let (value, error) = first_error(|| {
            tracing::warn!("not this");
            tracing::error!(err = ?std::io::ErrorKind::NotFound, path = 1, "cannot mount");
            tracing::error!("a consequence");
            5
        });
        assert_eq!(value, 5);
        assert_eq!(error.as_deref(), Some("cannot mount: NotFound"));
        assert_eq!(first_error(|| ()).1, None);
    }

    #[test]
    fn long_events_are_cut() {
        let (_, error) = first_error(|| tracing::error!("{}", "ä".repeat(5000)));
        assert!(error.unwrap().len() < MAX_LINE);
    }
}
