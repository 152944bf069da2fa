//! Values as people type them.

/// Why a typed value makes no sense. Says only the why; the flag's name is the caller's to add.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(String);

impl ValueError {
    /// An error with these words.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}
