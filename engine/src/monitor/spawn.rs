//! Starting a monitor.

use super::Config;
use crate::state::LifeLock;
use crate::sys;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// A monitor and the connection to it, on which frames follow.
#[derive(Debug)]
pub struct Monitor {
    /// Speaks frames.
    pub connection: OwnedFd,
    /// To wait for its end, after which nothing of a container that is not kept is left.
    pub process: Child,
}

/// Why there is no monitor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// No socket pair, no process.
    #[error("cannot start the monitor process")]
    Start(#[source] io::Error),
    /// It died before it had read its orders.
    #[error("cannot give the monitor its orders")]
    Orders(#[source] io::Error),
}

/// Starts the monitor of a container whose lock the caller holds, and hands the lock over.
///
/// # Errors
/// [`SpawnError`]; the lock is free then, and the container's record for [`crate::state::State::recover`].
pub fn spawn(config: &Config, lock: LifeLock) -> Result<Monitor, SpawnError> {
    let (ours, theirs) = UnixStream::pair().map_err(SpawnError::Start)?;
    // Everything this program opens is close-on-exec; what it was started with may not be.
    sys::set_cloexec_from_3().map_err(SpawnError::Start)?;
    let talks = config.debug || config.timing.is_on();
    let process = Command::new("/proc/self/exe")
        .arg0("hullbox")
        .arg(super::ENTRY)
        .arg(crate::paths::short_id(&config.bundle.id))
        .env_clear()
        .envs(
            std::env::vars_os()
                .filter(|(name, _)| name.to_str().is_some_and(|name| PASSED_ON.contains(&name))),
        )
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::from(lock.into_file()))
        .stderr(if talks {
            Stdio::inherit()
        } else {
            Stdio::null()
        })
        .spawn()
        .map_err(SpawnError::Start)?;
    config.write_to(&ours).map_err(SpawnError::Orders)?;
    Ok(Monitor {
        connection: ours.into(),
        process,
    })
}

/// The only variables that a monitor gets: where the boot files are when not in the program.
const PASSED_ON: [&str; 4] = [
    "HULLBOX_KERNEL",
    "HULLBOX_INITRAMFS",
    "HULLBOX_EMPTY_DISK",
    "RUST_BACKTRACE",
];
