//! Where the machine's host processes begin.

use crate::supervisor;
use hullbox_host::error::chain;
use std::ffi::OsString;
use std::process::ExitCode;

/// Entry of the machine's host processes: what follows [`crate::HIDDEN_COMMAND`] on the command line.
#[must_use]
pub fn hidden(args: &[OsString]) -> ExitCode {
    let result = match args.split_first() {
        Some((verb, [])) if verb == "supervise" => supervisor::run().map_err(Into::into),
        Some((verb, rest)) if verb == "child" => supervisor::child(rest),
        _ => Err("not a command of yours".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hullbox: {}", chain(error.as_ref()));
            ExitCode::from(125)
        }
    }
}
