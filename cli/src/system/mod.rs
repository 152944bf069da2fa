//! Commands on the whole installation, or on objects of any kind.

pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod egress;
pub(crate) mod events;
pub(crate) mod housekeeping;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod templates;
