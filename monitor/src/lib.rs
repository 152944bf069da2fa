//! The monitor: one process for each running container, which owns its microVM or its namespace
//! container, stands between it and whoever is attached, and records how it ended.
//!
//! ```text
//! cli ══ socket pair ══ monitor ══ vsock or socket pair ══ agent or ns ─► workload
//! ```
//!
//! [`spawn`] starts it from the command line: the same program, `hullbox __monitor`, in a session
//! of its own, with an empty environment, the attached socket as descriptor 0, the container's
//! lock as descriptor 1 and nothing else. It is started first of all with a [`hullbox_backend::factory::Prospect`], which lets
//! it prepare a guest; its orders, a [`Config`], arrive on the socket once they are known, before any
//! frame does. [`main`] is that program's other end.
//!
//! A container that was started in the foreground ends with the command that started it: when that
//! connection breaks (the command was killed), the workload is killed too and nothing stays
//! behind. Any other runs on. Further commands reach the monitor through its [`control`] socket.
//!
//! Which backends there are the monitor does not know: [`main`] is given a
//! [`hullbox_backend::factory::Factory`] of them.
#![forbid(unsafe_code)]

mod client;
mod config;
pub mod control;
mod entrance;
pub mod execs;
pub mod health;
mod hub;
mod log;
mod network;
mod pipes;
mod record;
pub mod refused;
mod rules;
mod serve;
mod setup;
mod signals;
mod spawn;
mod streams;
mod waiting;

pub use config::{Config, Mode};
pub use serve::main;
pub use signals::{KILL_NOW, ended_by_kill_now};
pub use spawn::{ENTRY, Monitor, SpawnError, Waiting, spawn};

#[cfg(test)]
mod tests;
