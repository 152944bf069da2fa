//! What the host and the guest agent say to each other.
//!
//! One byte stream (vsock into a microVM, a Unix socket between Hullbox's own
//! processes) carries [`Frame`]s. Structured payloads ([`Setup`],
//! [`ProcessSpec`], …) are postcard; standard streams are raw bytes under
//! credit, so that neither side ever has to buffer without bound.
//!
//! This crate does no I/O and trusts no byte: [`Decoder`] is the one place
//! where a peer's bytes become values; it knows who speaks and takes nothing that
//! only others say, and every length and every count in it has a limit.
//!
//! # Conversation
//!
//! ```text
//! guest                                   host
//!   Hello ───────────────────────────────►
//!   ◄──────────────────────────────── Setup      once, session 0
//!   ◄──────────────────────────────── Exec       opens a session (0 = the workload)
//!   Started | Failed ───────────────────►
//!   Data, Eof, Credit ◄─────────────────► Data, Eof, Credit, Signal, Resize
//!   Exited ─────────────────────────────►        closes the session
//!   ◄──────────────────────────────── Request    about the container as a whole
//!   Reply ──────────────────────────────►        to the request of the same number
//! ```
//!
//! The host need not wait for `Hello` before it sends `Setup` and `Exec`.
//! Every stream starts with [`INITIAL_CREDIT`] bytes that its sender may have
//! outstanding; the receiver returns credit as it passes bytes on.
#![forbid(unsafe_code)]

mod access;
mod bounded;
mod builtin;
mod decode;
mod encode;
mod frame;
mod mount;
mod network;
mod request;
mod spec;

pub use access::{
    Access, DeviceAccess, DeviceKind, DeviceNode, DeviceRule, MASKED_PATHS, READ_ONLY_PATHS,
};
pub use bounded::MAX_LIST;
pub use builtin::{Builtin, PathStat};
pub use decode::{Decoder, Incoming};
pub use encode::{data_header, encode_data, encode_into};
pub use frame::{
    DecodeError, Frame, HEADER_LEN, INITIAL_CREDIT, Kind, MAX_DATA, MAX_PAYLOAD, Sender, Stream,
    StreamSet,
};
pub use mount::{AnyMount, FILES_TAG, FileMount, FileSource};
pub use network::{
    Addresses, INTERFACE_NAME, Interface, MAX_INTERFACES, NETWORK_COMMAND, NETWORK_FRAME_PORTS,
    NETWORK_VSOCK_OPTION, interface_name,
};
pub use request::{
    InterfaceUsage, MAX_PROCESSES, MAX_TOLD_INTERFACES, NameFiles, ProcessInfo, Reply, Request,
    Transfers, Usage,
};
pub use spec::{
    AgentEnv, CONSOLE_SIZE, CgroupLimits, ENTROPY_BYTES, ExitStatus, Failure, FailureKind, Hello,
    Hygiene, LayerDisk, MAX_WORDS, PipedStreams, ProcessSpec, Rlimit, RootfsSpec, Setup, Started,
    TerminalSize, TmpfsMount, UserSpec, WritableLayer,
};

/// Version of the conversation. A peer that says another one is refused.
pub const PROTOCOL_VERSION: u32 = 12;

/// The vsock port on the host that the guest agent dials, once.
pub const CONTROL_PORT: u32 = 1024;

/// The vsock port on which the helper machine's agent accepts sessions.
pub const MACHINE_PORT: u32 = 1025;

/// The vsock port on the host that the helper machine dials once it is up.
pub const MACHINE_READY_PORT: u32 = 1026;

/// The vsock port on the host where a process in the helper machine finds one that serves a
/// container's network outside.
pub const MACHINE_NETWORK_PORT: u32 = 1027;

/// The vsock port on the host where a process in the helper machine finds one that serves files of the
/// host outside.
pub const MACHINE_FILES_PORT: u32 = 1028;

/// How long the helper machine may believe a name or an attribute of the host's files, in
/// milliseconds. A session begins its program when what the machine had learned before has expired.
pub const SHARE_NAMES_HOLD_MS: u64 = 10;
