//! What a container, an image, an event, a log line and a filter is: plain data in the shape of
//! Docker's API, for every front end. The engine fills it; a front end prints it. No I/O here.
#![forbid(unsafe_code)]

pub mod container;
pub mod digest;
pub mod event;
pub mod exec;
pub mod filter;
pub mod health;
pub mod image;
pub mod isolation;
pub mod log;
pub mod network;
pub mod stats;
pub mod system;
pub mod time;
pub mod value;
pub mod volume;
