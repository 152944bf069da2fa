//! Bytes become frames: the one place where a peer is believed, and how far.

use crate::frame::{DecodeError, Frame, HEADER_LEN, Kind, Sender, Stream, StreamSet};
use crate::spec::TerminalSize;
use serde::de::DeserializeOwned;

/// A decoder's buffer that is larger than this is not kept.
const MAX_KEPT: usize = 1024 * 1024;

/// A frame as it stands in the decoder's buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// [`Frame::Data`], not copied.
    Data {
        /// See [`Frame::Exec`].
        session: u32,
        /// Which stream.
        stream: Stream,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Any other frame.
    Frame(Frame),
}

/// Turns a byte stream into frames. Feed it what was read; take frames out until there is none.
///
/// It holds at most one incomplete frame plus what the caller pushed beyond
/// it, so a caller that takes all frames after each push has a bound on memory.
/// What its sender never says is refused at its header.
#[derive(Debug, Default)]
pub struct Decoder {
    sender: Sender,
    /// What arrived and was not taken is from `start` to `end`; the rest is room.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Decoder {
    /// An empty decoder of what anybody says.
    #[must_use]
    pub const fn new() -> Self {
        Self::of(Sender::Any)
    }

    /// An empty decoder of what this sender says.
    #[must_use]
    pub const fn of(sender: Sender) -> Self {
        Self {
            sender,
            buffer: Vec::new(),
            start: 0,
            end: 0,
        }
    }

    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.arrived(bytes.len());
    }

    /// Room for `len` bytes to arrive in, for a reader that needs no buffer of its own.
    pub fn room(&mut self, len: usize) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > MAX_KEPT && len <= MAX_KEPT {
                // A rare huge frame was taken: its memory goes.
                self.buffer = Vec::new();
            }
        }
        if self.end + len > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let needed = self.end + len;
        if self.buffer.is_empty() {
            // Untouched, it costs nothing.
            self.buffer = vec![0; needed];
        } else if self.buffer.len() < needed {
            self.buffer.resize(needed, 0);
        }
        &mut self.buffer[self.end..needed]
    }

    /// So many bytes of [`Self::room`] were filled, from its beginning.
    pub fn arrived(&mut self, len: usize) {
        self.end = self.buffer.len().min(self.end + len);
    }

    /// How many bytes an incomplete frame still lacks, if its header is there. For a reader that
    /// wants to end where a frame ends, so that nothing has to be moved to make room.
    #[must_use]
    pub fn lacking(&self) -> Option<usize> {
        let rest = &self.buffer[self.start..self.end];
        let [l0, l1, l2, l3, ..] = *rest.first_chunk::<HEADER_LEN>()?;
        let len = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).ok()?;
        len.checked_add(HEADER_LEN)?.checked_sub(rest.len())
    }

    /// Whether bytes of an incomplete frame are waiting, behind any whole ones that were not taken
    /// yet: an end of the stream now cuts one off.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        let mut rest = &self.buffer[self.start..self.end];
        while let Some((header, body)) = rest.split_first_chunk::<HEADER_LEN>() {
            let [l0, l1, l2, l3, ..] = *header;
            let len = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
            match body.get(len..) {
                Some(next) => rest = next,
                None => return true,
            }
        }
        !rest.is_empty()
    }

    /// The next whole frame, or `None` until more bytes arrive.
    ///
    /// # Errors
    /// [`DecodeError`]; the stream cannot be resynchronised after one.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, DecodeError> {
        Ok(self.next_incoming()?.map(|incoming| match incoming {
            Incoming::Frame(frame) => frame,
            Incoming::Data {
                session,
                stream,
                bytes,
            } => Frame::Data {
                session,
                stream,
                bytes: bytes.to_vec(),
            },
        }))
    }

    /// As [`Self::next_frame`], with the bytes of `Data` borrowed from the buffer.
    ///
    /// # Errors
    /// [`DecodeError`]; the stream cannot be resynchronised after one.
    pub fn next_incoming(&mut self) -> Result<Option<Incoming<'_>>, DecodeError> {
        let rest = &self.buffer[self.start..self.end];
        let Some((header, body)) = rest.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let [l0, l1, l2, l3, kind, stream, r0, r1, s0, s1, s2, s3] = *header;
        let kind = Kind::from_byte(kind).ok_or(DecodeError::UnknownKind(kind))?;
        if !self.sender.may_say(kind) {
            return Err(DecodeError::WrongSide(kind));
        }
        if (r0, r1) != (0, 0) {
            return Err(DecodeError::Reserved);
        }
        let len = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        if len > kind.max_payload() {
            return Err(DecodeError::TooLong { kind, len });
        }
        let Some(payload) = body.get(..len) else {
            return Ok(None);
        };
        let session = u32::from_le_bytes([s0, s1, s2, s3]);
        let incoming = if kind == Kind::Data {
            if payload.is_empty() {
                return Err(DecodeError::Malformed(kind));
            }
            Incoming::Data {
                session,
                stream: Stream::from_byte(stream).ok_or(DecodeError::UnknownStream(stream))?,
                bytes: payload,
            }
        } else {
            Incoming::Frame(parse(kind, stream, session, payload)?)
        };
        self.start += HEADER_LEN + len;
        Ok(Some(incoming))
    }
}

