//! Noticing the out-of-memory killer in the container's cgroup, whomever it kills.

use super::cgroup::Cgroup;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct OomWatch {
    /// Tells of changes of `memory.events`.
    changes: Option<OwnedFd>,
    /// Where cgroup v1 has the controller: counts what it notifies.
    notified: Option<OwnedFd>,
    /// Kills that are known.
    seen: u64,
}

impl OomWatch {
    /// Watches the group as it is now; what can not be watched shows at the end.
    pub(super) fn watch(&mut self, group: &Cgroup) {
        if self.changes.is_none() {
            self.changes = watch_events(group);
        }
        if self.notified.is_none() {
            let counter = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok();
            self.notified = counter.filter(|counter| group.notify_oom(counter.as_fd()));
        }
    }

    /// Readable when it may have been at work.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let both = [&self.changes, &self.notified];
        both.into_iter().flatten().map(AsFd::as_fd)
    }

    /// Whether something was killed since the last call.
    pub(super) fn take(&mut self, group: &Cgroup) -> bool {
        let mut buffer = [0u8; 4096];
        if let Some(changes) = &self.changes {
            while rustix::io::read(changes, &mut buffer).is_ok_and(|read| read > 0) {}
        }
        // This one is told before the kill is counted.
        let notified = self
            .notified
            .as_ref()
            .is_some_and(|counter| rustix::io::read(counter, &mut buffer).is_ok());
        let kills = group.oom_kills();
        let more = kills > self.seen || notified;
        self.seen = kills;
        more
    }
}

fn watch_events(group: &Cgroup) -> Option<OwnedFd> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
    // By descriptor, because the hierarchy need not be mounted.
    let path = format!("/proc/self/fd/{}/memory.events", group.fd().as_raw_fd());
    inotify::add_watch(&inotify, path, WatchFlags::MODIFY).ok()?;
    Some(inotify)
}
