//! Which images are trusted: `policy.json` (containers-policy.json(5)), and a key that the user names.
//!
//! Of its requirements `insecureAcceptAnything`, `reject` and `sigstoreSigned` with a key are known. Any other
//! refuses the image: what cannot be checked is not trusted.

mod file;
mod identity;
mod key;
mod signature;

pub(crate) use file::Policy;
pub(crate) use identity::Identity;
pub(crate) use key::Key;
pub(crate) use signature::check;

use crate::error::ResolveError;
use std::path::PathBuf;

/// What an image must fulfil; all of a list.
#[derive(Debug, Clone)]
pub(crate) enum Requirement {
    Accept,
    Reject,
    /// A signature of one of the keys, for an identity.
    Signed {
        keys: Vec<Key>,
        identity: Identity,
    },
    /// A type that is not known here.
    Unknown(String),
}

/// Why an image is not trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The policy says so.
    #[error("policy.json rejects it")]
    Rejected,
    /// A requirement that cannot be checked.
    #[error("policy.json demands {0:?}, which is not supported")]
    Unsupported(String),
    /// A key that is none.
    #[error("{} is not a public key in PEM that can be used: {why}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A key that cannot be read.
    #[error("cannot read the key {}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nobody has signed it.
    #[error("it has no signature")]
    Unsigned,
    /// Signatures are there, but none that counts.
    #[error("none of its {count} signatures is valid: {why}")]
    NoValidSignature {
        /// How many there are.
        count: usize,
        /// What is wrong with the last one.
        why: String,
    },
    /// Signatures cannot be had.
    #[error("cannot get its signatures")]
    Signatures(#[source] Box<ResolveError>),
}
