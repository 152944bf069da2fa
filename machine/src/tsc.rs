//! The frequency of the time stamp counter, measured for the machine.
//!
//! The emulator passes the host's counter on as it is, and the machine's kernel would measure its
//! frequency against an emulated timer. On a busy host that goes wrong without a sign, even by a
//! factor of two, and then time itself runs wrong in the machine and in every guest in it. Here
//! it can be measured well in a moment.

use std::fs;
use std::time::{Duration, Instant};

/// Between the two readings. The readings' error, well under a microsecond, is small beside it.
const INTERVAL: Duration = Duration::from_millis(20);
/// Readings of which the least disturbed counts.
const TRIES: u32 = 16;

/// The counter's frequency, in kHz; `None` where there is no counter that keeps its pace.
#[must_use]
pub fn frequency_khz() -> Option<u64> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").ok()?;
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    let constant = flags.split_whitespace().any(|flag| flag == "constant_tsc");
    constant.then(measure)?
}

#[cfg(target_arch = "x86_64")]
fn measure() -> Option<u64> {
    let (first_time, first_count) = reading()?;
    std::thread::sleep(INTERVAL);
    let (last_time, last_count) = reading()?;
    let nanoseconds = last_time.duration_since(first_time).as_nanos();
    let counted = u128::from(last_count.checked_sub(first_count)?);
    u64::try_from(counted * 1_000_000 / nanoseconds.max(1)).ok()
}

#[cfg(not(target_arch = "x86_64"))]
fn measure() -> Option<u64> {
    None
}

/// The time and the counter at one moment: of several tries, the one that took the least time.
#[cfg(target_arch = "x86_64")]
fn reading() -> Option<(Instant, u64)> {
    (0..TRIES)
        .map(|_| {
            let before = Instant::now();
            let count = crate::sys::time_stamp();
            let took = before.elapsed();
            (took, before + took / 2, count)
        })
        .min_by_key(|(took, ..)| *took)
        .map(|(_, time, count)| (time, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        let (Some(one), Some(two)) = (frequency_khz(), frequency_khz()) else {
            return; // No such counter here.
        };
        assert!(one > 100_000 && one < 20_000_000, "{one} kHz");
        assert!(one.abs_diff(two) * 1000 < one, "{one} and {two} kHz");
    }
}
