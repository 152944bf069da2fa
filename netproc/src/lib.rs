//! The process `hullbox __net`, which serves the user-mode network of one container.
//!
//! ```text
//! monitor ══ control connection ══ __net ─ host's sockets ─► the world
//!    └ the member's descriptor ────►  │
//!      (SCM_RIGHTS)                   └─ frames ─► TAP device or the virtual machine's socket
//! ```
//!
//! Frames of a container are hostile, and so is what the world answers: whoever parses them has no
//! file, no capability and no system call beyond those that a network takes (`jail`). Policy is
//! enforced here and not in the process that a guest may take over.
//!
//! In the helper machine the process is a relay (`relay`): the network itself is served on the host,
//! by a process that the machine's supervisor starts for each connection to
//! [`hullbox_protocol::MACHINE_NETWORK_PORT`].
//!
//! ```text
//! helper machine                                     host
//! monitor ══ __net --relay ══ vsock, port 1027 ══ __net --vsock PATH ─► the world
//!                └─ frames ── vsock, port P ── PATH_P ──┘
//! ```
//!
//! - `message`: what is said on a control connection, and how it travels.
//! - `launch`: the side of whoever starts the process ([`Process`]).
//! - `serve`: the process itself ([`main`]).
//! - `ports`: opening published ports.
//! - `names`: what the gateway's name server knows of the host's names.
//! - `relay`, `channel`: inside the helper machine.
#![forbid(unsafe_code)]

mod channel;
mod jail;
mod launch;
mod message;
mod names;
mod ports;
mod relay;
mod serve;

pub use launch::{Launcher, Process, ProcessError};
pub use message::{Counts, MAX_MESSAGE};
pub use ports::PortError;
pub use serve::main;

/// The hidden command that is this process.
pub use hullbox_protocol::NETWORK_COMMAND as ENTRY;

/// The option that makes the process a relay.
pub(crate) const RELAY_OPTION: &str = "--relay";
