//! Reading files that others append to, as they grow.

use crate::failure::Failure;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Tells when something in a directory changes.
pub(crate) struct Watch {
    inotify: OwnedFd,
}

/// What it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Something may have changed.
    Changed,
    /// The other descriptor is readable or closed.
    Other,
    /// The time is over.
    Timeout,
}

impl Watch {
    pub(crate) fn new(dir: &Path) -> Result<Self, Failure> {
        let failed = |error: rustix::io::Errno| {
            Failure::of(format!("cannot watch {}", dir.display()), &error)
        };
        let inotify =
            inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
        let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        inotify::add_watch(&inotify, dir, flags).map_err(failed)?;
        Ok(Self { inotify })
    }

    /// Waits for a change, for `other`, or so long.
    pub(crate) fn wait(
        &self,
        other: Option<BorrowedFd<'_>>,
        limit: Option<&Timespec>,
    ) -> Result<Woken, Failure> {
        let mut fds = vec![PollFd::from_borrowed_fd(
            self.inotify.as_fd(),
            PollFlags::IN,
        )];
        fds.extend(other.map(|other| PollFd::from_borrowed_fd(other, PollFlags::IN)));
        let ready = loop {
            match poll(&mut fds, limit) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.map_err(|error| Failure::of("cannot wait", &error))?,
            }
        };
        if ready == 0 {
            return Ok(Woken::Timeout);
        }
        if fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
            return Ok(Woken::Other);
        }
        // Which file it was does not matter: all are looked at.
        let mut buffer = [0u8; 4096];
        while rustix::io::read(&self.inotify, &mut buffer).is_ok_and(|read| read > 0) {}
        Ok(Woken::Changed)
    }
}
