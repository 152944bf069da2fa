//! How many bytes a second may pass: token buckets.
//!
//! A bucket may be in debt: whatever is larger than it passes when there is anything in it, and what
//! follows waits longer. So nothing is dropped for its size.

use crate::timers::SECOND_NS;

/// The slowest rate, in bytes a second: a frame a second or so.
pub const MIN_RATE: u64 = 1024;
/// What a bucket holds: so many parts of a second, and at least two ordinary frames.
const BURST_PARTS: u64 = 10;
const MIN_BURST: i64 = 3028;
/// Who waited goes on when a bucket is filled to this part, so that it does not wake for each byte.
const RESUME_PART: i64 = 4;

/// Rates of a member, in bytes a second; none is as fast as can be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Of what it is sent.
    pub inbound: Option<u64>,
    /// Of what it sends.
    pub outbound: Option<u64>,
}

/// A token bucket. Time is the monotonic clock's, in nanoseconds.
#[derive(Debug)]
pub struct Bucket {
    rate: u64,
    burst: i64,
    /// Bytes that may pass; less than none is a debt.
    tokens: i64,
    /// Up to when tokens were added.
    filled_ns: u64,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn new(rate: u64, now_ns: u64) -> Self {
        let rate = rate.clamp(MIN_RATE, i64::MAX as u64 / BURST_PARTS);
        let burst = i64::try_from(rate / BURST_PARTS)
            .unwrap_or(i64::MAX)
            .max(MIN_BURST);
        Self {
            rate,
            burst,
            tokens: burst,
            filled_ns: now_ns,
        }
    }

    /// The rate, in bytes a second.
    #[must_use]
    pub const fn rate(&self) -> u64 {
        self.rate
    }

    /// Whether something may pass.
    pub fn is_open(&mut self, now_ns: u64) -> bool {
        self.fill(now_ns);
        self.tokens > 0
    }

    /// Whether something of another member's may pass, that cannot be held back there: its debt may be
    /// as large as the bucket.
    pub fn tolerates(&mut self, now_ns: u64) -> bool {
        self.fill(now_ns);
        self.tokens > -self.burst
    }

    /// Takes so many bytes' tokens.
    pub fn spend(&mut self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_sub(bytes);
    }

    /// When whoever waits goes on.
    #[must_use]
    pub fn resume_ns(&self) -> u64 {
        let missing = (self.burst / RESUME_PART)
            .saturating_sub(self.tokens)
            .max(1);
        let wait =
            u128::from(missing.unsigned_abs()) * u128::from(SECOND_NS) / u128::from(self.rate);
        let wait = u64::try_from(wait).unwrap_or(u64::MAX);
        self.filled_ns.saturating_add(wait).saturating_add(1)
    }

    fn fill(&mut self, now_ns: u64) {
        let passed = u128::from(now_ns.saturating_sub(self.filled_ns));
        let grown = passed * u128::from(self.rate) / u128::from(SECOND_NS);
        if grown == 0 {
            // Parts of a byte are not lost: time goes on from where it stood.
            return;
        }
        let missing = u128::from(self.burst.saturating_sub(self.tokens).unsigned_abs());
        if grown >= missing {
            self.tokens = self.burst;
            self.filled_ns = now_ns;
            return;
        }
        self.tokens += grown as i64;
        let took = grown * u128::from(SECOND_NS) / u128::from(self.rate);
        self.filled_ns += took as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes pass in so many seconds, in frames of this size.
    fn passed(rate: u64, frame: usize, seconds: u64) -> u64 {
        let mut bucket = Bucket::new(rate, 0);
        let (mut now_ns, mut count) = (0, 0);
        while now_ns < seconds * SECOND_NS {
            if bucket.is_open(now_ns) {
                bucket.spend(frame);
                count += frame as u64;
            } else {
                let next_ns = bucket.resume_ns();
                assert!(next_ns > now_ns);
                now_ns = next_ns;
            }
        }
        count
    }

    #[test]
    fn as_much_passes_as_was_said_and_a_burst() {
        for (rate, frame) in [
            (1024, 65_000),
            (10_000, 1500),
            (1 << 20, 60),
            (1 << 20, 65_000),
            (123_456_789, 65_000),
            (1 << 30, 65_000),
        ] {
            let seconds = 20;
            let most = rate * seconds + rate / BURST_PARTS + MIN_BURST as u64 + frame as u64;
            let count = passed(rate, frame, seconds);
            assert!(count <= most, "{rate} {frame}: {count}");
            assert!(
                count >= rate * seconds * 99 / 100,
                "{rate} {frame}: {count}"
            );
        }
    }

    #[test]
    fn rests_of_bytes_add_up_and_idle_time_does_not() {
        let mut bucket = Bucket::new(1024, 0);
        bucket.spend(MIN_BURST as usize);
        // Looked at far more often than a byte is due.
        let mut now_ns = 0;
        while now_ns < SECOND_NS {
            now_ns += 1000;
            bucket.is_open(now_ns);
        }
        assert!((1020..=1024).contains(&bucket.tokens), "{}", bucket.tokens);
        bucket.is_open(3_600 * SECOND_NS);
        assert_eq!(bucket.tokens, MIN_BURST);
        // A clock that stands, and numbers at their ends.
        bucket.is_open(0);
        bucket.spend(usize::MAX);
        bucket.spend(usize::MAX);
        assert!(!bucket.is_open(u64::MAX / 2));
        let _ = bucket.resume_ns();
        assert!(Bucket::new(u64::MAX, u64::MAX).is_open(u64::MAX));
    }

    #[test]
    fn another_members_frames_have_a_bound() {
        let mut bucket = Bucket::new(1 << 20, 0);
        let mut count = 0;
        while bucket.tolerates(0) {
            bucket.spend(1000);
            count += 1000;
        }
        assert!((2 * bucket.burst..2 * bucket.burst + 1000).contains(&count));
    }
}
