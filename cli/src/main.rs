//! The `hullbox` program: what is typed, what is printed, and the exit code.
#![forbid(unsafe_code)]

mod app;
mod containers;
mod cp;
mod entry;
mod failure;
mod forward;
mod image_args;
mod image_store;
mod images;
mod inspect;
mod output;
mod output_file;
mod run;
mod run_args;
mod system;
mod template;
mod text;
mod usage;

fn main() -> std::process::ExitCode {
    entry::main()
}
