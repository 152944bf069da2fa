//! When something is due.

use std::time::Instant;

/// What happens when time is up.
#[derive(Debug, Clone, Copy)]
pub(super) enum Deadline {
    /// The guest has not answered.
    Boot,
    /// The workload has not died of SIGKILL.
    Kill,
    /// The backend has not ended.
    Cause,
}

/// When something is due.
#[derive(Debug, Default)]
pub(super) struct Timers {
    pub(super) deadline: Option<(Instant, Deadline)>,
    /// When what only the start needed can go.
    pub(super) settled_at: Option<Instant>,
}
