//! From the process: its output under credit.

use crate::direct::{DirectOutput, Moved};
use crate::pipe;
use hullbox_protocol::INITIAL_CREDIT;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// From the process: its standard output or error.
#[derive(Debug)]
pub(super) struct Source {
    /// `None` before the process is there and after its output ended.
    pub(super) fd: Option<Arc<OwnedFd>>,
    /// Bytes that we may still send.
    credit: usize,
    terminal: bool,
    /// Its pipe was found full, and made larger if that can be.
    enlarged: bool,
    /// Nobody wants them: read and forget, so that a terminal's process can go on.
    discard: bool,
    /// Where they go, if not into frames.
    direct: Option<DirectOutput>,
}

impl Default for Source {
    fn default() -> Self {
        Self {
            fd: None,
            credit: INITIAL_CREDIT as usize,
            terminal: false,
            enlarged: false,
            discard: false,
            direct: None,
        }
    }
}

impl Source {
    /// Sends what comes from now on to a descriptor, or into frames again.
    pub(super) fn direct(&mut self, to: Option<OwnedFd>) {
        self.direct = to.map(DirectOutput::new);
    }

    /// Ends it, whatever the process still says.
    pub(super) fn close(&mut self) {
        self.fd = None;
        self.direct = None;
    }

    /// Moves what the process wrote to where it goes without frames. `None`: it goes into frames.
    pub(super) fn move_direct(&mut self) -> Option<Moved> {
        let (Some(fd), Some(direct)) = (&self.fd, &mut self.direct) else {
            return None;
        };
        let moved = direct.move_from(fd.as_fd());
        match moved {
            Moved::Bytes(bytes) => self.enlarge_if_full(bytes),
            // Who asked for the process finds out with the frames what is wrong with it.
            Moved::Unfit => self.direct = None,
            Moved::Unread => self.stop_reading(),
            Moved::End => self.close(),
            Moved::Full | Moved::Nothing => {}
        }
        Some(moved)
    }

    /// The descriptor that has to take something before more can be moved.
    pub(super) fn awaited(&self) -> Option<BorrowedFd<'_>> {
        let full = self.direct.as_ref().filter(|direct| direct.full);
        full.map(AsFd::as_fd)
    }

    /// What was waited for has come.
    pub(super) fn try_again(&mut self) {
        if let Some(direct) = &mut self.direct {
            direct.full = false;
        }
    }

    pub(super) fn open(&mut self, fd: Option<Arc<OwnedFd>>, terminal: bool) {
        self.terminal = terminal;
        // The peer may have turned its back before the process was there.
        self.fd = fd.filter(|_| terminal || !self.discard);
    }

    pub(super) fn add_credit(&mut self, bytes: u32) {
        self.credit = self.credit.saturating_add(bytes as usize);
    }

    /// Bytes were read, and sent.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_sub(bytes);
        self.enlarge_if_full(bytes);
    }

    /// A pipe that gave so much was full, or nearly.
    fn enlarge_if_full(&mut self, bytes: usize) {
        if bytes >= pipe::DEFAULT_LEN
            && !self.terminal
            && !self.enlarged
            && let Some(fd) = &self.fd
        {
            self.enlarged = true;
            let _ = pipe::enlarge(fd.as_fd());
        }
    }

    pub(super) fn credit(&self) -> usize {
        self.credit
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    pub(super) fn discards(&self) -> bool {
        self.discard
    }

    /// Nobody reads this stream any more. A process that writes to a pipe learns it as
    /// `EPIPE`; a terminal is read on, because closing it would hang up the whole session.
    pub(super) fn stop_reading(&mut self) {
        self.discard = true;
        self.direct = None;
        if !self.terminal {
            self.fd = None;
        }
    }

    /// Whether to read now, if the connection has room.
    pub(super) fn is_watched(&self, room: bool) -> bool {
        let may_read = match &self.direct {
            Some(direct) => !direct.full,
            None => self.discard || (room && self.credit > 0),
        };
        self.fd.is_some() && may_read
    }
}
