//! A member's link: frames in and out, over a TAP device, a packet socket or a stream.

use crate::config::LinkFd;
use crate::frame::{ETHERNET_BYTES, MAX_FRAME_BYTES, VNET_BYTES};
use rustix::io::{Errno, IoSlice};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The length before each frame of a stream, in bytes.
const LENGTH_BYTES: usize = 4;
/// What is read from a stream at a time, in bytes.
const STREAM_BYTES: usize = 4 * (LENGTH_BYTES + MAX_FRAME_BYTES);

/// What receiving gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A frame of that length is in the buffer.
    Frame(usize),
    /// Nothing more at the moment.
    Empty,
    /// The other end is gone, or does not keep to the format.
    Closed,
}

/// What became of a frame that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Sent {
    /// It is on its way.
    Done,
    /// The link takes none at the moment; the frame was not sent.
    Blocked,
    /// The link lost it: it is down or broken.
    Lost,
}

/// The parts of a stream that were cut by a read or a write.
#[derive(Debug, Default)]
struct StreamState {
    input: Vec<u8>,
    begin: usize,
    end: usize,
    output: Vec<u8>,
}

#[derive(Debug)]
enum Carrier {
    Tap,
    Packets,
    Stream(StreamState),
}

/// A link.
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
    carrier: Carrier,
}

impl Link {
    /// Makes the descriptor non-blocking and takes it over.
    ///
    /// # Errors
    /// If the descriptor is none that can be made so.
    pub fn new(link: LinkFd) -> Result<Self, Errno> {
        let (fd, carrier) = match link {
            LinkFd::Tap(fd) => (fd, Carrier::Tap),
            LinkFd::Packets(fd) => (fd, Carrier::Packets),
            LinkFd::Stream(fd) => (fd, Carrier::Stream(StreamState::default())),
        };
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { fd, carrier })
    }

    /// The descriptor, for epoll.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Receives a frame, virtio-net header included.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Received {
        match &mut self.carrier {
            Carrier::Tap => match rustix::io::read(&self.fd, &mut *buffer) {
                Ok(length) => Received::Frame(length),
                Err(Errno::AGAIN | Errno::INTR) => Received::Empty,
                Err(_) => Received::Closed,
            },
            Carrier::Packets => match rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::TRUNC) {
                Ok((_, 0)) => Received::Closed,
                // A longer one was cut; a length of zero is no frame, and it is dropped as such.
                Ok((_, length)) if length > buffer.len() => Received::Frame(0),
                Ok((_, length)) => Received::Frame(length),
                Err(Errno::AGAIN | Errno::INTR) => Received::Empty,
                Err(_) => Received::Closed,
            },
            Carrier::Stream(state) => state.receive(self.fd.as_fd(), buffer),
        }
    }

    /// Sends a frame, virtio-net header included.
    pub fn send(&mut self, frame: &[u8]) -> Sent {
        let result = match &mut self.carrier {
            Carrier::Tap => rustix::io::write(&self.fd, frame).map(|_| ()),
            Carrier::Packets => {
                rustix::net::send(&self.fd, frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
                    .map(|_| ())
            }
            Carrier::Stream(state) => state.send(self.fd.as_fd(), frame),
        };
        match result {
            Ok(()) => Sent::Done,
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => Sent::Blocked,
            Err(_) => Sent::Lost,
        }
    }

    /// Whether something was read of a stream that no event will tell of.
    #[must_use]
    pub fn has_read_ahead(&self) -> bool {
        matches!(&self.carrier, Carrier::Stream(state) if state.begin < state.end)
    }

    /// Whether part of a frame waits until the link takes more.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        matches!(&self.carrier, Carrier::Stream(state) if !state.output.is_empty())
    }

    /// Writes what a stream could not take before; whether the link takes frames again.
    pub fn flush(&mut self) -> bool {
        match &mut self.carrier {
            Carrier::Stream(state) => state.flush(self.fd.as_fd()).is_ok(),
            _ => true,
        }
    }
}

