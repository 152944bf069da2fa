//! A writable disk whose file system has given up.
//!
//! Where the host has no room for the journal, ext4 aborts it: nothing that is dirty can be written any
//! more. But the kernel (6.1) goes on taking writes to files that are open, makes writers wait until
//! fewer pages are dirty (`balance_dirty_pages`), and they wait for ever. So the agent shuts the file
//! system down, after which every access to it is an error at once, and lifts the limit that writers
//! wait for.

use super::{cgroup, sysfs};
use crate::sys;
use rustix::fs::OFlags;
use rustix::io::{Errno, pread};
use std::fs::write;
use std::os::fd::{BorrowedFd, OwnedFd};

/// How many errors ext4 has noticed (Documentation/ABI/testing/sysfs-fs-ext4).
const ERRORS: &str = "fs/ext4/vdb/errors_count";

/// What is known of the file system's errors.
#[derive(Debug, Default)]
pub(super) struct Errors {
    counter: Option<OwnedFd>,
    known: u64,
    failed: bool,
}

impl Errors {
    /// Shuts the file system down if its journal was aborted since the last call. Whether it was.
    ///
    /// # Errors
    /// It was, and writers may wait for ever.
    pub(super) fn end_failed(&mut self, root: BorrowedFd<'_>) -> Result<bool, Errno> {
        if self.failed || !self.has_more()? || !is_aborted(root) {
            return Ok(false);
        }
        self.failed = true;
        sys::shut_down_ext4(root)?;
        cgroup::mount_proc()?;
        // What is dirty stays so, and all that may be dirtied is more than that.
        write("/proc/sys/vm/dirty_ratio", "100")
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        Ok(true)
    }

    fn has_more(&mut self) -> Result<bool, Errno> {
        if self.counter.is_none() {
            self.counter = Some(sysfs::open(ERRORS, OFlags::RDONLY)?);
        }
        let Some(counter) = &self.counter else {
            return Ok(false);
        };
        let mut text = [0; 32];
        let length = pread(counter, &mut text, 0)?;
        let count = std::str::from_utf8(&text[..length]).ok();
        let count = count.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Ok(count > std::mem::replace(&mut self.known, count))
    }
}

/// Whether the journal takes no changes any more. To remove an attribute that is not there takes a
/// transaction, and changes nothing.
fn is_aborted(root: BorrowedFd<'_>) -> bool {
    let removed = rustix::fs::fremovexattr(root, c"trusted.hullbox.none");
    matches!(removed, Err(Errno::ROFS | Errno::IO))
}
