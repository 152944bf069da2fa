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

/// What [`hullbox_protocol::Setup`] says: what time it was for the host so long ago. Whether the clock is
/// right now.
pub fn begin(wall_clock_ns: u64, since: Duration) -> bool {
    let since_ns = i128::try_from(since.as_nanos()).unwrap_or(0);
    wall_clock_ns != 0 && step_to(i128::from(wall_clock_ns) + since_ns).is_ok()
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
    fn no_time_is_no_time() {
        assert!(!begin(0, Duration::from_secs(1)));
    }
}
