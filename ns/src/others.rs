//! The processes beside the workload: programs that joined it, and builtins.

use super::cgroup::Cgroup;
use crate::sys;
use hullbox_protocol::ExitStatus;
use hullbox_session::children::{Children, Ended, Reach, Spawned};
use hullbox_session::connection::ConnectionError;
use hullbox_session::server::{Drain, Pump};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};
use std::time::Duration;

/// How long descendants may hold a process's output open after its end.
const GRACE: Duration = Duration::from_secs(2);
const SIGKILL: u32 = 9;

/// See the module.
#[derive(Debug)]
pub(super) struct Others {
    children: Children,
    /// Those that are to be reaped, and how their end shows.
    watched: Vec<(Pid, OwnedFd)>,
    /// Sessions that ended, and whose end has not reached the peer.
    open: Vec<u32>,
}

impl Others {
    pub(super) fn new() -> Self {
        Self {
            children: Children::new(send),
            watched: Vec::new(),
            open: Vec::new(),
        }
    }

    /// Takes in a process that was just forked.
    pub(super) fn add(
        &mut self,
        pump: &mut Pump,
        session: u32,
        spawned: Spawned,
    ) -> Result<(), ConnectionError> {
        self.children.add(pump, session, spawned)?;
        self.watch_new();
        Ok(())
    }

    /// Descriptors that tell when to [`Self::attend`].
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let reports = self.children.descriptors();
        reports
            .chain(self.watched.iter().map(|(_, fd)| fd.as_fd()))
            .collect()
    }

    /// Passes on what they report, and their ends.
    pub(super) fn attend(
        &mut self,
        pump: &mut Pump,
        cgroup: &Cgroup,
    ) -> Result<(), ConnectionError> {
        self.children.take_reports(pump)?;
        self.children.deliver_pending(Reach::Process);
        self.watch_new();
        let mut left = Vec::new();
        for (pid, fd) in std::mem::take(&mut self.watched) {
            match waitpid(Some(pid), WaitOptions::NOHANG) {
                Ok(Some((_, status))) => {
                    if let Some(ended) = self.children.reaped(pump, pid, status)? {
                        self.open.push(ended.session);
                        finish(pump, ended, cgroup);
                    }
                }
                // Nothing to be waited for is nothing to be watched.
                Err(_) => {}
                Ok(None) => left.push((pid, fd)),
            }
        }
        left.append(&mut self.watched);
        self.watched = left;
        // The end of a helper may have said who goes on.
        self.watch_new();
        Ok(())
    }

    fn watch_new(&mut self) {
        for pid in self.children.pids() {
            if !self.watched.iter().any(|(watched, _)| *watched == pid)
                && let Ok(fd) = pidfd_open(pid, PidfdFlags::empty())
            {
                self.watched.push((pid, fd));
            }
        }
    }

    pub(super) fn signal(&mut self, session: u32, number: u32) {
        self.children.signal(session, number, Reach::Process);
    }

    /// The container ends: so do they.
    pub(super) fn kill(&mut self) {
        self.children.signal_all(SIGKILL, Reach::Process);
    }

    /// The peer has heard of a session's end.
    pub(super) fn forget(&mut self, session: u32) {
        self.open.retain(|&open| open != session);
    }

    /// Whether all have ended and the peer knows.
    pub(super) fn are_over(&self) -> bool {
        self.children.is_empty() && self.open.is_empty()
    }
}

fn finish(pump: &mut Pump, ended: Ended, cgroup: &Cgroup) {
    let mut status = ended.status;
    if let ExitStatus::Signal { signal: 9, oom } = &mut status {
        *oom = cgroup.had_oom_kill();
    }
    pump.finish(ended.session, status, Drain::Grace(GRACE));
}

/// A process that is not reaped keeps its id, so this reaches the right one or none.
fn send(pid: Pid, number: u32, _: Reach) {
    if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
        let _ = sys::send_signal(process.as_fd(), number);
    }
}
