//! Commands on images.

pub(crate) mod history;
pub(crate) mod list;
pub(crate) mod load;
mod progress;
pub(crate) mod prune;
pub(crate) mod save;
pub(crate) mod tag;
