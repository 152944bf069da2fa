//! The guest's wall clock, which is to be the host's.
//!
//! A guest's clock runs on by itself. That of the host is set by its user, corrected by NTP, and leaps
//! when the host has slept. So the monitor says what time it is: in [`hullbox_protocol::Setup`], at once
//! when the host's clock was set, and seldom besides, against drift. The helper machine's supervisor
//! does the same.

use crate::failure::words;
use crate::sys;
use hullbox_protocol::Reply;
use rustix::io::Errno;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use std::time::Duration;

const NS_PER_S: i128 = 1_000_000_000;
/// An offset that may be the message's own time on its way.
const NEGLIGIBLE_NS: i128 = 5_000_000;
/// A larger offset is not worked off but set right at once, as NTP's daemons have it.
const STEP_NS: i128 = 100_000_000;
/// How long before the agent reads it a [`hullbox_protocol::Setup`] may have been written: a guest boots
/// meanwhile.
const BOOT_NS: i128 = 120 * NS_PER_S;

/// What is done about an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Correction {
    Nothing,
    /// Run faster or slower until so many microseconds are made good.
    Slew(i64),
    Step,
}

const fn correction(offset_ns: i128) -> Correction {
    match offset_ns.abs() {
        ..NEGLIGIBLE_NS => Correction::Nothing,
        #[expect(clippy::cast_possible_truncation, reason = "less than STEP_NS")]
        NEGLIGIBLE_NS..STEP_NS => Correction::Slew((offset_ns / 1000) as i64),
        _ => Correction::Step,
    }
}

/// Whether a guest that booted has a good clock: its kernel took the host's when it booted, which was
/// after the word that it is given now.
const fn is_booted_from(now_ns: i128, told_ns: i128) -> bool {
    let ahead = now_ns - told_ns;
    -NEGLIGIBLE_NS <= ahead && ahead <= BOOT_NS
}

fn now_ns() -> i128 {
    let now = clock_gettime(ClockId::Realtime);
    i128::from(now.tv_sec) * NS_PER_S + i128::from(now.tv_nsec)
}

fn step_to(right_ns: i128) -> Result<(), Errno> {
    let part = |value: i128| i64::try_from(value).map_err(|_| Errno::INVAL);
    let time = Timespec {
        tv_sec: part(right_ns / NS_PER_S)?,
        tv_nsec: part(right_ns % NS_PER_S)?,
    };
    clock_settime(ClockId::Realtime, time)
}

/// What [`hullbox_protocol::Setup`] says: what time it was for the host, for a copy `since` so long ago.
/// Whether the clock is right now.
pub fn begin(wall_clock_ns: u64, since: Option<Duration>) -> bool {
    if wall_clock_ns == 0 {
        return false;
    }
    let told_ns = i128::from(wall_clock_ns);
    match since {
        Some(since) => {
            let since_ns = i128::try_from(since.as_nanos()).unwrap_or(0);
            step_to(told_ns + since_ns).is_ok()
        }
        None => is_booted_from(now_ns(), told_ns) || step_to(told_ns).is_ok(),
    }
}

/// What time it is for the host: [`hullbox_protocol::Request::SetClock`].
pub fn keep(wall_clock_ns: u64) -> Reply {
    let right_ns = i128::from(wall_clock_ns);
    let kept = match correction(right_ns - now_ns()) {
        Correction::Nothing => Ok(()),
        Correction::Slew(offset_us) => sys::slew_clock(offset_us),
        Correction::Step => step_to(right_ns),
    };
    match kept {
        Ok(()) => Reply::Done,
        Err(errno) => Reply::Failed(format!("cannot set the clock: {}", words(errno))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i128 = 1_000_000;

    #[test]
    fn small_offsets_are_worked_off_and_large_ones_set() {
        assert_eq!(correction(0), Correction::Nothing);
        assert_eq!(correction(-4 * MS), Correction::Nothing);
        assert_eq!(correction(5 * MS), Correction::Slew(5000));
        assert_eq!(correction(-99 * MS), Correction::Slew(-99_000));
        assert_eq!(correction(100 * MS), Correction::Step);
        assert_eq!(correction(-3600 * NS_PER_S), Correction::Step);
        assert_eq!(correction(i128::from(u64::MAX)), Correction::Step);
    }

    #[test]
    fn a_guest_that_booted_knows_better_than_a_word_from_before() {
        let told = 1_700_000_000 * NS_PER_S;
        assert!(is_booted_from(told, told));
        assert!(is_booted_from(told + 400 * MS, told));
        assert!(!is_booted_from(told - NS_PER_S, told), "set back meanwhile");
        assert!(!is_booted_from(told + 3600 * NS_PER_S, told));
        assert!(!is_booted_from(0, told), "a kernel without a clock");
    }

    #[test]
    fn no_time_is_no_time() {
        assert!(!begin(0, None));
        assert!(!begin(0, Some(Duration::from_secs(1))));
    }
}
