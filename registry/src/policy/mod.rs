//! Which images are trusted: `policy.json` (containers-policy.json(5)), and a key that the user
//! names.
//!
//! Of its requirements `insecureAcceptAnything`, `reject` and `sigstoreSigned` with a key are
//! known. Any other refuses the image: what cannot be checked is not trusted.

mod file;
mod identity;
mod key;
mod requirement;
mod signature;

pub(crate) use file::Policy;
pub(crate) use identity::Identity;
pub(crate) use key::Key;
pub(crate) use requirement::Requirement;
pub(crate) use signature::check;
