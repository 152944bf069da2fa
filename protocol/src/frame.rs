//! Frames: a 12-byte header and a bounded payload.
//!
//! ```text
//!  0        4      5        6         8            12
//!  ├ length ┼ kind ┼ stream ┼ zero(2) ┼ session(4) ┼ payload … ┤   little endian
//! ```

use crate::request::{Reply, Request};
use crate::spec::{ExitStatus, Failure, Hello, ProcessSpec, Setup, Started, TerminalSize};
use serde::{Serialize, de::DeserializeOwned};

/// Bytes before the payload.
pub const HEADER_LEN: usize = 12;
/// Largest payload of a `Data` frame, in bytes. Each frame costs each process on its way a few system
/// calls and a wake-up.
pub const MAX_DATA: usize = 128 * 1024;
/// Largest payload of any frame, in bytes (a `Setup` with long environments).
pub const MAX_PAYLOAD: usize = 4 * 1024 * 1024;
/// A decoder's buffer that is larger than this is not kept.
const MAX_KEPT: usize = 1024 * 1024;
/// Bytes a sender may have outstanding on a fresh stream.
pub const INITIAL_CREDIT: u32 = 1024 * 1024;

/// Which of a session's standard streams a frame is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Towards the process.
    Stdin,
    /// From the process; a terminal's whole output too.
    Stdout,
    /// From the process.
    Stderr,
}

impl Stream {
    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Stdin),
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            _ => None,
        }
    }

    const fn byte(self) -> u8 {
        match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}

/// The kind byte of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// See [`Frame::Hello`].
    Hello = 1,
    /// See [`Frame::Setup`].
    Setup = 2,
    /// See [`Frame::Exec`].
    Exec = 3,
    /// See [`Frame::Started`].
    Started = 4,
    /// See [`Frame::Failed`].
    Failed = 5,
    /// See [`Frame::Data`].
    Data = 6,
    /// See [`Frame::Eof`].
    Eof = 7,
    /// See [`Frame::Credit`].
    Credit = 8,
    /// See [`Frame::Signal`].
    Signal = 9,
    /// See [`Frame::Resize`].
    Resize = 10,
    /// See [`Frame::Exited`].
    Exited = 11,
    /// See [`Frame::Log`].
    Log = 12,
    /// See [`Frame::Shutdown`].
    Shutdown = 13,
    /// See [`Frame::Request`].
    Request = 14,
    /// See [`Frame::Reply`].
    Reply = 15,
    /// See [`Frame::Local`].
    Local = 16,
    /// See [`Frame::Oom`].
    Oom = 17,
}

impl Kind {
    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Setup,
            3 => Self::Exec,
            4 => Self::Started,
            5 => Self::Failed,
            6 => Self::Data,
            7 => Self::Eof,
            8 => Self::Credit,
            9 => Self::Signal,
            10 => Self::Resize,
            11 => Self::Exited,
            12 => Self::Log,
            13 => Self::Shutdown,
            14 => Self::Request,
            15 => Self::Reply,
            16 => Self::Local,
            17 => Self::Oom,
            _ => return None,
        })
    }

    /// The largest payload this kind may carry, in bytes.
    const fn max_payload(self) -> usize {
        match self {
            Self::Data => MAX_DATA,
            Self::Setup | Self::Exec => MAX_PAYLOAD,
            Self::Eof | Self::Shutdown | Self::Oom => 0,
            Self::Credit | Self::Signal => 4,
            Self::Resize => 8,
            Self::Hello | Self::Started | Self::Failed | Self::Exited | Self::Log => 8 * 1024,
            Self::Request => 1024,
            Self::Reply | Self::Local => MAX_PAYLOAD,
        }
    }
}

