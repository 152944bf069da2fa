//! From the process: its output under credit.

use crate::pipe;
use hullbox_protocol::INITIAL_CREDIT;
use std::os::fd::{AsFd, OwnedFd};
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
}

impl Default for Source {
    fn default() -> Self {
        Self {
            fd: None,
            credit: INITIAL_CREDIT as usize,
            terminal: false,
            enlarged: false,
            discard: false,
        }
    }
}

impl Source {
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
    pub(super) fn turn_away(&mut self) {
        self.discard = true;
        if !self.terminal {
            self.fd = None;
        }
    }

    /// Whether to read now, if the connection has room.
    pub(super) fn is_watched(&self, room: bool) -> bool {
        self.fd.is_some() && (self.discard || (room && self.credit > 0))
    }
}
