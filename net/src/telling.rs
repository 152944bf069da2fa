//! What is told of things that whoever causes them could cause without end: each once, and not too often.

use std::collections::VecDeque;

/// Most things that are told in a row.
const AT_ONCE: u32 = 32;
/// How soon one more may be told after that, in nanoseconds.
const PAUSE_NS: u64 = 10_000_000_000;
/// Most things that were told and are remembered; the oldest may be told again.
const REMEMBERED: usize = 256;

/// Decides what is told.
#[derive(Debug)]
pub struct Telling<T> {
    told: VecDeque<T>,
    /// How many may be told now.
    left: u32,
    /// Since when there is one less than can be.
    since_ns: u64,
    /// What could not be told since the last one that was.
    untold: u64,
}

impl<T> Default for Telling<T> {
    fn default() -> Self {
        Self {
            told: VecDeque::new(),
            left: AT_ONCE,
            since_ns: 0,
            untold: 0,
        }
    }
}

impl<T: PartialEq + Clone> Telling<T> {
    /// Whether this is to be told, at a time in nanoseconds that does not go back. If so, how many others
    /// were not told before it that should have been.
    pub fn tells(&mut self, what: &T, now_ns: u64) -> Option<u64> {
        if self.told.contains(what) {
            return None;
        }
        let come = now_ns.saturating_sub(self.since_ns) / PAUSE_NS;
        if self.left == AT_ONCE || come >= u64::from(AT_ONCE - self.left) {
            (self.left, self.since_ns) = (AT_ONCE, now_ns);
        } else {
            self.left += come as u32;
            self.since_ns += come * PAUSE_NS;
        }
        if self.left == 0 {
            self.untold = self.untold.saturating_add(1);
            return None;
        }
        self.left -= 1;
        if self.told.len() >= REMEMBERED {
            self.told.pop_front();
        }
        self.told.push_back(what.clone());
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_told_once_and_a_flood_in_part() {
        let mut telling = Telling::default();
        let start_ns = 77 * PAUSE_NS;
        assert_eq!(telling.tells(&0, start_ns), Some(0));
        assert_eq!(telling.tells(&0, start_ns), None);
        let told = (1..10_000).filter(|n| telling.tells(n, start_ns + 1).is_some());
        assert_eq!(told.count(), AT_ONCE as usize - 1);
        // Nothing more comes of the same things, whatever the time.
        assert_eq!(telling.tells(&1, start_ns + 1000 * PAUSE_NS), None);
        let later = start_ns + PAUSE_NS;
        assert_eq!(telling.tells(&-1, later - 1), None);
        let untold = 10_000 - u64::from(AT_ONCE) + 1;
        assert_eq!(telling.tells(&-2, later), Some(untold));
        assert_eq!(telling.tells(&-3, later), None);
        assert_eq!(telling.tells(&-3, later + 2 * PAUSE_NS), Some(1));
        assert_eq!(telling.tells(&-4, later + 2 * PAUSE_NS), Some(0));
        // After a long rest there are no more than in the beginning.
        let rested = later + 1_000_000 * PAUSE_NS;
        let told = (20_000..30_000).filter(|n| telling.tells(n, rested).is_some());
        assert_eq!(told.count(), AT_ONCE as usize);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut telling = Telling::default();
        for n in 0..10 * REMEMBERED as u64 {
            assert_eq!(telling.tells(&n, n * PAUSE_NS), Some(0));
        }
        assert_eq!(telling.told.len(), REMEMBERED);
    }
}
