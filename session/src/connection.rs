//! A non-blocking connection that speaks frames.

mod outbox;

use crate::direct::{
    Descriptors, MAX_SETS, MissingDescriptors, Received, receive_with, take_descriptors,
};
use hullbox_protocol::{
    DecodeError, Decoder, Frame, HEADER_LEN, Incoming, MAX_DATA, Sender, Stream, StreamSet,
    data_header,
};
pub(crate) use outbox::Outbox;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg, sockopt};
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes asked of the connection in one read: two whole `Data` frames.
const READ_LEN: usize = 2 * (MAX_DATA + HEADER_LEN);

/// No more data is read from a process while this many bytes wait for the peer.
const HIGH_WATER: usize = 2 * MAX_DATA;

/// Nothing more is read from a peer that leaves this many bytes unread. Only one
/// that floods us with requests gets here: data alone stops at [`HIGH_WATER`].
const FLOODED: usize = 16 * 1024 * 1024;

/// From this many bytes on, sending them from where they lie is cheaper than copying them to where
/// they wait for others.
const LARGE: usize = 16 * 1024;

/// What the kernel may keep for the peer: room for frames, so that neither side waits for the other
/// at each.
const SEND_BUFFER: usize = 4 * MAX_DATA;

/// Why a connection came to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The peer's bytes are not frames.
    #[error("the peer does not speak the protocol")]
    Decode(#[source] DecodeError),
    /// One of our own frames is too large to be sent.
    #[error("a frame cannot be sent")]
    Encode(#[source] DecodeError),
    /// The peer sent what it had no credit for, or what this side never takes.
    #[error("the peer broke the protocol: {0}")]
    Violation(&'static str),
    /// Reading or writing failed.
    #[error("the connection failed")]
    Io(#[source] std::io::Error),
}

impl From<DecodeError> for ConnectionError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::WrongSide(_) => Self::Violation("a frame of the other direction"),
            error => Self::Decode(error),
        }
    }
}

impl From<Errno> for ConnectionError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl ConnectionError {
    /// Whether it only says that the peer is gone, in the words of a peer that left bytes unread.
    #[must_use]
    pub fn is_disconnect(&self) -> bool {
        use std::io::ErrorKind as Kind;
        matches!(
            self,
            Self::Io(error) if matches!(
                error.kind(),
                Kind::BrokenPipe | Kind::ConnectionReset | Kind::NotConnected
            )
        )
    }
}

/// A connection's file descriptor with what waits in either direction.
///
/// Nothing here blocks: [`Self::flush`] writes what the socket takes,
/// [`Self::fill`] reads what is there. The owner polls.
#[derive(Debug)]
pub struct Connection {
    fd: OwnedFd,
    outbox: Outbox,
    decoder: Decoder,
    /// Descriptors that arrived, until their frame is dealt with; `None` where none are taken.
    descriptors: Option<Received>,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Connection {
    /// Takes over a connected stream socket and makes it non-blocking.
    ///
    /// # Errors
    /// [`ConnectionError::Io`] if the descriptor is not fit for that.
    pub fn new(fd: OwnedFd) -> Result<Self, ConnectionError> {
        Self::to(fd, Sender::Any)
    }

    /// The same, with this sender at its other end.
    ///
    /// # Errors
    /// [`ConnectionError::Io`] if the descriptor is not fit for that.
    pub fn to(fd: OwnedFd, sender: Sender) -> Result<Self, ConnectionError> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        // As much as the system gives; whatever that is, it works.
        let _ = sockopt::set_socket_send_buffer_size(&fd, SEND_BUFFER);
        Ok(Self {
            fd,
            outbox: Outbox::default(),
            decoder: Decoder::of(sender),
            descriptors: None,
        })
    }

    /// Takes descriptors that come with frames from now on. The kernel closes what comes otherwise.
    pub fn accept_descriptors(&mut self) {
        let _ = self.descriptors.get_or_insert_default();
    }

