//! The process `hullbox __files`, which serves files of its machine to one container, as answers to FUSE
//! requests.
//!
//! ```text
//! guest's kernel ── virtio-fs ── VMM's device ══ stream of FUSE messages ══ __files ─ the exports
//! ```
//!
//! A guest's requests are hostile, and whoever takes the process over must reach no more than the guest was
//! given: the process sees the exports' mounts and nothing else (`view`), with the rights that files take
//! and no others (`jail`). Read-only is a property of the mount.
//!
//! - `launch`: the side of whoever starts the process.
//! - `hello`, `export`: what is asked of it; `process`: its beginning; `stream`: messages and threads.
//! - `wire`: reading requests and writing replies.
//! - `tree`: what the guest knows and has open; `owners`: to whom files belong; `locks`; `shared`: what
//!   guests and the host change in turns.
//! - `serve`: what each request does.
//! - `outside`, `relay`, `grant`: the helper machine, which has its host's files by the same server.
#![forbid(unsafe_code)]

mod export;
pub mod grant;
mod hello;
mod jail;
pub mod launch;
mod locks;
pub mod outside;
mod owners;
#[cfg(any(test, feature = "probes"))]
#[doc(hidden)]
pub mod probes;
mod process;
mod relay;
mod serve;
mod shared;
mod stream;
mod tree;
mod view;
mod wire;

pub use export::{Export, MAX_EXPORTS};
pub use launch::{LaunchError, Launcher, Process, Started, Starting};
pub use process::main;

/// The hidden command that is this process.
pub const ENTRY: &str = "__files";
