//! What both isolation backends start, a [`bundle::Bundle`], and what a monitor asks of either, a
//! [`backend::Backend`]. The backends themselves are the crates `microvm` and `ns`.
#![forbid(unsafe_code)]

pub mod backend;
pub mod bundle;
pub mod factory;
pub mod mount;
pub mod network;
pub mod saving;