fn parse(kind: Kind, stream: u8, session: u32, payload: &[u8]) -> Result<Frame, DecodeError> {
    let malformed = DecodeError::Malformed(kind);
    let which = || Stream::from_byte(stream).ok_or(DecodeError::UnknownStream(stream));
    let word = || <[u8; 4]>::try_from(payload).map(u32::from_le_bytes);
    Ok(match kind {
        Kind::Hello => Frame::Hello(from_postcard(kind, payload)?),
        Kind::Setup => Frame::Setup(from_postcard(kind, payload)?),
        Kind::Exec => Frame::Exec {
            session,
            spec: from_postcard(kind, payload)?,
        },
        Kind::Started => Frame::Started {
            session,
            started: from_postcard(kind, payload)?,
        },
        Kind::Failed => Frame::Failed {
            session,
            failure: from_postcard(kind, payload)?,
        },
        Kind::Exited => Frame::Exited {
            session,
            status: from_postcard(kind, payload)?,
        },
        // `next_incoming` lends these without a copy and does not come here.
        Kind::Data => return Err(malformed),
        Kind::Eof => Frame::Eof {
            session,
            stream: which()?,
        },
        Kind::Credit => Frame::Credit {
            session,
            stream: which()?,
            bytes: word().map_err(|_| malformed)?,
        },
        Kind::Signal => {
            let signal = word().map_err(|_| DecodeError::Malformed(kind))?;
            if !(1..=64).contains(&signal) {
                return Err(malformed);
            }
            Frame::Signal { session, signal }
        }
        Kind::Resize => {
            let [r0, r1, c0, c1] = <[u8; 4]>::try_from(payload).map_err(|_| malformed)?;
            Frame::Resize {
                session,
                size: TerminalSize {
                    rows: u16::from_le_bytes([r0, r1]),
                    columns: u16::from_le_bytes([c0, c1]),
                },
            }
        }
        Kind::Log => Frame::Log(String::from_utf8_lossy(payload).into_owned()),
        Kind::Shutdown => Frame::Shutdown,
        Kind::Oom => Frame::Oom,
        Kind::Descriptors => match payload {
            [bits] => Frame::Descriptors {
                session,
                streams: StreamSet::from_bits(*bits).ok_or(malformed)?,
            },
            _ => return Err(malformed),
        },
        Kind::Relay => Frame::Relay { session },
        Kind::Request => Frame::Request {
            number: session,
            request: from_postcard(kind, payload)?,
        },
        Kind::Reply => Frame::Reply {
            number: session,
            reply: from_postcard(kind, payload)?,
        },
        Kind::Local => Frame::Local(payload.to_vec()),
    })
}