/// One message. `session` tells the process it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The guest agent is up.
    Hello(Hello),
    /// How to arrange the guest: root filesystem, names, limits. Once.
    Setup(Box<Setup>),
    /// Run a process as `session`.
    Exec {
        /// A number no running process has; 0 is the workload.
        session: u32,
        /// What to run.
        spec: Box<ProcessSpec>,
    },
    /// The process runs: `execve` succeeded.
    Started {
        /// See [`Frame::Exec`].
        session: u32,
        /// Its identity.
        started: Started,
    },
    /// The process could not be run, or (session 0, before `Started`) the guest not set up.
    Failed {
        /// See [`Frame::Exec`].
        session: u32,
        /// Why.
        failure: Failure,
    },
    /// Bytes of a standard stream, at most [`MAX_DATA`] and never none.
    Data {
        /// See [`Frame::Exec`].
        session: u32,
        /// Which stream.
        stream: Stream,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// No more bytes on this stream (half-close); to the sender of `Data`, "nobody reads it".
    Eof {
        /// See [`Frame::Exec`].
        session: u32,
        /// Which stream.
        stream: Stream,
    },
    /// The sender of `stream` may send this many bytes more.
    Credit {
        /// See [`Frame::Exec`].
        session: u32,
        /// Which stream.
        stream: Stream,
        /// Additional bytes.
        bytes: u32,
    },
    /// Deliver a signal to the process.
    Signal {
        /// See [`Frame::Exec`].
        session: u32,
        /// Linux signal number, 1 to 64.
        signal: u32,
    },
    /// The terminal's size changed.
    Resize {
        /// See [`Frame::Exec`].
        session: u32,
        /// The new size.
        size: TerminalSize,
    },
    /// The process ended and its streams are drained.
    Exited {
        /// See [`Frame::Exec`].
        session: u32,
        /// How.
        status: ExitStatus,
    },
    /// A diagnostic of the agent, for the host's debug log.
    Log(String),
    /// End the guest in an orderly way: terminate, sync, unmount, power off.
    Shutdown,
    /// A question or an order about the container as a whole.
    Request {
        /// Chosen by who asks; no session's.
        number: u32,
        /// What.
        request: Request,
    },
    /// The answer.
    Reply {
        /// That of the request.
        number: u32,
        /// What.
        reply: Reply,
    },
    /// A message between Hullbox's own processes on the host, opaque here. No guest sends or
    /// takes one.
    Local(Vec<u8>),
    /// The out-of-memory killer was at work in the container, for the first time or again.
    Oom,
}

/// Why a peer's bytes are not a frame. The connection is of no use afterwards.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The kind byte is none of [`Kind`].
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// The stream byte is none of [`Stream`].
    #[error("unknown stream {0}")]
    UnknownStream(u8),
    /// The reserved header bytes are not zero.
    #[error("reserved header bytes are not zero")]
    Reserved,
    /// The declared length is over the kind's limit.
    #[error("a {kind:?} frame of {len} bytes is over its limit")]
    TooLong {
        /// The kind.
        kind: Kind,
        /// The declared payload length, in bytes.
        len: usize,
    },
    /// The payload is not what the kind says.
    #[error("malformed payload in a {0:?} frame")]
    Malformed(Kind),
}

