//! The `hullbox` program: what is typed, what is printed, and the exit code.
#![forbid(unsafe_code)]

mod app;
mod bench;
mod cidfile;
mod completions;
mod container_args;
mod containers;
mod entry;
mod exec;
mod failure;
mod files;
mod forward;
mod housekeeping;
mod image_args;
mod image_store;
mod images;
mod inspect;
mod join;
mod life_args;
mod lifecycle;
mod logs;
mod output;
mod output_file;
mod run;
mod run_args;
mod snapshots;
mod system;
mod template;
mod templates;
mod text;
mod timing;
mod usage;
mod watch;

fn main() -> std::process::ExitCode {
    entry::main()
}