/// Decodes all of `payload`: bytes left over are as wrong as bytes missing.
fn from_postcard<T: DeserializeOwned>(kind: Kind, payload: &[u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(payload) {
        Ok((value, [])) => Ok(value),
        _ => Err(DecodeError::Malformed(kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::*;
    use crate::{
        MAX_LIST, MAX_PROCESSES, MAX_TOLD_INTERFACES, PROTOCOL_VERSION, ProcessInfo, Reply,
        Request, Usage, encode_into,
    };

    fn samples() -> Vec<Frame> {
        vec![
            Frame::Hello(Hello {
                version: PROTOCOL_VERSION,
                uptime_us: 123_456,
            }),
            Frame::Setup(Box::default()),
            Frame::Exec {
                session: 7,
                spec: Box::new(ProcessSpec {
                    argv: vec!["/bin/true".into()],
                    ..ProcessSpec::default()
                }),
            },
            Frame::Started {
                session: 0,
                started: Started {
                    pid: 12,
                    uptime_us: 1,
                    rooted_us: 2,
                    hygiene: Hygiene {
                        clock_set: true,
                        ..Hygiene::default()
                    },
                },
            },
            Frame::Failed {
                session: 0,
                failure: Failure {
                    kind: FailureKind::NotFound,
                    message: "no such file".into(),
                },
            },
            Frame::Data {
                session: 0,
                stream: Stream::Stderr,
                bytes: vec![0, 255, 10],
            },
            Frame::Eof {
                session: 3,
                stream: Stream::Stdin,
            },
            Frame::Credit {
                session: 0,
                stream: Stream::Stdout,
                bytes: 65536,
            },
            Frame::Signal {
                session: 0,
                signal: 15,
            },
            Frame::Resize {
                session: 0,
                size: TerminalSize {
                    rows: 24,
                    columns: 80,
                },
            },
            Frame::Exited {
                session: 0,
                status: ExitStatus::Signal {
                    signal: 9,
                    oom: true,
                },
            },
            Frame::Log("hällo".into()),
            Frame::Shutdown,
            Frame::Oom,
            Frame::Descriptors {
                session: 6,
                streams: StreamSet::default()
                    .with(Stream::Stdin)
                    .with(Stream::Stderr),
            },
            Frame::Relay { session: 6 },
            Frame::Local(vec![1, 2, 3]),
            Frame::Request {
                number: 5,
                request: Request::Freeze,
            },
            Frame::Reply {
                number: 5,
                reply: Reply::Processes(vec![ProcessInfo {
                    pid: 1,
                    state: 'S',
                    command: "/bin/sh".into(),
                    ..ProcessInfo::default()
                }]),
            },
        ]
    }

    #[test]
    fn every_frame_survives_a_byte_at_a_time() {
        let mut wire = Vec::new();
        for frame in samples() {
            encode_into(&frame, &mut wire).unwrap();
        }
        let mut decoder = Decoder::new();
        let mut seen = Vec::new();
        for byte in wire {
            decoder.push(&[byte]);
            while let Some(frame) = decoder.next_frame().unwrap() {
                seen.push(frame);
            }
        }
        assert_eq!(seen, samples());
        assert!(!decoder.is_mid_frame());
    }

    #[test]
    fn whole_frames_that_nobody_took_are_not_the_middle_of_one() {
        let mut wire = Vec::new();
        for frame in samples() {
            encode_into(&frame, &mut wire).unwrap();
        }
        let mut decoder = Decoder::new();
        decoder.push(&wire);
        assert!(!decoder.is_mid_frame());
        decoder.push(&wire[..HEADER_LEN - 1]);
        assert!(decoder.is_mid_frame());
    }

    #[test]
    fn truncated_structures_are_malformed_not_panics() {
        for frame in samples() {
            let mut wire = Vec::new();
            encode_into(&frame, &mut wire).unwrap();
            for cut in HEADER_LEN..wire.len() {
                let mut short = wire[..cut].to_vec();
                let len = u32::try_from(cut - HEADER_LEN).unwrap();
                short[..4].copy_from_slice(&len.to_le_bytes());
                let mut decoder = Decoder::new();
                decoder.push(&short);
                // Any answer but a panic or a wrong kind will do for raw bytes.
                if !matches!(frame, Frame::Data { .. } | Frame::Log(_) | Frame::Local(_)) {
                    assert!(decoder.next_frame().is_err(), "{frame:?} cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn lies_about_length_are_refused_before_the_payload_arrives() {
        for kind in [6u8, 8, 11, 12, 13, 2] {
            let mut decoder = Decoder::new();
            decoder.push(&u32::MAX.to_le_bytes());
            decoder.push(&[kind, 0, 0, 0, 0, 0, 0, 0]);
            assert!(matches!(
                decoder.next_frame(),
                Err(DecodeError::TooLong { .. })
            ));
        }
    }

    #[test]
    fn junk_headers_are_refused() {
        let junk = |bytes: [u8; 12]| {
            let mut decoder = Decoder::new();
            decoder.push(&bytes);
            decoder.next_frame()
        };
        assert_eq!(
            junk([0, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0]),
            Err(DecodeError::UnknownKind(99))
        );
        assert_eq!(
            junk([0, 0, 0, 0, 7, 9, 0, 0, 0, 0, 0, 0]),
            Err(DecodeError::UnknownStream(9))
        );
        assert_eq!(
            junk([0, 0, 0, 0, 7, 0, 1, 0, 0, 0, 0, 0]),
            Err(DecodeError::Reserved)
        );
        assert_eq!(
            junk([0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]),
            Err(DecodeError::Malformed(Kind::Data))
        );
    }

    #[test]
    fn what_its_sender_never_says_is_refused_at_its_header() {
        let sides = [Sender::Host, Sender::Agent, Sender::Client, Sender::Monitor];
        for frame in samples() {
            let mut wire = Vec::new();
            encode_into(&frame, &mut wire).unwrap();
            let refused = sides.map(|side| {
                let mut decoder = Decoder::of(side);
                decoder.push(&wire[..HEADER_LEN]);
                let refused = matches!(decoder.next_frame(), Err(DecodeError::WrongSide(_)));
                let mut decoder = Decoder::of(side);
                decoder.push(&wire);
                assert_eq!(decoder.next_frame().is_err(), refused, "{frame:?}");
                refused
            });
            let expected = match frame {
                Frame::Data { .. } | Frame::Eof { .. } | Frame::Credit { .. } => [false; 4],
                Frame::Signal { .. } | Frame::Resize { .. } | Frame::Descriptors { .. } => {
                    [false, true, false, true]
                }
                Frame::Setup(_)
                | Frame::Exec { .. }
                | Frame::Shutdown
                | Frame::Request { .. }
                | Frame::Relay { .. } => [false, true, true, true],
                Frame::Reply { .. } => [true, false, true, true],
                Frame::Local(_) => [true, true, false, false],
                Frame::Hello(_)
                | Frame::Started { .. }
                | Frame::Failed { .. }
                | Frame::Exited { .. }
                | Frame::Oom
                | Frame::Log(_) => [true, false, true, false],
            };
            assert_eq!(refused, expected, "{frame:?}");
        }
    }

    /// A list of so many empty elements in a frame that would be right without it: how it is taken.
    fn with_list(
        frame: &Frame,
        at: usize,
        element: &[u8],
        count: usize,
    ) -> Result<(), DecodeError> {
        let mut wire = Vec::new();
        encode_into(frame, &mut wire).unwrap();
        let mut payload = wire.split_off(HEADER_LEN);
        assert_eq!(payload[at], 0, "an empty list stands here");
        let list = postcard::to_allocvec(&count).unwrap();
        let list: Vec<u8> = list.into_iter().chain(element.repeat(count)).collect();
        payload.splice(at..=at, list);
        wire[..4].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        let mut decoder = Decoder::new();
        decoder.push(&wire);
        decoder.push(&payload);
        decoder.next_frame().map(|frame| assert!(frame.is_some()))
    }

    #[test]
    fn short_elements_do_not_make_a_frame_large_in_memory() {
        let exec = Frame::Exec {
            session: 0,
            spec: Box::default(),
        };
        // Each empty word is a byte here and 24 bytes there.
        for at in [0, 1] {
            assert_eq!(with_list(&exec, at, &[0], MAX_WORDS), Ok(()));
            assert_eq!(
                with_list(&exec, at, &[0], MAX_WORDS + 1),
                Err(DecodeError::Malformed(Kind::Exec))
            );
        }
        let lists: [(Frame, usize, &[u8], usize); 4] = [
            (Frame::Setup(Box::default()), 0, &[0, 0], MAX_LIST),
            // cwd, then USER "" of the first variant, then --group-add.
            (exec, 5, &[0], MAX_LIST),
            (
                Frame::Reply {
                    number: 0,
                    reply: Reply::Processes(Vec::new()),
                },
                1,
                &[0, 0, 0, 1, b'S', 0, 0, 0, 0, 0, 0],
                MAX_PROCESSES,
            ),
            // Behind eight numbers.
            (
                Frame::Reply {
                    number: 0,
                    reply: Reply::Usage(Box::default()),
                },
                9,
                &[0; 9],
                MAX_TOLD_INTERFACES,
            ),
        ];
        for (frame, at, element, limit) in lists {
            assert_eq!(with_list(&frame, at, element, limit), Ok(()), "{frame:?}");
            assert!(with_list(&frame, at, element, limit + 1).is_err());
        }
        assert!(size_of::<Usage>() < 128 && size_of::<ProcessInfo>() < 160);
    }
}
