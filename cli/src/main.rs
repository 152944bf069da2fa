//! The `hullbox` program: what is typed, what is printed, and the exit code.
//!
//! ```text
//! main ─► entry ─┬─► args        what can be typed; parses it, and knows nothing of what it does
//!                ├─► machine     which commands the helper machine runs, and how
//!                └─► containers, images, networks, registry, system      what each command does
//!                         └─► engine, output          opening the engine; printing and failing
//! ```
#![forbid(unsafe_code)]

mod args;
mod containers;
mod engine;
mod entry;
mod images;
mod machine;
mod networks;
mod output;
mod registry;
mod system;
mod volumes;

fn main() -> std::process::ExitCode {
    entry::main()
}