impl StreamState {
    fn receive(&mut self, fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Received {
        loop {
            match self.next(buffer) {
                Ok(Some(length)) => return Received::Frame(length),
                Ok(None) => {}
                Err(()) => return Received::Closed,
            }
            self.input.resize(STREAM_BYTES, 0);
            self.input.copy_within(self.begin..self.end, 0);
            self.end -= self.begin;
            self.begin = 0;
            let Some(room) = self.input.get_mut(self.end..) else {
                return Received::Closed;
            };
            match rustix::net::recv(fd, room, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Received::Closed,
                Ok((_, length)) => self.end += length,
                Err(Errno::AGAIN | Errno::INTR) => {
                    if self.begin == self.end {
                        // An idle link holds no buffer.
                        self.input = Vec::new();
                    }
                    return Received::Empty;
                }
                Err(_) => return Received::Closed,
            }
        }
    }

    /// Copies the next whole frame out of what was read.
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, ()> {
        let ready = self.input.get(self.begin..self.end).unwrap_or_default();
        let Some((length, rest)) = ready.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if !(VNET_BYTES + ETHERNET_BYTES..=MAX_FRAME_BYTES).contains(&length) {
            return Err(());
        }
        let Some(frame) = rest.get(..length) else {
            return Ok(None);
        };
        buffer.get_mut(..length).ok_or(())?.copy_from_slice(frame);
        self.begin += LENGTH_BYTES + length;
        Ok(Some(length))
    }

    fn flush(&mut self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        while !self.output.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let sent = rustix::net::send(fd, &self.output, flags)?;
            self.output.drain(..sent);
        }
        self.output = Vec::new();
        Ok(())
    }

    fn send(&mut self, fd: BorrowedFd<'_>, frame: &[u8]) -> Result<(), Errno> {
        self.flush(fd)?;
        let length = (frame.len() as u32).to_be_bytes();
        let parts = [IoSlice::new(&length), IoSlice::new(frame)];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let mut none = SendAncillaryBuffer::default();
        let sent = rustix::net::sendmsg(fd, &parts, &mut none, flags)?;
        // The rest of at most one frame is kept: the format cannot be left in the middle.
        self.output.extend(length.iter().chain(frame).skip(sent));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn stream() -> (UnixStream, Link, Vec<u8>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let link = Link::new(LinkFd::Stream(theirs.into())).unwrap();
        (ours, link, vec![0; MAX_FRAME_BYTES])
    }

    #[test]
    fn a_stream_is_cut_into_frames_wherever_it_was_cut_before() {
        let (mut ours, mut link, mut buffer) = stream();
        let mut bytes = Vec::new();
        for length in [26u32, 1500, 60] {
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend((0..length).map(|n| n as u8));
        }
        let mut lengths = Vec::new();
        for byte in bytes {
            ours.write_all(&[byte]).unwrap();
            match link.receive(&mut buffer) {
                Received::Frame(length) => {
                    assert!(
                        buffer[..length]
                            .iter()
                            .enumerate()
                            .all(|(n, &b)| b == n as u8)
                    );
                    lengths.push(length);
                }
                other => assert_eq!(other, Received::Empty),
            }
        }
        assert_eq!(lengths, [26, 1500, 60]);
    }

    #[test]
    fn a_length_out_of_range_closes_the_stream() {
        for length in [0u32, 25, MAX_FRAME_BYTES as u32 + 1, u32::MAX] {
            let (mut ours, mut link, mut buffer) = stream();
            ours.write_all(&length.to_be_bytes()).unwrap();
            assert_eq!(link.receive(&mut buffer), Received::Closed, "{length}");
        }
    }

    #[test]
    fn a_full_stream_blocks_and_loses_no_byte() {
        let (mut ours, mut link, _) = stream();
        let frame: Vec<u8> = (0..60_000u32).map(|n| n as u8).collect();
        let mut count = 0;
        while link.send(&frame) == Sent::Done {
            count += 1;
        }
        assert!(count > 1 && link.is_cut() && !link.flush());
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; count * (frame.len() + 4)];
            ours.read_exact(&mut all).unwrap();
            all.chunks(frame.len() + 4)
                .all(|part| part[4..] == frame[..])
        });
        while !link.flush() {
            let mut fds = [PollFd::from_borrowed_fd(link.fd.as_fd(), PollFlags::OUT)];
            poll(&mut fds, None).unwrap();
        }
        assert!(reader.join().unwrap() && !link.is_cut());
    }
}
