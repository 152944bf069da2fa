//! When a request is sent again, and after how long.

use super::{Answer, Timing};
use crate::error::RequestError;
use reqwest::header::RETRY_AFTER;
use std::time::SystemTime;

/// Waiting times between the tries of one thing.
#[derive(Debug)]
pub(crate) struct Backoff {
    failures: u32,
    backoff_ms: u64,
    max_wait_ms: u64,
    tries: u32,
}

impl Backoff {
    pub(crate) const fn new(timing: &Timing) -> Self {
        Self {
            failures: 0,
            backoff_ms: timing.backoff_ms,
            max_wait_ms: timing.max_wait_ms,
            tries: timing.tries,
        }
    }

    /// Counts a failure. How long to wait before the next try, in milliseconds; `None` if there
    /// is none. A registry that names a time gets it, or no further try if that is too long.
    pub(crate) fn fail(&mut self, wanted_ms: Option<u64>) -> Option<u64> {
        self.failures += 1;
        if self.failures >= self.tries {
            return None;
        }
        match wanted_ms {
            Some(wanted) if wanted > self.max_wait_ms => None,
            Some(wanted) => Some(wanted),
            None => {
                let doubled = self
                    .backoff_ms
                    .saturating_mul(1 << (self.failures - 1).min(16));
                let wait = doubled.min(self.max_wait_ms);
                // Many clients that failed at once do not come back at once.
                Some(wait - wait / 4 + fastrand::u64(0..=wait / 4))
            }
        }
    }

    /// Something went well: the count begins anew.
    pub(crate) const fn succeed(&mut self) {
        self.failures = 0;
    }
}

/// Statuses that another try may change.
pub(crate) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

impl RequestError {
    /// Whether no connection came about.
    pub(crate) const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Proxy { .. })
    }

    /// Whether another try may change it. A host that cannot be reached at all is not tried again:
    /// who is offline wants to know at once.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Broken { .. } | Self::Stalled { .. } | Self::TooManyRequests { .. } => true,
            Self::Status { status, .. } => is_transient(*status),
            _ => false,
        }
    }
}

/// How long a registry asks to be left alone, in milliseconds (RFC 9110, 10.2.3).
pub(crate) fn retry_after_ms(answer: &Answer) -> Option<u64> {
    retry_after(answer.header(RETRY_AFTER)?, SystemTime::now())
}

fn retry_after(text: &str, now: SystemTime) -> Option<u64> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(seconds.saturating_mul(1000));
    }
    let date = httpdate::parse_http_date(text.trim()).ok()?;
    let wait = date.duration_since(now).unwrap_or_default();
    u64::try_from(wait.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn waits_grow_and_end() {
        let timing = Timing {
            backoff_ms: 100,
            max_wait_ms: 150,
            tries: 4,
            ..Timing::default()
        };
        let mut backoff = Backoff::new(&timing);
        assert!((75..=100).contains(&backoff.fail(None).unwrap()));
        assert!((112..=150).contains(&backoff.fail(None).unwrap()));
        assert_eq!(backoff.fail(Some(7)), Some(7));
        assert_eq!(backoff.fail(None), None);
        backoff.succeed();
        assert_eq!(backoff.fail(Some(151)), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(retry_after("3", now), Some(3000));
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:49:47 GMT", now),
            Some(10_000)
        );
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:00 GMT", now), Some(0));
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(retry_after("-1", now), None);
        assert!(retry_after("18446744073709551615", now).is_some());
    }
}
