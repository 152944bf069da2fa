//! The network against Linux's own stack, in network namespaces of each test's own.
//!
//! Needs root, /dev/net/tun and iproute2; says so and passes elsewhere.
#![forbid(unsafe_code)]
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod adversary;
mod bed;
mod by_name;
mod datagrams;
mod hostile;
mod many;
mod members;
mod names;
mod policy;
mod published;
mod rates;
mod raw;
mod relay;
mod tcp;
mod traffic;
