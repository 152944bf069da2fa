//! What a container may do to the kernel that it runs on: the options as they are typed
//! ([`options`]), capabilities and devices by name, and filters of system calls ([`seccomp`]).
//!
//! Decides and compiles; whoever starts the container applies it.
#![forbid(unsafe_code)]

pub mod caps;
pub mod devices;
pub mod options;
pub mod seccomp;
