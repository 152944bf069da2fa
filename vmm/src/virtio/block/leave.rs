//! When virtual CPUs may risk a write that has to wait.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A write by a virtual CPU that took longer than this has waited for something.
const WAITED: Duration = Duration::from_millis(1);
/// After a write that waited, virtual CPUs leave writes alone for so many times as long.
const WAIT_FACTOR: u64 = 32;

/// Whether virtual CPUs may write to a file whose filesystem cannot tell whether that takes waiting:
/// writing into the page cache seldom does, but a full journal, or more dirty memory than the host
/// allows, may take a while, in which the guest's other programs should run. With [`WAIT_FACTOR`],
/// waiting takes 3 % of a virtual CPU's time at most.
#[derive(Debug, Default)]
pub(super) struct Leave {
    /// The clock's zero.
    origin: OnceLock<Instant>,
    /// Not before then, in nanoseconds of that clock.
    until_ns: AtomicU64,
}

impl Leave {
    /// Do it and see how long that takes, unless it is too soon.
    pub(super) fn take<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let origin = self.origin.get_or_init(Instant::now);
        let now_ns = || u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let begin_ns = now_ns();
        if begin_ns < self.until_ns.load(Ordering::Relaxed) {
            return None;
        }
        let done = work();
        let rest_ns = Self::rest_ns(begin_ns, now_ns());
        self.until_ns.fetch_max(rest_ns, Ordering::Relaxed);
        Some(done)
    }

    /// When to write again after a write that took from `begin_ns` to `end_ns`; 0 is at once.
    fn rest_ns(begin_ns: u64, end_ns: u64) -> u64 {
        let took_ns = end_ns.saturating_sub(begin_ns);
        if Duration::from_nanos(took_ns) <= WAITED {
            return 0;
        }
        end_ns.saturating_add(took_ns.saturating_mul(WAIT_FACTOR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_waited_is_paid_for() {
        assert_eq!(Leave::rest_ns(5, 5), 0);
        assert_eq!(Leave::rest_ns(5, 1_000_005), 0);
        assert_eq!(Leave::rest_ns(0, 2_000_000), 2_000_000 * 33);
        assert_eq!(Leave::rest_ns(9, 3), 0);
        assert_eq!(Leave::rest_ns(0, u64::MAX), u64::MAX);
        let leave = Leave::default();
        assert_eq!(leave.take(|| 7), Some(7));
        leave.until_ns.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(leave.take(|| 7), None);
    }
}
