//! Guests saved with what their container did, to go on from there: what is in a snapshot's
//! directory. Which snapshots there are is the `state` crate's to know.
//!
//! The state is sealed with the secret of the data directory; its origin is a digest of the
//! description ([`hullbox_backend::saving::DESCRIPTION_FILE`]), and it names the other files by their
//! times of change and contents.

mod error;
mod restore;
mod save;

pub use error::SavedGuestError;
pub(crate) use restore::restore;
pub(crate) use save::Work;
