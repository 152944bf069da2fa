//! Where a stream's bytes go in the end: a process's input, or the user's output.

use crate::pipe;
use hullbox_protocol::INITIAL_CREDIT;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Credit goes back in portions of this size: rarely enough to be cheap, early
/// enough that a steady sender never runs dry.
const CREDIT_PORTION: u32 = INITIAL_CREDIT / 8;

/// Most that is written to a descriptor that might block: what a pipe that polls as
/// writable takes for certain (`PIPE_BUF`).
const SAFE_LEN: usize = 4096;

/// A descriptor, and how to write to it without ever blocking.
#[derive(Debug, Clone)]
pub(crate) enum Writer {
    /// It is non-blocking and ours alone.
    NonBlocking(Arc<OwnedFd>),
    /// A process's pipe, non-blocking, which may be made larger.
    Pipe(Arc<OwnedFd>),
    /// A socket that others share, whose flags are therefore not ours to change.
    Socket(Arc<OwnedFd>),
    /// Anything else that others share: ask first, then write a little.
    Careful(Arc<OwnedFd>),
    /// A regular file or a device such as /dev/null, which never makes one wait for a reader.
    File(Arc<OwnedFd>),
}

impl Writer {
    /// A way to write to a descriptor that other processes have open too, such as our own
    /// standard output: non-blocking mode belongs to the open file, and setting it would
    /// change theirs as well. A pipe or a terminal can be opened once more instead.
    pub(crate) fn for_shared(fd: BorrowedFd<'_>) -> std::io::Result<Self> {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
        let own = Arc::new(fd.try_clone_to_owned()?);
        Ok(match kind {
            FileType::Socket => Self::Socket(own),
            FileType::Fifo => reopen(fd).map_or(Self::Careful(own), Self::NonBlocking),
            FileType::CharacterDevice if rustix::termios::isatty(fd) => {
                reopen(fd).map_or(Self::Careful(own), Self::NonBlocking)
            }
            _ => Self::File(own),
        })
    }

    fn writev(&self, front: &[u8], back: &[u8]) -> Result<usize, Errno> {
        match self {
            Self::NonBlocking(fd) | Self::Pipe(fd) | Self::File(fd) if back.is_empty() => {
                rustix::io::write(fd, front)
            }
            Self::NonBlocking(fd) | Self::Pipe(fd) | Self::File(fd) => {
                rustix::io::writev(fd, &[IoSlice::new(front), IoSlice::new(back)])
            }
            Self::Socket(fd) => {
                let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
                rustix::net::send(fd, front, flags)
            }
            Self::Careful(fd) => {
                let mut fds = [PollFd::new(fd, PollFlags::OUT)];
                rustix::event::poll(&mut fds, Some(&Timespec::default()))?;
                if fds[0].revents().is_empty() {
                    return Err(Errno::WOULDBLOCK);
                }
                rustix::io::write(fd, &front[..front.len().min(SAFE_LEN)])
            }
        }
    }
}

impl AsFd for Writer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::NonBlocking(fd)
            | Self::Pipe(fd)
            | Self::Socket(fd)
            | Self::Careful(fd)
            | Self::File(fd) => fd.as_fd(),
        }
    }
}

/// Opens once more what a descriptor refers to, non-blocking and for ourselves.
fn reopen(fd: BorrowedFd<'_>) -> Option<Arc<OwnedFd>> {
    use std::os::fd::AsRawFd as _;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    opened.ok().map(Arc::new)
}

/// Bytes on their way out, under credit.
#[derive(Debug)]
pub(crate) struct Sink {
    /// `None` before there is anything to write to, and after that was closed.
    pub(crate) writer: Option<Writer>,
    terminal: bool,
    /// Its pipe was found full, and made larger if that can be.
    enlarged: bool,
    queue: VecDeque<u8>,
    /// Bytes that the peer may still send.
    allowance: u32,
    /// Bytes passed on and not yet credited.
    owed: u32,
    /// The peer sent its last byte.
    ended: bool,
    /// Nobody reads at the far end.
    broken: bool,
    /// The peer was not told of `broken` yet.
    tell_broken: bool,
    /// What broke it, unless that was only a reader who left.
    error: Option<Errno>,
}

impl Default for Sink {
    fn default() -> Self {
        Self {
            writer: None,
            terminal: false,
            enlarged: false,
            queue: VecDeque::new(),
            allowance: INITIAL_CREDIT,
            owed: 0,
            ended: false,
            broken: false,
            tell_broken: false,
            error: None,
        }
    }
}

