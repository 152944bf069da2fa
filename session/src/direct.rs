//! Streams without frames: bytes that go from a process's pipe to a descriptor of whoever asked for
//! the process, by way of the process's parent alone.
//!
//! ```text
//! process ─ pipe ─► its parent ─ splice(2) ─► pipe or file of the caller
//! ```
//!
//! Behind a vsock there is no pipe to move bytes from: there the monitor writes frames' bytes to the
//! caller's pipe ([`OutputPipe`]), and reads from one, without the caller's process in between.
//!
//! The process never has the caller's descriptor. With it, it could change the flags, owner and mode
//! of the caller's file, read what it was only to write, and put characters into a terminal's input.

use crate::sink::{Sink, Writer};
use hullbox_protocol::{MAX_DATA, Stream, StreamSet};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Descriptors of one process's streams.
const MAX_DESCRIPTORS: usize = 3;

/// Sets of them that may have arrived before their frames are dealt with: a set comes with the first
/// byte of its frame, so that the next can be here when the frame is.
pub(crate) const MAX_SETS: usize = 2;

/// Most that is moved at a time, in bytes: more than a pipe holds.
const MOVE_LEN: usize = 1024 * 1024;

/// The other ends of a process's standard streams; `None` is one that travels as frames.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// Read from.
    pub stdin: Option<OwnedFd>,
    /// Written to.
    pub stdout: Option<OwnedFd>,
    /// Written to.
    pub stderr: Option<OwnedFd>,
}

impl Descriptors {
    /// Copies of those of these descriptors that streams can be joined to: pipes and regular files,
    /// open in the stream's direction. The others are left to frames: a terminal or a socket may
    /// keep a writer waiting, and a file that is appended to takes no pages.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn of(
        stdin: Option<BorrowedFd<'_>>,
        stdout: BorrowedFd<'_>,
        stderr: BorrowedFd<'_>,
    ) -> std::io::Result<Self> {
        let copy = |fd: Option<BorrowedFd<'_>>| fd.map(|fd| fd.try_clone_to_owned()).transpose();
        Ok(Self {
            stdin: copy(stdin.filter(|fd| is_fit(*fd, OFlags::WRONLY)))?,
            stdout: copy(Some(stdout).filter(|fd| is_fit(*fd, OFlags::RDONLY)))?,
            stderr: copy(Some(stderr).filter(|fd| is_fit(*fd, OFlags::RDONLY)))?,
        })
    }

    /// Those that are pipes, opened once more and not blocking: for whoever moves their bytes beside
    /// other work, and for whom flags of a shared descriptor are not to be changed. Not an input that
    /// has a name (mkfifo(3)): opened once more when its writer has gone, it never tells of its end.
    #[must_use]
    pub fn non_blocking(self) -> Self {
        let reopen =
            |fd: Option<OwnedFd>, access| fd.and_then(|fd| reopen_pipe(fd.as_fd(), access));
        Self {
            stdin: reopen(self.stdin.filter(has_no_name), OFlags::RDONLY),
            stdout: reopen(self.stdout, OFlags::WRONLY),
            stderr: reopen(self.stderr, OFlags::WRONLY),
        }
    }

    /// Which there are.
    #[must_use]
    pub fn streams(&self) -> StreamSet {
        let of = |set: StreamSet, (stream, fd): (Stream, &Option<OwnedFd>)| match fd {
            Some(_) => set.with(stream),
            None => set,
        };
        self.all().into_iter().fold(StreamSet::default(), of)
    }

    /// Those that there are, in the order of [`StreamSet::iter`].
    pub fn borrowed(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let all = self.all().into_iter();
        all.filter_map(|(_, fd)| fd.as_ref().map(AsFd::as_fd))
    }

    fn all(&self) -> [(Stream, &Option<OwnedFd>); 3] {
        [
            (Stream::Stdin, &self.stdin),
            (Stream::Stdout, &self.stdout),
            (Stream::Stderr, &self.stderr),
        ]
    }

    /// That of one stream.
    pub fn of_mut(&mut self, stream: Stream) -> &mut Option<OwnedFd> {
        match stream {
            Stream::Stdin => &mut self.stdin,
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// Whether a descriptor is a pipe or a regular file, and not open in the `wrong` direction alone.
fn is_fit(fd: BorrowedFd<'_>, wrong: OFlags) -> bool {
    let kind = rustix::fs::fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
    let flags = rustix::fs::fcntl_getfl(fd);
    let Ok((kind, flags)) = kind.and_then(|kind| Ok((kind, flags?))) else {
        return false;
    };
    matches!(kind, FileType::Fifo | FileType::RegularFile)
        && flags & OFlags::RWMODE != wrong
        && !flags.intersects(OFlags::APPEND | OFlags::PATH)
}

/// Writes bytes, and descriptors along with the first of them; returns how many bytes.
///
/// # Errors
/// sendmsg(2).
pub fn send_with(fd: BorrowedFd<'_>, bytes: &[u8], with: &Descriptors) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = with.borrowed().collect();
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(
        fd,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )
}

/// Descriptors that arrived, a set for each message that had any with it: all of them, or none where
/// they did not fit.
pub type Received = VecDeque<Vec<OwnedFd>>;

/// Reads, and takes the descriptors that came with what was read: at most one set, because the kernel
/// reads no further than that message.
///
/// # Errors
/// recvmsg(2).
pub fn receive_with(
    from: BorrowedFd<'_>,
    room: &mut [u8],
    descriptors: &mut Received,
) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let iov = &mut [IoSliceMut::new(room)];
    let received = recvmsg(from, iov, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut set = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            set.extend(fds);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        // This process may have no more, or they were too many. Which of them are here is not known.
        descriptors.push_back(Vec::new());
    } else if !set.is_empty() {
        descriptors.push_back(set);
    }
    Ok(received.bytes)
}

/// Descriptors of a process's streams were announced and are not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the descriptors of its streams were not received: there may be too many open files")]
pub struct MissingDescriptors;

/// Takes the next set of descriptors, which are to be of these streams; `None` is where none are taken.
///
/// # Errors
/// [`MissingDescriptors`]; of the set none is left then.
pub fn take_descriptors(
    received: Option<&mut Received>,
    streams: StreamSet,
) -> Result<Descriptors, MissingDescriptors> {
    let mut descriptors = Descriptors::default();
    if streams.is_empty() {
        return Ok(descriptors);
    }
    let set = received.and_then(VecDeque::pop_front).unwrap_or_default();
    if set.len() != streams.iter().count() {
        return Err(MissingDescriptors);
    }
    for (stream, fd) in streams.iter().zip(set) {
        *descriptors.of_mut(stream) = Some(fd);
    }
    Ok(descriptors)
}

/// Whether a pipe is one of pipe(2).
fn has_no_name(fd: &OwnedFd) -> bool {
    /// `PIPEFS_MAGIC` of linux/magic.h.
    const PIPEFS: i64 = 0x5049_5045;
    rustix::fs::fstatfs(fd).is_ok_and(|stat| stat.f_type == PIPEFS)
}

fn reopen_pipe(fd: BorrowedFd<'_>, access: OFlags) -> Option<OwnedFd> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(fd).ok()?.st_mode);
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match kind {
        FileType::Fifo => rustix::fs::open(path, flags, Mode::empty()).ok(),
        _ => None,
    }
}

/// A caller's pipe that output is written to without waiting, under credit.
#[derive(Debug)]
pub struct OutputPipe(Sink);

impl OutputPipe {
    /// Takes a pipe of [`Descriptors::non_blocking`].
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        let mut sink = Sink::default();
        sink.open(Some(Writer::NonBlocking(Arc::new(fd))), false);
        Self(sink)
    }

    /// Writes what the pipe takes and keeps the rest. `false` if there was no credit for it.
    #[must_use]
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.0.accept(bytes)
    }

    /// Writes what the pipe takes of the rest.
    pub fn flush(&mut self) {
        self.0.write_queued();
    }

    /// Bytes wait for the pipe.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.0.is_waiting()
    }

    /// Its reader is gone.
    pub fn close(&mut self) {
        self.0.break_off();
    }

    /// Whether its reader was found to be gone; once.
    pub fn take_closed(&mut self) -> bool {
        self.0.take_broken()
    }

    /// Credit for bytes that were written, if it is worth a frame.
    pub fn take_credit(&mut self) -> Option<u32> {
        self.0.take_credit()
    }

    /// The pipe, while it has a reader.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.writer.as_ref().map(AsFd::as_fd)
    }
}

