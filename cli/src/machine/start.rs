//! How the helper machine is started, and how its failures are reported.

use crate::output::failure::Failure;
use hullbox_engine::artifacts::{self, Artifact};
use hullbox_engine::machine::{AgentSource, MachineConfig, MachineError, StartOptions};
use hullbox_engine::paths::Roots;
use std::io::{self, Write};

/// The failure of a command in the machine, with the exit code of the command line.
pub(super) fn failed(error: MachineError) -> Failure {
    let code = match &error {
        MachineError::Forward(error) => error.exit_code(),
        _ => None,
    };
    let failure = Failure::from(error);
    match code {
        Some(code) => failure.with_code(code),
        None => failure,
    }
}

/// What the machine is started with: its configuration, and the agent that this program carries.
pub(super) fn options(roots: &Roots, config: MachineConfig) -> Result<StartOptions, Failure> {
    let initramfs = artifacts::path(Artifact::Initramfs, &roots.data)?;
    Ok(StartOptions {
        config,
        agent: AgentSource::Initramfs(initramfs),
    })
}

/// One line when something takes a while.
pub(super) fn progress(text: &str) {
    // Progress that cannot be shown is no reason to fail.
    let _ = writeln!(io::stderr(), "hullbox: {text}");
}
