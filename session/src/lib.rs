//! Standard streams, terminals and signals of a process, carried as protocol frames.
//!
//! Two ends meet on one byte stream. [`server::Pump`] sits where the process
//! is (the guest agent, the namespace backend, the helper machine) and joins
//! its pipes or its terminal to the connection; [`client::attach`] sits where
//! the user is. [`connection::Connection`] is what both are made of, for
//! whoever stands between them.
//!
//! Nobody here buffers without bound: a stream's sender stops at its credit,
//! and its receiver returns credit only for bytes that it has passed on.
#![forbid(unsafe_code)]

pub mod cgroup;
pub mod children;
pub mod client;
pub mod connection;
pub mod direct;
pub mod guard;
pub mod names;
mod pipe;
pub mod processes;
pub mod server;
mod sink;
pub mod status;
pub mod user;
