//! The microVM backend: from a bundle to a guest that runs, and what it may begin at.
//!
//! ```text
//! prepare ─► Ahead ─┐                      templates: a guest saved before it had a container
//! Bundle ───────────┴─► Guest ─► Backend   snapshots: a guest saved with what its container did
//! ```
#![forbid(unsafe_code)]

mod disk;
mod disks;
mod error;
mod ext4;
mod files;
mod guest;
mod launch;
mod network;
mod shape;
mod snapshots;
mod tasks;
pub mod templates;
mod volume;

pub use error::GuestError;
pub use files::volume_disks;
pub use guest::Guest;
pub use launch::{Ahead, prepare, revive};
pub use shape::ShapeError;
pub use snapshots::SavedGuestError;
pub use volume::{GrowError, grow_volume, make_volume};