/// Appends the encoding of `frame` to `out`.
///
/// # Errors
/// [`DecodeError::TooLong`] when the payload is over the kind's limit,
/// [`DecodeError::Malformed`] when it cannot be serialised.
pub fn encode_into(frame: &Frame, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let structured = |kind, session, value: &dyn ErasedSerialize, out: &mut Vec<u8>| {
        let payload = value
            .to_postcard()
            .map_err(|_| DecodeError::Malformed(kind))?;
        put(kind, 0, session, &payload, out)
    };
    match frame {
        Frame::Hello(hello) => structured(Kind::Hello, 0, hello, out),
        Frame::Setup(setup) => structured(Kind::Setup, 0, setup.as_ref(), out),
        Frame::Exec { session, spec } => structured(Kind::Exec, *session, spec.as_ref(), out),
        Frame::Started { session, started } => structured(Kind::Started, *session, started, out),
        Frame::Failed { session, failure } => structured(Kind::Failed, *session, failure, out),
        Frame::Exited { session, status } => structured(Kind::Exited, *session, status, out),
        Frame::Data {
            session,
            stream,
            bytes,
        } => put(Kind::Data, stream.byte(), *session, bytes, out),
        Frame::Eof { session, stream } => put(Kind::Eof, stream.byte(), *session, &[], out),
        Frame::Credit {
            session,
            stream,
            bytes,
        } => {
            let payload = bytes.to_le_bytes();
            put(Kind::Credit, stream.byte(), *session, &payload, out)
        }
        Frame::Signal { session, signal } => {
            put(Kind::Signal, 0, *session, &signal.to_le_bytes(), out)
        }
        Frame::Resize { session, size } => {
            let mut payload = [0u8; 4];
            payload[..2].copy_from_slice(&size.rows.to_le_bytes());
            payload[2..].copy_from_slice(&size.columns.to_le_bytes());
            put(Kind::Resize, 0, *session, &payload, out)
        }
        Frame::Log(text) => {
            let limit = Kind::Log.max_payload();
            let end = (0..=limit.min(text.len()))
                .rev()
                .find(|&i| text.is_char_boundary(i))
                .unwrap_or(0);
            put(Kind::Log, 0, 0, &text.as_bytes()[..end], out)
        }
        Frame::Shutdown => put(Kind::Shutdown, 0, 0, &[], out),
        Frame::Oom => put(Kind::Oom, 0, 0, &[], out),
        Frame::Request { number, request } => structured(Kind::Request, *number, request, out),
        Frame::Reply { number, reply } => structured(Kind::Reply, *number, reply, out),
        Frame::Local(bytes) => put(Kind::Local, 0, 0, bytes, out),
    }
}

/// Appends a `Data` frame without first owning the bytes: the path that standard streams take.
///
/// # Errors
/// [`DecodeError::TooLong`] over [`MAX_DATA`] bytes.
pub fn encode_data(
    session: u32,
    stream: Stream,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    put(Kind::Data, stream.byte(), session, bytes, out)
}

/// The header of a `Data` frame of `len` bytes, for a sender that has the bytes elsewhere.
///
/// # Errors
/// [`DecodeError::TooLong`] over [`MAX_DATA`] bytes.
pub fn data_header(
    session: u32,
    stream: Stream,
    len: usize,
) -> Result<[u8; HEADER_LEN], DecodeError> {
    header(Kind::Data, stream.byte(), session, len)
}

fn header(
    kind: Kind,
    stream: u8,
    session: u32,
    len: usize,
) -> Result<[u8; HEADER_LEN], DecodeError> {
    let too_long = DecodeError::TooLong { kind, len };
    if len > kind.max_payload() {
        return Err(too_long);
    }
    let [l0, l1, l2, l3] = u32::try_from(len).map_err(|_| too_long)?.to_le_bytes();
    let [s0, s1, s2, s3] = session.to_le_bytes();
    Ok([l0, l1, l2, l3, kind as u8, stream, 0, 0, s0, s1, s2, s3])
}

fn put(
    kind: Kind,
    stream: u8,
    session: u32,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let header = header(kind, stream, session, payload.len())?;
    out.reserve(HEADER_LEN + payload.len());
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
    Ok(())
}

/// Object-safe serialisation, so that one closure serves every structured kind.
trait ErasedSerialize {
    fn to_postcard(&self) -> Result<Vec<u8>, postcard::Error>;
}

impl<T: Serialize> ErasedSerialize for T {
    fn to_postcard(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(self)
    }
}

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
#[derive(Debug, Default)]
pub struct Decoder {
    /// What arrived and was not taken is from `start` to `end`; the rest is room.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Decoder {
    /// An empty decoder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
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
    use crate::{FailureKind, Hygiene, PROTOCOL_VERSION};

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
            Frame::Local(vec![1, 2, 3]),
            Frame::Request {
                number: 5,
                request: Request::Freeze,
            },
            Frame::Reply {
                number: 5,
                reply: Reply::Processes(vec![crate::ProcessInfo {
                    pid: 1,
                    state: 'S',
                    command: "/bin/sh".into(),
                    ..crate::ProcessInfo::default()
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
}
