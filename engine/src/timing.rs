//! Where the time of a run goes: `HULLBOX_TIMING=1` prints a line for each step.
//!
//! Command line and monitor share one clock (CLOCK_MONOTONIC) and one zero, the command line's
//! first instruction in `main`.

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::io::Write;

/// A clock that may be off, and then costs nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    zero_us: Option<u64>,
}

fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (now.tv_sec, now.tv_nsec);
    u64::try_from(seconds).unwrap_or(0) * 1_000_000 + u64::try_from(nanos).unwrap_or(0) / 1000
}

impl Timing {
    /// Starts at zero now, if the environment asks for it.
    #[must_use]
    pub fn from_env() -> Self {
        let wanted = std::env::var_os("HULLBOX_TIMING")
            .is_some_and(|value| !value.is_empty() && value != *"0");
        Self {
            zero_us: wanted.then(now_us),
        }
    }

    /// Whether anything is printed.
    #[must_use]
    pub const fn is_on(self) -> bool {
        self.zero_us.is_some()
    }

    /// Prints when a step was done.
    pub fn mark(self, step: &str) {
        let Some(zero) = self.zero_us else {
            return;
        };
        let elapsed = now_us().saturating_sub(zero);
        let line = format!(
            "hullbox: timing: {:7}.{:03} ms  {step}\n",
            elapsed / 1000,
            elapsed % 1000
        );
        // One write, so that lines of the two processes do not mix. Nowhere to report failure.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}
