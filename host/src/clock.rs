//! The host's wall clock, and when a guest has to be told of it; the helper machine is one, too.
//!
//! A guest's wall clock runs on by itself: it does not learn that the host's was set, that the host
//! slept, or that NTP corrects it. A timer of the host's wall clock tells all of it without a look:
//! [`CANCEL_ON_SET`] ends it when the clock is set and when the host has slept (timerfd_create(2)),
//! and otherwise it is up when drift may have grown to some milliseconds. Then the guest is told.
//!
//! [`CANCEL_ON_SET`]: TimerfdTimerFlags::CANCEL_ON_SET

use rustix::io::Errno;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often a guest is told though nothing has happened: a clock that is 50 ppm fast or slow has
/// gone wrong by 30 ms then.
pub const AGAINST_DRIFT_S: u32 = 600;
/// Only what is set is told.
pub const NEVER_S: u32 = u32::MAX;
/// A guest that answers within this time had the right time to within this time.
const PROMPT: Duration = Duration::from_millis(100);
/// How often one that was slow is told again: a busy host is no reason to talk without end.
const TRIES: u8 = 3;

/// Nanoseconds since 1970.
#[must_use]
pub fn wall_clock_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|now| u64::try_from(now.as_nanos()).ok())
        .unwrap_or(0)
}

/// Tells when a guest is to be told what time it is: see the module.
#[derive(Debug)]
pub struct Clock {
    timer: OwnedFd,
    interval_s: u32,
    told: Option<Told>,
    /// What was told was not prompt so many times in a row.
    slow: u8,
}

/// What the guest has not answered yet.
#[derive(Debug)]
struct Told {
    number: u32,
    at: Instant,
    /// The clock was set since.
    old: bool,
}

impl Clock {
    /// From now on, and at least so often.
    ///
    /// # Errors
    /// There can be no timer.
    pub fn new(interval_s: u32) -> Result<Self, Errno> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let clock = Self {
            timer: timerfd_create(TimerfdClockId::Realtime, flags)?,
            interval_s,
            told: None,
            slow: 0,
        };
        clock.arm()?;
        Ok(clock)
    }

    fn arm(&self) -> Result<(), Errno> {
        let now = clock_gettime(ClockId::Realtime);
        let at = |tv_sec| Timespec { tv_sec, tv_nsec: 0 };
        let times = Itimerspec {
            it_interval: at(0),
            it_value: at(now.tv_sec.saturating_add(self.interval_s.into())),
        };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        match timerfd_settime(&self.timer, flags, &times) {
            // Set between two looks. The timer is armed all the same.
            Ok(_) | Err(Errno::CANCELED) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Readable when the guest is to be told.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// Whether the guest is to be told now. One that has not answered is told when it has.
    pub fn is_due(&mut self) -> bool {
        match rustix::io::read(&self.timer, &mut [0; 8]) {
            // It went off, or the clock was set.
            Ok(_) | Err(Errno::CANCELED) => {}
            Err(_) => return false,
        }
        // Without a timer the clock is what it was before there was one.
        let _ = self.arm();
        self.slow = 0;
        if let Some(told) = &mut self.told {
            told.old = true;
        }
        self.told.is_none()
    }

    /// The guest is being told, under this number.
    pub fn tells(&mut self, number: u32) {
        self.told = Some(Told {
            number,
            at: Instant::now(),
            old: false,
        });
    }

    /// Whether that is the number of an answer to what it was told, and then whether it is to be told
    /// once more.
    pub fn answered(&mut self, number: u32) -> Option<bool> {
        let told = self.told.take_if(|told| told.number == number)?;
        if told.old {
            return Some(true);
        }
        if told.at.elapsed() < PROMPT {
            self.slow = 0;
            return Some(false);
        }
        self.slow = self.slow.saturating_add(1);
        Some(self.slow < TRIES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    fn is_readable(clock: &Clock) -> bool {
        let fd = clock.fd();
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&now)).unwrap() == 1
    }

    /// Has the timer go off now.
    fn go_off(clock: &Clock) {
        let times = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            },
        };
        timerfd_settime(&clock.timer, TimerfdTimerFlags::ABSTIME, &times).unwrap();
    }

    #[test]
    fn nothing_is_due_until_the_timer_says_so() {
        let mut clock = Clock::new(AGAINST_DRIFT_S).unwrap();
        assert!(!is_readable(&clock));
        assert!(!clock.is_due());
        go_off(&clock);
        assert!(is_readable(&clock));
        assert!(clock.is_due());
        assert!(!is_readable(&clock), "armed again");
        assert!(!clock.is_due());
    }

    #[test]
    fn one_word_at_a_time() {
        let mut clock = Clock::new(AGAINST_DRIFT_S).unwrap();
        clock.tells(7);
        go_off(&clock);
        assert!(!clock.is_due(), "the guest has not answered");
        assert_eq!(clock.answered(6), None, "not ours");
        assert_eq!(clock.answered(7), Some(true), "set again meanwhile");
        clock.tells(8);
        assert_eq!(clock.answered(8), Some(false));
        assert_eq!(clock.answered(8), None, "answered already");
    }

    #[test]
    fn a_slow_guest_is_told_again_but_not_for_ever() {
        let mut clock = Clock::new(AGAINST_DRIFT_S).unwrap();
        let slow = |clock: &mut Clock, number| {
            clock.tells(number);
            clock.told.as_mut().unwrap().at -= PROMPT;
            clock.answered(number)
        };
        assert_eq!(slow(&mut clock, 1), Some(true));
        assert_eq!(slow(&mut clock, 2), Some(true));
        assert_eq!(slow(&mut clock, 3), Some(false));
        go_off(&clock);
        assert!(clock.is_due());
        assert_eq!(slow(&mut clock, 4), Some(true), "from the beginning");
    }
}
