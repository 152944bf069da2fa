//! Where clients connect.

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long nobody is accepted after somebody could not be: mostly for want of descriptors, of which
/// a client that leaves frees some.
const REST: Duration = Duration::from_millis(100);

/// A socket that listens, and that is not polled while this process can accept nobody: it would be
/// ready again and again.
#[derive(Debug)]
pub(super) struct Entrance<'a> {
    socket: BorrowedFd<'a>,
    rests_until: Option<Instant>,
}

impl<'a> Entrance<'a> {
    pub(super) const fn new(socket: BorrowedFd<'a>) -> Self {
        Self {
            socket,
            rests_until: None,
        }
    }

    /// Somebody who has connected, if there is one who can be accepted.
    pub(super) fn accept(&mut self) -> Option<OwnedFd> {
        loop {
            match accept_with(self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(connection) => return Some(connection),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::WOULDBLOCK) => return None,
                Err(_) => {
                    self.rests_until = Instant::now().checked_add(REST);
                    return None;
                }
            }
        }
    }

    /// What it is polled for.
    pub(super) const fn interest(&self) -> PollFlags {
        match self.rests_until {
            None => PollFlags::IN,
            Some(_) => PollFlags::empty(),
        }
    }

    /// When [`Self::wake`] has something to do.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.rests_until
    }

    /// Ends a rest that has lasted long enough.
    pub(super) fn wake(&mut self, now: Instant) {
        self.rests_until = self.rests_until.filter(|until| now < *until);
    }
}

impl AsFd for Entrance<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket
    }
}
