//! Waiting until a file or a directory changes: for those who read what others append to.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// For a time that the kernel has no number for. Whoever waits so long looks and waits again.
const LONG: Timespec = Timespec {
    tv_sec: 1 << 31,
    tv_nsec: 0,
};

/// Why [`Watch::wait`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// Something may have changed.
    Changed,
    /// Another descriptor is readable or closed.
    Other,
    /// The time is over.
    Timeout,
}

/// Tells when something changes. Which it was does not matter: whoever is woken looks at all.
#[derive(Debug)]
pub struct Watch {
    inotify: OwnedFd,
}

impl Watch {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// Failure of inotify, or of `poll`.
    pub fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { inotify })
    }

    /// Watches files that are made in a directory, renamed into it, or written there.
    ///
    /// # Errors
    /// Failure of inotify, or of `poll`.
    pub fn add_dir(&self, dir: &Path) -> io::Result<()> {
        let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        inotify::add_watch(&self.inotify, dir, flags)?;
        Ok(())
    }

    /// Watches an open file: that it grows, is renamed or is removed.
    ///
    /// # Errors
    /// Failure of inotify, or of `poll`.
    pub fn add_file(&self, file: impl AsFd) -> io::Result<()> {
        // By descriptor, because the name may be another file's by now.
        let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
        let flags = WatchFlags::MODIFY | WatchFlags::MOVE_SELF | WatchFlags::ATTRIB;
        inotify::add_watch(&self.inotify, path, flags)?;
        Ok(())
    }

    /// Waits for a change, for one of `others`, or so long.
    ///
    /// # Errors
    /// Failure of inotify, or of `poll`.
    pub fn wait(&self, others: &[BorrowedFd<'_>], limit: Option<Duration>) -> io::Result<Woken> {
        let limit = limit.map(|limit| Timespec::try_from(limit).unwrap_or(LONG));
        let mut fds = vec![PollFd::from_borrowed_fd(
            self.inotify.as_fd(),
            PollFlags::IN,
        )];
        let others = others.iter();
        fds.extend(others.map(|other| PollFd::from_borrowed_fd(*other, PollFlags::IN)));
        let ready = loop {
            match poll(&mut fds, limit.as_ref()) {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        if ready == 0 {
            return Ok(Woken::Timeout);
        }
        if fds.iter().skip(1).any(|fd| !fd.revents().is_empty()) {
            return Ok(Woken::Other);
        }
        let mut buffer = [0u8; 4096];
        while rustix::io::read(&self.inotify, &mut buffer).is_ok_and(|read| read > 0) {}
        Ok(Woken::Changed)
    }
}
