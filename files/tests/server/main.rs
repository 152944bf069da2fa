//! The process itself, started as a monitor starts it, and talked to as a guest's kernel does: this program
//! is `hullbox __files` when it is told so.
//!
//! Needs root for most of it; says so and passes elsewhere.
#![forbid(unsafe_code)]

mod client;
mod files;

use std::ffi::OsString;
use std::process::ExitCode;

type Case = (&'static str, fn() -> anyhow::Result<()>);

const CASES: &[Case] = &[(
    "files::files_are_read_and_written",
    files::files_are_read_and_written,
)];

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if args
        .first()
        .is_some_and(|word| word == hullbox_files::ENTRY)
    {
        return hullbox_files::main(&args[1..]);
    }
    let words: Vec<_> = args.iter().filter_map(|word| word.to_str()).collect();
    let wanted = words.iter().find(|word| !word.starts_with('-'));
    if words.contains(&"--list") {
        for (name, _) in CASES {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for (name, case) in CASES {
        if wanted.is_some_and(|wanted| !name.contains(*wanted)) {
            continue;
        }
        let outcome = case();
        println!(
            "test {name} ... {}",
            if outcome.is_ok() { "ok" } else { "FAILED" }
        );
        if let Err(error) = outcome {
            println!("  {error:?}");
            failed += 1;
        }
    }
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
