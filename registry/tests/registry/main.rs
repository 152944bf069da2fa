//! The client against registries: one of the tests' own that does what registries should not, and
//! Debian's `docker-registry`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod auth;
mod blobs;
mod debian;
mod fake;
mod fixture;
mod mirrors;
mod policy;
mod proxies;
mod push;
mod resolve;
mod transport;
