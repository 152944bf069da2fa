//! Frames: a 12-byte header and a bounded payload.
//!
//! ```text
//!  0        4      5        6         8            12
//!  ├ length ┼ kind ┼ stream ┼ zero(2) ┼ session(4) ┼ payload … ┤   little endian
//! ```

use crate::request::{Reply, Request};
use serde::{Deserialize, Serialize};

use crate::spec::{ExitStatus, Failure, Hello, ProcessSpec, Setup, Started, TerminalSize};

/// Bytes before the payload.
pub const HEADER_LEN: usize = 12;
/// Largest payload of a `Data` frame, in bytes. Each frame costs each process on its way a few system
/// calls and a wake-up.
pub const MAX_DATA: usize = 128 * 1024;
/// Largest payload of any frame, in bytes (a `Setup` with long environments).
pub const MAX_PAYLOAD: usize = 4 * 1024 * 1024;
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
    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Stdin),
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            _ => None,
        }
    }

    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}

/// Some of a session's standard streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct StreamSet(u8);

impl StreamSet {
    const ALL: [Stream; 3] = [Stream::Stdin, Stream::Stdout, Stream::Stderr];

    /// The set of a bit for each stream: 1, 2 and 4. `None` if there are other bits.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0..=7 => Some(Self(bits)),
            _ => None,
        }
    }

    /// A bit for each stream.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The same set and this stream.
    #[must_use]
    pub const fn with(self, stream: Stream) -> Self {
        Self(self.0 | 1 << stream.byte())
    }

    /// Whether this stream is one of them.
    #[must_use]
    pub const fn contains(self, stream: Stream) -> bool {
        self.0 >> stream.byte() & 1 == 1
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All of them: input, output, error.
    pub fn iter(self) -> impl Iterator<Item = Stream> {
        Self::ALL
            .into_iter()
            .filter(move |stream| self.contains(*stream))
    }
}

impl TryFrom<u8> for StreamSet {
    type Error = &'static str;

    fn try_from(bits: u8) -> Result<Self, Self::Error> {
        Self::from_bits(bits).ok_or("not a set of standard streams")
    }
}

impl From<StreamSet> for u8 {
    fn from(set: StreamSet) -> Self {
        set.bits()
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
    /// See [`Frame::Descriptors`].
    Descriptors = 18,
    /// See [`Frame::Relay`].
    Relay = 19,
}

impl Kind {
    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
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
            18 => Self::Descriptors,
            19 => Self::Relay,
            _ => return None,
        })
    }

    /// The largest payload this kind may carry, in bytes.
    pub(crate) const fn max_payload(self) -> usize {
        match self {
            Self::Data => MAX_DATA,
            Self::Setup | Self::Exec => MAX_PAYLOAD,
            Self::Eof | Self::Shutdown | Self::Oom | Self::Relay => 0,
            Self::Descriptors => 1,
            Self::Credit | Self::Signal => 4,
            Self::Resize => 8,
            Self::Hello | Self::Started | Self::Failed | Self::Exited | Self::Log => 8 * 1024,
            Self::Request => 1024,
            Self::Reply | Self::Local => MAX_PAYLOAD,
        }
    }
}

/// Who says something, which decides what it may be: nothing else is decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sender {
    /// The host, to an agent.
    Host,
    /// An agent, to the host.
    Agent,
    /// A command, to a monitor.
    Client,
    /// A monitor, or an agent that has none (the helper machine's), to a command that is attached.
    Monitor,
    /// Whoever it is.
    #[default]
    Any,
}

impl Sender {
    /// Whether it may say this at any time at all.
    pub(crate) const fn may_say(self, kind: Kind) -> bool {
        let streams = matches!(kind, Kind::Data | Kind::Eof | Kind::Credit);
        let orders = matches!(kind, Kind::Signal | Kind::Resize);
        let reports = matches!(
            kind,
            Kind::Hello | Kind::Started | Kind::Failed | Kind::Exited | Kind::Log
        );
        match self {
            Self::Host => {
                let whole = matches!(
                    kind,
                    Kind::Setup
                        | Kind::Exec
                        | Kind::Shutdown
                        | Kind::Request
                        | Kind::Descriptors
                        | Kind::Relay
                );
                streams || orders || whole
            }
            Self::Agent => streams || reports || matches!(kind, Kind::Reply | Kind::Oom),
            Self::Client => streams || orders || matches!(kind, Kind::Local | Kind::Descriptors),
            Self::Monitor => streams || reports || matches!(kind, Kind::Local | Kind::Oom),
            Self::Any => true,
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
    /// With this frame came (`SCM_RIGHTS`) a descriptor for each of these streams, in the order of
    /// [`StreamSet::iter`]: the other end of the stream, of a process that is asked for next.
    /// Between processes of one host only.
    Descriptors {
        /// That of the `Exec` which follows.
        session: u32,
        /// Which streams.
        streams: StreamSet,
    },
    /// Outputs that went to descriptors go on as `Data`.
    Relay {
        /// See [`Frame::Exec`].
        session: u32,
    },
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
    /// A kind that this sender never sends.
    #[error("a {0:?} frame from the wrong side")]
    WrongSide(Kind),
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
