//! System calls that the standard library and rustix do not offer, in safe wrappers.
//!
//! The engine's only `unsafe` code, apart from what a dependency does.

pub mod container;

pub use hullbox_host::sys::*;
