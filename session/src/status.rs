//! How a child that has not become its program yet tells its parent what happens.
//!
//! One socket pair per child; the child's end closes itself on `exec`. So the end of the
//! stream without a failure before it means that the program runs (or that the child was
//! killed on the way, which its exit status then tells).

use hullbox_protocol::{Failure, FailureKind};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::Pid;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Longest message, in bytes.
const MAX_MESSAGE: usize = 4096;

/// The first byte of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Tag {
    /// See [`Report::Forked`].
    Forked = 0,
    /// [`Report::Failed`] of [`FailureKind::NotFound`].
    NotFound = 1,
    /// [`Report::Failed`] of [`FailureKind::NotExecutable`].
    NotExecutable = 2,
    /// [`Report::Failed`] of [`FailureKind::Setup`].
    Setup = 3,
    /// See [`Report::Rooted`].
    Rooted = 4,
}

impl Tag {
    const ALL: [Self; 5] = [
        Self::Forked,
        Self::NotFound,
        Self::NotExecutable,
        Self::Setup,
        Self::Rooted,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|tag| *tag as u8 == byte)
    }

    const fn of(kind: FailureKind) -> Self {
        match kind {
            FailureKind::NotFound => Self::NotFound,
            FailureKind::NotExecutable => Self::NotExecutable,
            FailureKind::Setup => Self::Setup,
        }
    }

    /// The kind of a failure. What is not known is one of the setup.
    const fn failure_kind(tag: Option<Self>) -> FailureKind {
        match tag {
            Some(Self::NotFound) => FailureKind::NotFound,
            Some(Self::NotExecutable) => FailureKind::NotExecutable,
            _ => FailureKind::Setup,
        }
    }
}

/// A failure as a message, cut to what is sent at once.
#[must_use]
pub fn encode_failure(failure: &Failure) -> Vec<u8> {
    let mut message = vec![Tag::of(failure.kind) as u8];
    message.extend_from_slice(failure.message.as_bytes());
    message.truncate(MAX_MESSAGE);
    message
}

/// The failure in a message; `None` where that is empty, which is none.
#[must_use]
pub fn decode_failure(message: &[u8]) -> Option<Failure> {
    let (tag, text) = message.split_first()?;
    Some(Failure {
        kind: Tag::failure_kind(Tag::from_byte(*tag)),
        message: String::from_utf8_lossy(text).into_owned(),
    })
}

/// What a child reports.
#[derive(Debug)]
pub enum Report {
    /// Its terminal's master.
    Terminal(OwnedFd),
    /// It was a helper: this one becomes the program.
    Forked(Pid),
    /// Its root was arranged, at this uptime in microseconds.
    Rooted(u64),
    /// It could not become its program, and ends.
    Failed(Failure),
    /// It became its program.
    Running,
}

/// The parent's end.
#[derive(Debug)]
pub struct StatusReader(OwnedFd);

/// The child's end.
#[derive(Debug)]
pub struct StatusWriter(OwnedFd);

/// Makes the two ends.
///
/// # Errors
/// No more descriptors.
pub fn channel() -> Result<(StatusReader, StatusWriter), Errno> {
    let (reader, writer) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    Ok((StatusReader(reader), StatusWriter(writer)))
}

impl From<StatusReader> for OwnedFd {
    fn from(reader: StatusReader) -> Self {
        reader.0
    }
}

impl AsFd for StatusReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for StatusWriter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl StatusReader {
    /// The next report, or `None` if none has come yet.
    #[must_use]
    pub fn next(&self) -> Option<Report> {
        let mut bytes = [0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut ended = false;
        let received = loop {
            let iov = &mut [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.0, iov, &mut control, flags) {
                Err(Errno::INTR) => {}
                // Linux looks at the queue first and at the end afterwards: what was sent between
                // the two, right before the end, is still there.
                Ok(received) if received.bytes == 0 && !ended => ended = true,
                Err(Errno::WOULDBLOCK) => return None,
                // A broken channel is as good as a closed one.
                Err(_) => return Some(Report::Running),
                Ok(received) => break received.bytes,
            }
        };
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        match descriptor {
            Some(master) => Some(Report::Terminal(master)),
            None => decode(bytes.get(..received).unwrap_or_default()),
        }
    }
}

/// A message without a descriptor. `None` is one that means nothing.
fn decode(message: &[u8]) -> Option<Report> {
    let Some((tag, body)) = message.split_first() else {
        return Some(Report::Running);
    };
    match (Tag::from_byte(*tag), body) {
        (Some(Tag::Forked), body) if let Some(pid) = body.first_chunk() => {
            Pid::from_raw(i32::from_ne_bytes(*pid)).map(Report::Forked)
        }
        (Some(Tag::Rooted), uptime) => {
            let uptime_us = uptime.first_chunk().map_or(0, |us| u64::from_ne_bytes(*us));
            Some(Report::Rooted(uptime_us))
        }
        _ => decode_failure(message).map(Report::Failed),
    }
}

impl StatusWriter {
    /// Hands over the terminal's master.
    ///
    /// # Errors
    /// The parent is gone.
    pub fn terminal(&self, master: BorrowedFd<'_>) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [master];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(
            &self.0,
            &[IoSlice::new(b"T")],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }

    /// Says who goes on in this one's place. The one who says it just ends.
    pub fn forked(&self, pid: Pid) {
        let mut message = [Tag::Forked as u8; 5];
        message[1..].copy_from_slice(&pid.as_raw_nonzero().get().to_ne_bytes());
        let _ = rustix::net::send(&self.0, &message, SendFlags::NOSIGNAL);
    }

    /// Says when the root was arranged, in microseconds of uptime.
    pub fn rooted(&self, uptime_us: u64) {
        let mut message = [Tag::Rooted as u8; 9];
        message[1..].copy_from_slice(&uptime_us.to_ne_bytes());
        // Nobody to tell, nothing to tell.
        let _ = rustix::net::send(&self.0, &message, SendFlags::NOSIGNAL);
    }

    /// Says why there will be no program.
    pub fn failed(&self, failure: &Failure) {
        let message = encode_failure(failure);
        // If the parent cannot be told, the exit code still tells it something.
        let _ = rustix::net::send(&self.0, &message, SendFlags::NOSIGNAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_arrive_in_order_and_end_with_the_program() {
        let (reader, writer) = channel().unwrap();
        assert!(reader.next().is_none());
        let (read, _write) = rustix::pipe::pipe().unwrap();
        writer.terminal(read.as_fd()).unwrap();
        writer.rooted(1 << 40);
        writer.failed(&Failure {
            kind: FailureKind::NotFound,
            message: "no".into(),
        });
        drop(writer);
        assert!(matches!(reader.next(), Some(Report::Terminal(_))));
        assert!(matches!(reader.next(), Some(Report::Rooted(us)) if us == 1 << 40));
        let Some(Report::Failed(failure)) = reader.next() else {
            panic!("no failure");
        };
        assert_eq!(failure.exit_code(), 127);
        assert!(matches!(reader.next(), Some(Report::Running)));
    }
}