impl Sink {
    /// Joins the far end; what came before is passed on now.
    pub(crate) fn open(&mut self, writer: Option<Writer>, terminal: bool) {
        self.terminal = terminal;
        match writer {
            Some(writer) => {
                self.writer = Some(writer);
                self.write_queued();
            }
            None => self.break_off(),
        }
    }

    /// Takes bytes from the peer. `false` if it had no credit for them.
    #[must_use]
    pub(crate) fn accept(&mut self, bytes: &[u8]) -> bool {
        let Some(allowance) = u32::try_from(bytes.len())
            .ok()
            .and_then(|len| self.allowance.checked_sub(len))
        else {
            return false;
        };
        self.allowance = allowance;
        self.pass_on(bytes);
        true
    }

    /// Passes bytes on that need no credit: whoever has them waits while [`Self::is_waiting`].
    pub(crate) fn pass_on(&mut self, bytes: &[u8]) {
        if self.broken || self.ended {
            return;
        }
        let mut rest = bytes;
        if self.queue.is_empty() {
            while let Some(writer) = self.writer.as_ref().filter(|_| !rest.is_empty()) {
                match writer.writev(rest, &[]) {
                    Ok(written) => {
                        rest = &rest[written..];
                        self.grant_credit(written);
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::WOULDBLOCK) if self.enlarge() => {}
                    Err(Errno::WOULDBLOCK) => break,
                    Err(errno) => self.fail(errno),
                }
            }
        }
        if !self.broken {
            self.queue.extend(rest);
        }
    }

    /// The peer sent its last byte.
    pub(crate) fn end(&mut self) {
        self.ended = true;
        self.close_if_done();
    }

    /// Writes what the process takes of the queue.
    pub(crate) fn write_queued(&mut self) {
        while let Some(writer) = self.writer.as_ref().filter(|_| !self.queue.is_empty()) {
            let (front, back) = self.queue.as_slices();
            match writer.writev(front, back) {
                Ok(written) => {
                    self.queue.drain(..written);
                    self.grant_credit(written);
                }
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) if self.enlarge() => {}
                Err(Errno::WOULDBLOCK) => return,
                Err(errno) => self.fail(errno),
            }
        }
        self.close_if_done();
    }

    /// The far end is a terminal, whose hang-up its output side notices.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Bytes wait to be written.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether to watch the descriptor at all. A terminal with nothing to write is not: it
    /// would report a hang-up again and again, and its output side reports it anyway.
    pub(crate) fn is_watched(&self) -> bool {
        self.writer.is_some() && (self.is_waiting() || !self.terminal)
    }

    /// Makes room in a process's pipe that is full; once.
    pub(crate) fn enlarge(&mut self) -> bool {
        match &self.writer {
            Some(Writer::Pipe(fd)) if !self.enlarged => {
                self.enlarged = true;
                pipe::enlarge(fd.as_fd())
            }
            _ => false,
        }
    }

    fn fail(&mut self, errno: Errno) {
        if errno != Errno::PIPE {
            self.error = Some(errno);
        }
        self.break_off();
    }

    /// What went wrong other than a reader who left.
    pub(crate) fn take_error(&mut self) -> Option<Errno> {
        self.error.take()
    }

    /// Nobody reads what is written here.
    pub(crate) fn break_off(&mut self) {
        self.writer = None;
        self.queue = VecDeque::new();
        if !self.broken {
            self.broken = true;
            self.tell_broken = !self.ended;
        }
    }

    /// Whether the peer must now be told that nobody reads; once.
    pub(crate) fn take_broken(&mut self) -> bool {
        std::mem::take(&mut self.tell_broken)
    }

    /// Credit to give back now, if it is worth a frame.
    pub(crate) fn take_credit(&mut self) -> Option<u32> {
        if self.owed < CREDIT_PORTION || self.ended || self.broken {
            return None;
        }
        let credit = std::mem::take(&mut self.owed);
        self.allowance += credit;
        Some(credit)
    }

    fn grant_credit(&mut self, written: usize) {
        // What was written came out of the allowance, or needed no credit.
        let most = INITIAL_CREDIT.saturating_sub(self.allowance);
        let owed = self
            .owed
            .saturating_add(u32::try_from(written).unwrap_or(u32::MAX));
        self.owed = owed.min(most);
    }

    fn close_if_done(&mut self) {
        // A terminal has no end of input to pass on: closing the master would hang it up.
        if self.ended && self.queue.is_empty() && !self.terminal {
            self.writer = None;
        }
    }
}
