//! Which images are trusted: `policy.json`, and a key that the user names.

/// Why an image is not trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The policy says so.
    #[error("policy.json rejects it")]
    Rejected,
}
