//! Opening the engine for a command.

use crate::output::failure::{Failure, chain};
use hullbox_engine::containers::Engine;
use hullbox_engine::paths::Roots;
use std::io::{self, Write};

/// The engine on the directories that the environment names.
///
/// # Errors
/// The directories cannot be determined, or as of [`open_at`].
pub(crate) fn open() -> Result<Engine, Failure> {
    open_at(Roots::from_env()?)
}

/// The engine on these directories. What a killed container has left and cannot be cleaned up is a
/// warning: the command at hand may have nothing to do with it.
///
/// # Errors
/// The engine cannot be opened.
pub(crate) fn open_at(roots: Roots) -> Result<Engine, Failure> {
    let engine = Engine::open(roots)?;
    if let Some(error) = engine.unfinished() {
        let warning = format!(
            "hullbox: warning: cannot clean up after a killed container: {}\n",
            chain(error)
        );
        // A warning that cannot be written is no reason to fail.
        let _ = io::stderr().write_all(warning.as_bytes());
    }
    Ok(engine)
}
