//! How much hard links may still bring from lower layers.

use crate::layer::LayerError;
use crate::limits::Limits;

/// Bytes that hard links may still bring from lower layers, for one image: each costs its author
/// a line and the host a copy.
#[derive(Debug)]
pub(crate) struct CopyBudget {
    left: u64,
    limit: u64,
}

impl CopyBudget {
    pub(crate) const fn new(limits: &Limits) -> Self {
        let limit = limits.max_linked_bytes;
        Self { left: limit, limit }
    }

    pub(super) fn take(&mut self, bytes: u64) -> Result<(), LayerError> {
        self.left = self.left.checked_sub(bytes).ok_or(LayerError::TooMany {
            what: "bytes that hard links bring from layers below",
            limit: self.limit,
        })?;
        Ok(())
    }
}
