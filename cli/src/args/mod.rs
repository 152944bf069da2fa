//! What can be typed. Definitions only: what is done with them is the business of the commands'
//! modules, which use these and are used by none of them.
//!
//! [`command`] is the tree of commands, the other modules have the arguments of each. [`parse`]
//! makes the tree of a command line, or one clear line for what does not parse.

pub(crate) mod bench;
mod bool_flag;
pub(crate) mod command;
pub(crate) mod container;
pub(crate) mod filters;
pub(crate) mod forwarded;
pub(crate) mod health;
pub(crate) mod image;
mod in_machine;
pub(crate) mod mounts;
pub(crate) mod network;
pub(crate) mod parse;
pub(crate) mod registry;
pub(crate) mod run;
pub(crate) mod system;
pub(crate) mod values;
pub(crate) mod volume;
