//! Noticing the out-of-memory killer, whomever it kills.
//!
//! A descendant of the workload that is killed is no child of the agent's, and a guest without a
//! memory limit has no controller that would tell. But the kernel logs each kill, so its log is
//! what wakes the agent, and a counter says whether it was that.

use super::cgroup::{self, OOM_KILLS};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;

/// Records of the kernel's log that are passed over at once.
const MAX_RECORDS: usize = 1024;
/// Longest record, in bytes.
const MAX_RECORD: usize = 8192;

/// See the module.
#[derive(Debug)]
pub(super) struct OomWatch {
    log: OwnedFd,
    /// Kills that are known.
    seen: u64,
}

impl OomWatch {
    /// From now on. `None` where there is no kernel log to be had.
    pub(super) fn begin() -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let log = rustix::fs::open("/dev/kmsg", flags, Mode::empty()).ok()?;
        rustix::fs::seek(&log, SeekFrom::End(0)).ok()?;
        // In a guest /proc is not mounted yet, and nothing was killed.
        let seen = cgroup::count("/proc/vmstat", OOM_KILLS);
        Some(Self { log, seen })
    }

    /// Readable when the kernel has logged something.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.log.as_fd()
    }

    /// Whether something was killed since the last call.
    pub(super) fn take(&mut self) -> bool {
        if cgroup::mount_proc().is_err() {
            return false;
        }
        let kills = cgroup::count("/proc/vmstat", OOM_KILLS);
        let more = kills > self.seen;
        self.seen = kills;
        more
    }

    /// Passes over what the kernel has logged; whether that was anything.
    pub(super) fn skip_records(&self) -> bool {
        let mut record = [0; MAX_RECORD];
        for read in 0..MAX_RECORDS {
            match rustix::io::read(&self.log, &mut record) {
                // Some were overwritten before they were read.
                Ok(1..) | Err(Errno::PIPE | Errno::INTR) => {}
                Ok(0) | Err(_) => return read > 0,
            }
        }
        true
    }
}