    /// What came with a [`Frame::Descriptors`] of these streams.
    ///
    /// # Errors
    /// [`MissingDescriptors`], which is nothing against the connection.
    pub fn take_descriptors(
        &mut self,
        streams: StreamSet,
    ) -> Result<Descriptors, MissingDescriptors> {
        take_descriptors(self.descriptors.as_mut(), streams)
    }

    /// Queues a [`Frame::Descriptors`] together with what it announces.
    ///
    /// # Errors
    /// See [`Self::send`].
    pub fn send_descriptors(
        &mut self,
        session: u32,
        descriptors: Descriptors,
    ) -> Result<(), ConnectionError> {
        let streams = descriptors.streams();
        if streams.is_empty() {
            return Ok(());
        }
        self.outbox.attach(descriptors);
        self.send(&Frame::Descriptors { session, streams })
    }

    /// Queues a frame.
    ///
    /// # Errors
    /// [`ConnectionError::Encode`] if it is over its limits.
    pub fn send(&mut self, frame: &Frame) -> Result<(), ConnectionError> {
        self.outbox.push(frame).map_err(ConnectionError::Encode)
    }

    /// Queues a `Data` frame of bytes that lie elsewhere. Many of them, if nothing waits before them,
    /// are sent from where they lie as far as the socket takes them.
    ///
    /// # Errors
    /// [`ConnectionError::Encode`] over [`MAX_DATA`] bytes.
    pub fn send_data(
        &mut self,
        session: u32,
        stream: Stream,
        bytes: &[u8],
    ) -> Result<(), ConnectionError> {
        let header = data_header(session, stream, bytes.len()).map_err(ConnectionError::Encode)?;
        let mut sent = 0;
        if bytes.len() >= LARGE {
            if (1..LARGE).contains(&self.pending()) {
                // That it is broken is found out when it is flushed.
                let _ = self.flush();
            }
            if self.pending() == 0 {
                sent = self.send_now(&header, bytes);
            }
        }
        self.outbox.append(header.get(sent..).unwrap_or_default());
        let body = sent.saturating_sub(HEADER_LEN);
        self.outbox.append(bytes.get(body..).unwrap_or_default());
        Ok(())
    }

    /// Sends what the socket takes, perhaps nothing.
    fn send_now(&self, header: &[u8], bytes: &[u8]) -> usize {
        let pieces = [IoSlice::new(header), IoSlice::new(bytes)];
        let mut nothing = SendAncillaryBuffer::default();
        sendmsg(&self.fd, &pieces, &mut nothing, SendFlags::NOSIGNAL).unwrap_or(0)
    }

    /// Reads up to `limit` bytes from `source` straight into a queued `Data` frame.
    /// Returns how many; 0 is the source's end, and queues nothing.
    ///
    /// # Errors
    /// The source's error, `WOULDBLOCK` among them; nothing is queued then.
    pub fn send_from(
        &mut self,
        source: BorrowedFd<'_>,
        session: u32,
        stream: Stream,
        limit: usize,
    ) -> Result<usize, Errno> {
        self.outbox.read_from(source, session, stream, limit)
    }