/// What came of moving bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    /// So many bytes.
    Bytes(usize),
    /// There are no more.
    End,
    /// The far end takes none now.
    Full,
    /// The far end's reader is gone.
    Unread,
    /// Another reader was faster, or a signal came.
    Nothing,
    /// They cannot be moved like this.
    Unfit,
}

/// Moves bytes from one descriptor to another, of which one is a pipe, without waiting for a pipe.
fn move_bytes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Moved {
    move_some(from, to, MOVE_LEN)
}

/// The same, of at most `len` bytes.
fn move_some(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> Moved {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    match splice(from, None, to, None, len, flags) {
        Ok(0) => Moved::End,
        Ok(moved) => Moved::Bytes(moved),
        Err(Errno::WOULDBLOCK) => Moved::Full,
        Err(Errno::PIPE) => Moved::Unread,
        Err(Errno::INTR) => Moved::Nothing,
        Err(_) => Moved::Unfit,
    }
}

/// Where an output goes.
#[derive(Debug)]
pub(crate) struct DirectOutput {
    to: OwnedFd,
    /// It took nothing when it was last tried.
    pub(crate) full: bool,
}

impl DirectOutput {
    pub(crate) const fn new(to: OwnedFd) -> Self {
        Self { to, full: false }
    }

    /// Moves what a process wrote.
    pub(crate) fn move_from(&mut self, process: BorrowedFd<'_>) -> Moved {
        let moved = move_bytes(process, self.to.as_fd());
        self.full = moved == Moved::Full;
        moved
    }
}

impl AsFd for DirectOutput {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.to.as_fd()
    }
}

