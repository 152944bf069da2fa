//! Guest memory.

/// Why guest memory could not be arranged.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host refused a mapping.
    #[error("the host refused to map it")]
    Map(#[source] std::io::Error),
}
