//! A Hullbox process on its host: where its files are and who may use them, what its user
//! configured, what time it is, and the system calls that neither the standard library nor rustix
//! offers.
//!
//! Knows neither containers nor images: every other crate that runs on the host may use it.

pub mod clock;
pub mod config;
pub mod data_lock;
pub mod error;
pub mod paths;
pub mod place;
pub mod privileges;
pub mod sys;
pub mod timing;
pub mod vsock;
pub mod wait;
pub mod watch;
