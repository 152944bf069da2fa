//! What the machine remembers of the names of the host's files, which change below it.

use crate::failure::words;
use hullbox_protocol::SHARE_NAMES_HOLD_MS;
use rustix::mount::{MountFlags, mount_remount};
use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};
use std::time::Duration;

/// What was known before a moment, and is not to be believed after it.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    before: Duration,
}

impl Known {
    /// What is known now.
    pub fn now() -> Self {
        Self {
            before: since_boot(clock_gettime(ClockId::Monotonic)),
        }
    }

    /// Has the overlay ask the share again for every name: it would never ask again about one that was
    /// not there.
    ///
    /// Any remount of a filesystem drops what is remembered of its names. That of the overlay leaves
    /// the share's own inodes below it alone, and with them the contents that are in memory.
    pub fn forget_overlay(self) {
        if let Err(errno) = mount_remount("/", MountFlags::NOATIME, c"") {
            eprintln!("hullbox-agent: cannot remount /: {}", words(errno));
        }
    }

    /// Waits until the share itself has to be asked again.
    ///
    /// Names expire by the kernel's ticks, which the coarse clock shows. It is late when ticks are lost,
    /// as under emulation, and so are they. How long they hold is rounded up to ticks, and ends
    /// with the next one.
    pub fn expire(self) {
        let tick = since_boot(clock_getres(ClockId::MonotonicCoarse));
        let due = self.before + Duration::from_millis(SHARE_NAMES_HOLD_MS) + 2 * tick;
        loop {
            let left = due.saturating_sub(since_boot(clock_gettime(ClockId::MonotonicCoarse)));
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left);
        }
    }
}

fn since_boot(time: Timespec) -> Duration {
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_ends_when_ticks_have_passed_the_time_that_names_hold() {
        let known = Known::now();
        known.expire();
        let ticks = since_boot(clock_gettime(ClockId::MonotonicCoarse));
        assert!(ticks > known.before + Duration::from_millis(SHARE_NAMES_HOLD_MS));
        // What was known longer ago has expired, and costs nothing.
        let slept = Known::now();
        known.expire();
        assert!(Known::now().before - slept.before < Duration::from_secs(1));
    }
}
