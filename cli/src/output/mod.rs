//! What is printed: results in the form that `--format` asks for, failures, and output files.

pub(crate) mod confirm;
pub(crate) mod failure;
pub(crate) mod file;
pub(crate) mod format;
pub(crate) mod stdout;
pub(crate) mod template;
pub(crate) mod text;
