//! Deadlines of flows behind one timerfd, which is armed only while something is due.
//!
//! A flow's deadline moves with nearly every packet. So a flow is queued once; when its entry
//! comes up before its deadline it is queued again. Entries are taken out with their flows:
//! the queue is never longer than there are flows.

use crate::error::NetError;
use crate::token::Token;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Nanoseconds of a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// A flow's deadline, kept in the flow.
#[derive(Debug, Default, Clone, Copy)]
pub struct Deadline {
    at_ns: u64,
    queued_ns: Option<u64>,
}

/// All deadlines.
#[derive(Debug)]
pub struct Timers {
    timer: OwnedFd,
    queue: BTreeSet<(u64, Token)>,
    armed_ns: Option<u64>,
}

/// The monotonic clock, in nanoseconds.
#[must_use]
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * SECOND_NS + now.tv_nsec as u64
}

impl Timers {
    /// Makes the timer.
    ///
    /// # Errors
    /// If the kernel gives none.
    pub fn new() -> Result<Self, NetError> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self {
            timer: timerfd_create(TimerfdClockId::Monotonic, flags)?,
            queue: BTreeSet::new(),
            armed_ns: None,
        })
    }

    /// The timer's descriptor, readable when something is due.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// Sets a deadline.
    pub fn set(&mut self, deadline: &mut Deadline, token: Token, at_ns: u64) {
        deadline.at_ns = at_ns;
        if let Some(queued) = deadline.queued_ns {
            if queued <= at_ns {
                return;
            }
            self.queue.remove(&(queued, token));
        }
        deadline.queued_ns = Some(at_ns);
        self.queue.insert((at_ns, token));
    }

    /// Forgets a deadline, with its flow.
    pub fn forget(&mut self, deadline: Deadline, token: Token) {
        if let Some(queued) = deadline.queued_ns {
            self.queue.remove(&(queued, token));
        }
    }

    /// The next entry that has come up. The caller asks `is_due` with the flow's deadline.
    pub fn pop(&mut self, now_ns: u64) -> Option<Token> {
        let &(at_ns, token) = self.queue.first()?;
        if at_ns > now_ns {
            return None;
        }
        self.queue.pop_first();
        Some(token)
    }

    /// Whether the deadline of an entry that came up is really over; otherwise it is queued again.
    pub fn is_due(&mut self, deadline: &mut Deadline, token: Token, now_ns: u64) -> bool {
        deadline.queued_ns = None;
        if deadline.at_ns <= now_ns {
            return true;
        }
        let at_ns = deadline.at_ns;
        self.set(deadline, token, at_ns);
        false
    }

    /// Arms the timer for the first entry, if it is not armed for that or an earlier time.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn arm(&mut self) -> Result<(), NetError> {
        let Some(&(first, _)) = self.queue.first() else {
            return Ok(());
        };
        if self.armed_ns.is_some_and(|armed| armed <= first) {
            return Ok(());
        }
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let when = Itimerspec {
            it_interval: zero,
            it_value: Timespec {
                tv_sec: (first / SECOND_NS) as i64,
                tv_nsec: (first % SECOND_NS).max(1) as i64,
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &when)?;
        self.armed_ns = Some(first);
        Ok(())
    }

    /// Takes note that the timer fired.
    pub fn fired(&mut self) {
        let mut count = [0; 8];
        // Not readable means that it had not fired; both leave it unarmed or about to fire.
        let _ = rustix::io::read(&self.timer, &mut count);
        self.armed_ns = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Id;
    use crate::token::Kind;

    fn token(index: u32) -> Token {
        Token {
            kind: Kind::Tcp,
            id: Id {
                index,
                generation: 1,
            },
        }
    }

    #[test]
    fn a_deadline_that_moves_away_is_queued_once() {
        let mut timers = Timers::new().unwrap();
        let mut deadline = Deadline::default();
        for at in 100..200 {
            timers.set(&mut deadline, token(1), at);
        }
        assert_eq!(timers.queue.len(), 1);
        assert_eq!(timers.pop(99), None);
        assert_eq!(timers.pop(150), Some(token(1)));
        assert!(!timers.is_due(&mut deadline, token(1), 150));
        assert_eq!(timers.pop(199), Some(token(1)));
        assert!(timers.is_due(&mut deadline, token(1), 199));
        assert!(timers.queue.is_empty());
    }

    #[test]
    fn a_nearer_deadline_takes_the_place_and_a_forgotten_one_leaves_nothing() {
        let mut timers = Timers::new().unwrap();
        let mut deadline = Deadline::default();
        timers.set(&mut deadline, token(1), 100);
        timers.set(&mut deadline, token(1), 50);
        assert_eq!(timers.queue.len(), 1);
        assert_eq!(timers.pop(60), Some(token(1)));
        assert!(timers.is_due(&mut deadline, token(1), 60));
        timers.set(&mut deadline, token(1), 100);
        timers.forget(deadline, token(1));
        assert!(timers.queue.is_empty());
    }
}
