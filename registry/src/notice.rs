//! What a client tells while it works.

use std::sync::Arc;

/// What a client tells while it works.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Something to be shown once, such as a credential helper that is missing.
    Warning(String),
    /// A request failed and is sent again.
    Retry {
        /// Who did not answer as hoped, and why.
        why: String,
        /// When it is sent again, in milliseconds from now.
        wait_ms: u64,
    },
}

/// Who is told [`Notice`]s. It must not block.
pub type Observer = Arc<dyn Fn(Notice) + Send + Sync>;
