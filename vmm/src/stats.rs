//! Counters that all threads of a VM share.

use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that costs one uncontended addition.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What [`crate::VmStats`] is read from.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) io_exits: Counter,
    pub(crate) mmio_read_exits: Counter,
    pub(crate) mmio_write_exits: Counter,
    pub(crate) other_exits: Counter,
    pub(crate) queue_notifications: Counter,
    pub(crate) interrupts: Counter,
    pub(crate) dropped_frames: Counter,
}

/// How much of a range of this process's memory is resident, in bytes; 0 if the kernel does not
/// tell.
pub(crate) fn resident_bytes(range: (u64, u64)) -> u64 {
    let Ok(file) = std::fs::File::open("/proc/self/smaps") else {
        return 0;
    };
    sum_rss(BufReader::new(file), range)
}

/// Sum the `Rss:` lines of the mappings inside a range.
fn sum_rss(smaps: impl BufRead, (start, end): (u64, u64)) -> u64 {
    let mut inside = false;
    let mut kib = 0u64;
    for line in smaps.lines().map_while(Result::ok) {
        if let Some(value) = line.strip_prefix("Rss:") {
            if inside {
                let number = value.trim().trim_end_matches(" kB");
                kib += number.parse::<u64>().unwrap_or(0);
            }
        } else if let Some((low, high)) = mapping_of(&line) {
            inside = low >= start && high <= end;
        }
    }
    kib * 1024
}

/// The addresses at the start of a mapping's first line.
fn mapping_of(line: &str) -> Option<(u64, u64)> {
    let (low, rest) = line.split_once('-')?;
    let (high, _) = rest.split_once(' ')?;
    Some((
        u64::from_str_radix(low, 16).ok()?,
        u64::from_str_radix(high, 16).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mappings_in_the_range_count() {
        let smaps = "1000-2000 rw-p 00000000 00:00 0 \nSize: 4 kB\nRss:                4 kB\n\
                     2000-4000 rw-p 00000000 00:00 0 [heap]\nRss:                8 kB\n\
                     4000-5000 rw-p 00000000 00:00 0 \nRss:                4 kB\n";
        assert_eq!(sum_rss(smaps.as_bytes(), (0x2000, 0x5000)), 12 * 1024);
        assert_eq!(sum_rss(smaps.as_bytes(), (0, 0x1000)), 0);
    }
}
