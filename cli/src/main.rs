//! The `hullbox` program: what is typed, what is printed, and the exit code.
#![forbid(unsafe_code)]

mod app;
mod containers;
mod entry;
mod failure;
mod forward;
mod images;
mod inspect;
mod output;
mod run;
mod run_args;
mod system;
mod template;
mod text;
mod usage;

fn main() -> std::process::ExitCode {
    entry::main()
}
