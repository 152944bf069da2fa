//! The end that somebody wants.

use std::time::{Duration, Instant};

/// How the container is to end, and who wants it to.
#[derive(Debug)]
pub(super) struct Stopping {
    /// What `stop` sends first.
    pub(super) signal: u8,
    /// How long a stop may take; `None` is for ever.
    pub(super) timeout: Option<Duration>,
    /// When this process first received a signal to end.
    pub(super) first_signal_at: Option<Instant>,
    /// The signal that ended everything before there was a workload to send it to.
    pub(super) interrupted: Option<u8>,
    /// Somebody wants it to end: no restart.
    pub(super) manual: bool,
    /// By `stop`, or as `stop` does it.
    pub(super) stopped: bool,
    /// SIGKILL was sent.
    pub(super) killing: bool,
    /// When a stop has taken long enough.
    pub(super) kill_at: Option<Instant>,
}

impl Stopping {
    /// Nobody wants it to end yet.
    pub(super) const fn by(signal: u8, timeout: Option<Duration>) -> Self {
        Self {
            signal,
            timeout,
            first_signal_at: None,
            interrupted: None,
            manual: false,
            stopped: false,
            killing: false,
            kill_at: None,
        }
    }
}
