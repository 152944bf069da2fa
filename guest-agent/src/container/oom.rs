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
    /// One that is begun later. `None` where there is no kernel log to be had.
    pub(super) fn prepare() -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let log = rustix::fs::open("/dev/kmsg", flags, Mode::empty()).ok()?;
        let mounted = cgroup::mount_proc().is_ok();
        let seen = if mounted {
            cgroup::count("/proc/vmstat", OOM_KILLS)
        } else {
            0
        };
        Some(Self { log, seen })
    }

    /// From now on. `None` where the kernel's log cannot be followed.
    pub(super) fn begin(self) -> Option<Self> {
        rustix::fs::seek(&self.log, SeekFrom::End(0)).ok()?;
        Some(self)
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