    /// Bytes queued and not yet written.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.outbox.pending()
    }

    /// Whether the peer keeps up, so that more data may be queued.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.pending() < HIGH_WATER
    }

    /// Whether to read at all: not from a peer that sends and never reads.
    #[must_use]
    pub fn may_fill(&self) -> bool {
        self.pending() < FLOODED
    }

    /// Writes what the socket takes; [`Self::pending`] tells what is left.
    ///
    /// # Errors
    /// [`ConnectionError::Io`] when the connection is broken.
    pub fn flush(&mut self) -> Result<(), ConnectionError> {
        self.outbox.flush(self.fd.as_fd())
    }

    /// As [`Self::flush`], after asking the kernel to take all of it: what it has taken the peer reads
    /// when it will, whatever becomes of this process. Root is given that; others get what there is.
    ///
    /// # Errors
    /// [`ConnectionError::Io`] when the connection is broken.
    pub fn flush_with_room(&mut self) -> Result<(), ConnectionError> {
        self.flush()?;
        if self.pending() > 0 {
            // Before it is sent it is cut into pieces, which take room of their own.
            let room = self.pending().saturating_mul(2) + SEND_BUFFER;
            let _ = sockopt::set_socket_send_buffer_size_force(&self.fd, room);
            self.flush()?;
        }
        Ok(())
    }

    /// Reads once what has arrived. `Ok(false)` is the end of the stream.
    ///
    /// # Errors
    /// [`ConnectionError::Io`] when the connection is broken,
    /// [`ConnectionError::Violation`] when it ended inside a frame.
    pub fn fill(&mut self) -> Result<bool, ConnectionError> {
        // To the end of a frame that has begun, and the header of the next.
        let len = match self.decoder.lacking() {
            Some(lacking) if lacking >= LARGE => READ_LEN.min(lacking + HEADER_LEN),
            _ => READ_LEN,
        };
        let room = self.decoder.room(len);
        let read = loop {
            let read = match &mut self.descriptors {
                None => rustix::io::read(&self.fd, &mut *room),
                Some(descriptors) => receive_with(self.fd.as_fd(), room, descriptors),
            };
            match read {
                Err(Errno::INTR) => {}
                result => break result,
            }
        };
        if self.descriptors.as_ref().map_or(0, Received::len) > MAX_SETS {
            return Err(ConnectionError::Violation("descriptors of no stream"));
        }
        self.decoder.arrived(read.unwrap_or(0));
        match read {
            Ok(0) if self.decoder.is_mid_frame() => {
                Err(ConnectionError::Violation("it ended inside a frame"))
            }
            Ok(0) => Ok(false),
            Ok(_) | Err(Errno::WOULDBLOCK) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The next whole frame of what was read, or `None` until [`Self::fill`] reads more.
    ///
    /// # Errors
    /// [`ConnectionError::Decode`]; the connection is of no use afterwards.
    pub fn next_incoming(&mut self) -> Result<Option<Incoming<'_>>, ConnectionError> {
        Ok(self.decoder.next_incoming()?)
    }

    /// As [`Self::next_incoming`], together with a way to queue answers, and with what came beside
    /// frames, while the frame is still borrowed.
    pub(crate) fn split(&mut self) -> (&mut Decoder, &mut Outbox, Option<&mut Received>) {
        (
            &mut self.decoder,
            &mut self.outbox,
            self.descriptors.as_mut(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hullbox_protocol::encode_into;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    fn pair() -> (Connection, UnixStream) {
        let (a, b) = UnixStream::pair().unwrap();
        (Connection::new(a.into()).unwrap(), b)
    }

    #[test]
    fn frames_cross_with_a_peer_that_dribbles() {
        let (mut connection, mut peer) = pair();
        let mut wire = Vec::new();
        let frame = Frame::Log("x".repeat(5000));
        encode_into(&frame, &mut wire).unwrap();
        for byte in wire {
            assert_eq!(connection.next_incoming().unwrap(), None);
            peer.write_all(&[byte]).unwrap();
            assert!(connection.fill().unwrap());
        }
        assert_eq!(
            connection.next_incoming().unwrap(),
            Some(Incoming::Frame(frame))
        );
        drop(peer);
        assert!(!connection.fill().unwrap());
    }

    #[test]
    fn an_end_inside_a_frame_is_not_a_clean_one() {
        let (mut connection, mut peer) = pair();
        peer.write_all(&[1, 0, 0, 0, 6, 0]).unwrap();
        assert!(connection.fill().unwrap());
        drop(peer);
        assert!(matches!(
            connection.fill(),
            Err(ConnectionError::Violation(_))
        ));
    }

    #[test]
    fn a_peer_that_does_not_read_leaves_bytes_pending_in_order() {
        let (mut connection, mut peer) = pair();
        let mut expected = Vec::new();
        for i in 0..100u32 {
            let bytes = vec![u8::try_from(i).unwrap(); 40_000];
            connection.send_data(i, Stream::Stdout, &bytes).unwrap();
            expected.extend_from_slice(&data_header(i, Stream::Stdout, 40_000).unwrap());
            expected.extend_from_slice(&bytes);
        }
        let mut seen = Vec::new();
        peer.set_nonblocking(true).unwrap();
        while connection.pending() > 0 {
            connection.flush().unwrap();
            let mut chunk = vec![0; 30_000];
            if let Ok(n) = peer.read(&mut chunk) {
                seen.extend_from_slice(&chunk[..n]);
            }
        }
        peer.read_to_end(&mut seen).unwrap_err();
        assert!(seen == expected);
    }

    #[test]
    fn what_is_left_of_an_end_waits_in_the_kernel_for_root() {
        let (mut connection, mut peer) = pair();
        let bytes = vec![7; MAX_DATA];
        for _ in 0..32 {
            connection.send_data(0, Stream::Stdout, &bytes).unwrap();
        }
        connection.flush_with_room().unwrap();
        if !rustix::process::geteuid().is_root() {
            return;
        }
        assert_eq!(connection.pending(), 0);
        drop(connection);
        let mut seen = Vec::new();
        peer.read_to_end(&mut seen).unwrap();
        assert_eq!(seen.len(), 32 * (HEADER_LEN + MAX_DATA));
    }

    #[test]
    fn writing_to_a_peer_that_left_is_an_error_not_a_signal() {
        let (mut connection, peer) = pair();
        drop(peer);
        connection.send(&Frame::Shutdown).unwrap();
        assert!(connection.flush().is_err());
    }

    #[test]
    fn descriptors_come_with_their_frames_among_others() {
        let (a, b) = UnixStream::pair().unwrap();
        let mut from = Connection::new(a.into()).unwrap();
        let mut to = Connection::new(b.into()).unwrap();
        to.accept_descriptors();
        let mut kept = Vec::new();
        for session in 0..5 {
            let (read, write) = rustix::pipe::pipe().unwrap();
            let bytes = vec![1; 1000];
            from.send_data(session, Stream::Stdin, &bytes).unwrap();
            let descriptors = Descriptors {
                stderr: Some(write),
                ..Descriptors::default()
            };
            from.send_descriptors(session, descriptors).unwrap();
            kept.push(read);
        }
        from.send(&Frame::Shutdown).unwrap();
        from.flush().unwrap();
        let mut seen = Vec::new();
        while seen.len() < 5 {
            assert!(to.fill().unwrap());
            while let Some(incoming) = to.next_incoming().unwrap() {
                if let Incoming::Frame(Frame::Descriptors { session, streams }) = incoming {
                    seen.push((session, to.take_descriptors(streams).unwrap()));
                }
            }
        }
        for ((session, descriptors), read) in seen.into_iter().zip(kept) {
            rustix::io::write(descriptors.stderr.unwrap(), &[session as u8]).unwrap();
            let mut byte = [0; 2];
            assert_eq!(rustix::io::read(&read, &mut byte).unwrap(), 1);
            assert_eq!(u32::from(byte[0]), session);
        }
    }

    /// A pipe's end for each of these streams, and the other ends.
    fn pipes(count: usize) -> (Descriptors, Vec<OwnedFd>) {
        let (reads, writes): (Vec<_>, Vec<_>) =
            (0..count).map(|_| rustix::pipe::pipe().unwrap()).unzip();
        let mut descriptors = Descriptors::default();
        let streams = [Stream::Stdin, Stream::Stdout, Stream::Stderr];
        for (stream, write) in streams.into_iter().zip(writes) {
            *descriptors.of_mut(stream) = Some(write);
        }
        (descriptors, reads)
    }

    #[test]
    fn the_next_descriptors_may_be_here_when_the_frame_before_is_whole() {
        let (a, b) = UnixStream::pair().unwrap();
        let mut to = Connection::new(b.into()).unwrap();
        to.accept_descriptors();
        let mut wires = Vec::new();
        let mut kept = Vec::new();
        for session in 0..2 {
            let (descriptors, reads) = pipes(3);
            kept.push(reads);
            let streams = descriptors.streams();
            let mut wire = Vec::new();
            encode_into(&Frame::Descriptors { session, streams }, &mut wire).unwrap();
            wires.push((wire, descriptors));
        }
        let [(first, one), (second, two)] = &wires[..] else {
            panic!("two");
        };
        crate::direct::send_with(a.as_fd(), &first[..5], one).unwrap();
        assert!(to.fill().unwrap());
        assert_eq!(to.next_incoming().unwrap(), None);
        (&a).write_all(&first[5..]).unwrap();
        crate::direct::send_with(a.as_fd(), second, two).unwrap();
        for wanted in 0..2 {
            let frame = loop {
                if let Some(Incoming::Frame(frame)) = to.next_incoming().unwrap() {
                    break frame;
                }
                assert!(to.fill().unwrap());
            };
            let Frame::Descriptors { session, streams } = frame else {
                panic!("{frame:?}");
            };
            assert_eq!(session, wanted);
            assert_eq!(to.take_descriptors(streams).unwrap().streams(), streams);
        }
    }

    #[test]
    fn a_set_that_does_not_fit_takes_nothing_of_the_next() {
        let (a, b) = UnixStream::pair().unwrap();
        let mut from = Connection::new(a.into()).unwrap();
        let mut to = Connection::new(b.into()).unwrap();
        to.accept_descriptors();
        let mut kept = Vec::new();
        for session in 0..2 {
            let (descriptors, reads) = pipes(2);
            kept.push(reads);
            from.send_descriptors(session, descriptors).unwrap();
            from.flush().unwrap();
        }
        let three = pipes(3).0.streams();
        assert!(to.fill().unwrap());
        assert!(to.fill().unwrap());
        assert_eq!(to.take_descriptors(three).unwrap_err(), MissingDescriptors);
        let (read, mut byte) = (kept.pop().unwrap(), [0; 2]);
        let two = pipes(2).0.streams();
        let next = to.take_descriptors(two).unwrap();
        rustix::io::write(next.stdin.unwrap(), b"x").unwrap();
        assert_eq!(rustix::io::read(&read[0], &mut byte).unwrap(), 1);
        assert_eq!(to.take_descriptors(two).unwrap_err(), MissingDescriptors);
    }

    #[test]
    fn of_descriptors_that_were_cut_none_is_taken() {
        use rustix::net::SendAncillaryMessage;
        let (a, b) = UnixStream::pair().unwrap();
        let mut to = Connection::new(b.into()).unwrap();
        to.accept_descriptors();
        // As if this process could have no more than three of them.
        let (descriptors, _reads) = pipes(3);
        let streams = descriptors.streams();
        let mut four: Vec<_> = descriptors.borrowed().collect();
        four.push(a.as_fd());
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&four)));
        let pieces = [IoSlice::new(b"x")];
        sendmsg(&a, &pieces, &mut control, SendFlags::NOSIGNAL).unwrap();
        assert!(to.fill().unwrap());
        assert_eq!(
            to.take_descriptors(streams).unwrap_err(),
            MissingDescriptors
        );
    }

    #[test]
    fn more_descriptors_than_a_process_has_streams_end_the_connection() {
        let (a, b) = UnixStream::pair().unwrap();
        let mut from = Connection::new(a.into()).unwrap();
        let mut to = Connection::new(b.into()).unwrap();
        to.accept_descriptors();
        for session in 0..4 {
            let null = std::fs::File::open("/dev/null").unwrap();
            let descriptors = Descriptors {
                stdin: Some(null.into()),
                ..Descriptors::default()
            };
            from.send_descriptors(session, descriptors).unwrap();
            from.flush().unwrap();
        }
        let ended = (0..4).find_map(|_| to.fill().err());
        assert!(matches!(ended, Some(ConnectionError::Violation(_))));
    }
}