/// Where an input comes from.
#[derive(Debug)]
pub(crate) struct DirectInput {
    from: OwnedFd,
    /// The process's pipe took nothing when it was last tried.
    pub(crate) full: bool,
    way: Way,
}

/// How the bytes of an input get to the process.
#[derive(Debug)]
enum Way {
    /// A pipe's pages move.
    Pages,
    /// A pipe's pages move to a pipe of our own, from which they are read: for a process's end that
    /// takes no pages. The caller's pipe itself is not read. It may block, and others may read it too:
    /// what poll(2) has seen in there can be gone.
    Through {
        /// Read end; it does not block.
        read: OwnedFd,
        /// Write end.
        write: OwnedFd,
    },
    /// A file is read. Its pages stay the host's: they are the very memory that other processes read
    /// the file from.
    Copies,
}

impl Way {
    fn through() -> Option<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        Some(Self::Through { read, write })
    }
}

/// What a descriptor had to give.
#[derive(Debug)]
pub(crate) enum Input {
    /// It went to the process, or did not.
    Moved(Moved),
    /// This is for the process.
    Bytes(Vec<u8>),
}

impl DirectInput {
    pub(crate) fn new(from: OwnedFd) -> Self {
        let stat = rustix::fs::fstat(&from);
        let kind = stat.map(|stat| FileType::from_raw_mode(stat.st_mode));
        Self {
            from,
            full: false,
            way: match kind {
                Ok(FileType::Fifo) => Way::Pages,
                _ => Way::Copies,
            },
        }
    }

    /// Moves what there is to a process's pipe, or gives it.
    pub(crate) fn move_to(&mut self, process: BorrowedFd<'_>) -> Input {
        let from = match &self.way {
            Way::Pages => return Input::Moved(self.move_pages(process)),
            Way::Through { read, write } => {
                match move_some(self.from.as_fd(), write.as_fd(), MAX_DATA) {
                    Moved::Bytes(_) => read,
                    // Ours is empty, so it is the caller's that has nothing.
                    Moved::Full | Moved::Nothing => return Input::Moved(Moved::Nothing),
                    Moved::End | Moved::Unread | Moved::Unfit => return Input::Moved(Moved::End),
                }
            }
            Way::Copies => &self.from,
        };
        let mut bytes = vec![0; MAX_DATA];
        Input::Moved(match rustix::io::read(from, &mut bytes) {
            Ok(read @ 1..) => {
                bytes.truncate(read);
                return Input::Bytes(bytes);
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) => Moved::Nothing,
            // An end, or an input that cannot be read.
            Ok(_) | Err(_) => Moved::End,
        })
    }

    fn move_pages(&mut self, process: BorrowedFd<'_>) -> Moved {
        let moved = move_bytes(self.from.as_fd(), process);
        self.full = moved == Moved::Full;
        if moved == Moved::Unfit {
            let Some(way) = Way::through() else {
                return Moved::End;
            };
            self.way = way;
        }
        moved
    }
}

impl AsFd for DirectInput {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn a_pipe_that_others_read_too_is_never_waited_for() {
        // Blocking, as a shell makes it.
        let (from, feed) = rustix::pipe::pipe().unwrap();
        let other = from.try_clone().unwrap();
        // Something that takes no pages.
        let to = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            let mut input = DirectInput::new(from);
            rustix::io::write(&feed, b"one").unwrap();
            let first = input.move_to(to.as_fd());
            assert!(matches!(first, Input::Moved(Moved::Unfit)), "{first:?}");
            let Input::Bytes(bytes) = input.move_to(to.as_fd()) else {
                panic!("there was something");
            };
            assert_eq!(bytes, b"one");
            // The other reader is faster.
            rustix::io::write(&feed, b"two").unwrap();
            assert_eq!(rustix::io::read(&other, &mut [0; 8]).unwrap(), 3);
            let nothing = input.move_to(to.as_fd());
            assert!(matches!(nothing, Input::Moved(Moved::Nothing)));
            drop(feed);
            let end = input.move_to(to.as_fd());
            assert!(matches!(end, Input::Moved(Moved::End)));
            done.send(()).unwrap();
        });
        is_done.recv_timeout(Duration::from_secs(10)).unwrap();
    }

    #[test]
    fn a_pipe_that_is_full_is_never_waited_for() {
        let (from, feed) = rustix::pipe::pipe().unwrap();
        // Blocking as well: the flag of the move counts.
        let (_process, to) = rustix::pipe::pipe().unwrap();
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            let mut input = DirectInput::new(from);
            let nothing = input.move_to(to.as_fd());
            assert!(matches!(nothing, Input::Moved(Moved::Full)), "{nothing:?}");
            for _ in 0..16 {
                rustix::io::write(&feed, &[7; 4096]).unwrap();
            }
            let moved = input.move_to(to.as_fd());
            assert!(matches!(moved, Input::Moved(Moved::Bytes(65536))));
            rustix::io::write(&feed, b"more").unwrap();
            let full = input.move_to(to.as_fd());
            assert!(matches!(full, Input::Moved(Moved::Full)), "{full:?}");
            done.send(()).unwrap();
        });
        is_done.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}
