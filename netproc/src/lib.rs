//! The process `hullbox __net`, which serves a user-mode network: one container's own, or one that
//! containers share.
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
//! A network that containers share has one process for all of them, which is nobody's child (`share`).
//! What a monitor starts is a process that joins it (`join`): that opens ports, starts the other if there
//! is none, hands everything over, and ends. On the host of a helper machine the process that the
//! supervisor starts does the same, so that containers in the machine meet outside.
//!
//! ```text
//! monitor ══ __net --join DIR ═ DIR/ID.sock ═► __net (shared) ─► the world
//!    ╚═══════ the same connection, later ══════════╝ ╚═ other monitors
//! ```
//!
//! - `message`: what is said on a control connection, and how it travels; `counts`: of what was counted.
//! - `launch`: the side of whoever starts the process ([`Process`]).
//! - `serve`: the process itself ([`main`]); `engine`, `attended`: what both kinds of networks have.
//! - `join`, `home`, `share`, `shape`: networks that containers share.
//! - `ports`: opening published ports.
//! - `names`: what the gateway's name server knows of the host's names.
//! - `relay`, `channel`: inside the helper machine; `door`: at its other end.
#![forbid(unsafe_code)]

mod attended;
mod channel;
mod counts;
mod door;
mod engine;
mod home;
mod jail;
mod join;
mod launch;
mod message;
mod names;
mod ports;
mod relay;
mod serve;
mod shape;
mod share;

pub use counts::{Counts, Refusal};
pub use launch::{Heard, Launcher, Process, ProcessError, Seat, tidy};
pub use message::MAX_MESSAGE;
pub use ports::PortError;
pub use serve::main;

pub use hullbox_net::{Telling, set_tap_carrier};

/// The hidden command that is this process.
pub use hullbox_protocol::NETWORK_COMMAND as ENTRY;

/// The option that makes the process one that joins a network, in this directory.
pub(crate) const JOIN_OPTION: &str = "--join";

/// The option that makes the process a relay.
pub(crate) const RELAY_OPTION: &str = "--relay";
