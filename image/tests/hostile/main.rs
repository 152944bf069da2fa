//! Hostile images, by the rows of the hardening plan. Every one gives one clear error, leaves the
//! store as it was to the byte, and a canary beside it untouched.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod bed;
#[path = "../common/mod.rs"]
mod common;
mod documents;
mod layers;
mod sizes;
