//! What an image must fulfil.

use super::identity::Identity;
use super::key::Key;

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
