//! The helper machine: which commands it runs instead of this process, and its own commands.

pub(crate) mod commands;
pub(crate) mod forward;
mod host_files;
mod id_file;
mod images;
mod start;
mod streams;
