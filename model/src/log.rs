//! What a log holds: pieces of lines, with when and where they were written.

use serde::{Deserialize, Serialize};

/// Which stream of the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output, or a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// As an array's index.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// A line of a log, or a piece of one: what is longer than 16 KiB, or was written without a newline
/// and not continued at once, is kept in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written, in nanoseconds since 1970.
    pub time_ns: i64,
    /// Where to.
    pub stream: LogStream,
    /// What, with its newline.
    pub bytes: Vec<u8>,
    /// It continues the line of the last piece of its stream.
    pub continues: bool,
    /// Its line goes on: there is no newline at its end.
    pub partial: bool,
}

/// Which lines of a log are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Nothing from before, in nanoseconds since 1970.
    pub since_ns: Option<i64>,
    /// Nothing from then on, in nanoseconds since 1970.
    pub until_ns: Option<i64>,
    /// Only so many lines from the end.
    pub tail: Option<usize>,
}

impl LogQuery {
    /// Whether something written then is wanted.
    #[must_use]
    pub fn fits(&self, time_ns: i64) -> bool {
        self.since_ns.is_none_or(|since| time_ns >= since)
            && self.until_ns.is_none_or(|until| time_ns < until)
    }
}
