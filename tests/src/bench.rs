//! What the benchmarks share.

use anyhow::{Result, ensure};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Runs a command that is expected to succeed and whose output nobody wants.
///
/// # Errors
/// It cannot be run, or fails: then with what it said.
pub fn quiet(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Whether there is a program of this name.
#[must_use]
pub fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Everybody's turn, in an order of its own for each round: what one leaves to be done after its turn
/// must not always meet the same other one.
pub fn turns<T>(contenders: &mut [T]) -> impl Iterator<Item = &mut T> {
    let mut order: Vec<_> = contenders.iter_mut().collect();
    fastrand::shuffle(&mut order);
    order.into_iter()
}

/// The one in the middle; sorts them.
#[must_use]
pub fn median(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}
