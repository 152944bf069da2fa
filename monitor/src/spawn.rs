//! Starting a monitor.

use super::config::Config;
use super::config::send;
use hullbox_backend::factory::Prospect;
use hullbox_host::sys;
use hullbox_protocol::StreamSet;
use hullbox_session::direct::Descriptors;
use hullbox_state::LifeLock;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// The hidden argument that makes the program a monitor.
pub const ENTRY: &str = "__monitor";

/// A monitor that waits for its orders. Dropped without any, it ends and has done nothing.
#[derive(Debug)]
pub struct Waiting {
    connection: UnixStream,
    process: Child,
}

/// A monitor at work and the connection to it, on which frames follow.
#[derive(Debug)]
pub struct Monitor {
    /// Speaks frames.
    pub connection: OwnedFd,
    /// To wait for its end.
    pub process: Child,
    /// Streams of the workload that do not travel on the connection.
    pub direct: StreamSet,
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

/// Starts a monitor. It is started before there is a container, because a process takes its time
/// to start, during which the image can be looked up.
///
/// # Errors
/// [`SpawnError::Start`].
pub fn spawn(
    id: &str,
    lock: &LifeLock,
    prospect: &Prospect,
    talks: bool,
) -> Result<Waiting, SpawnError> {
    let (connection, theirs) = UnixStream::pair().map_err(SpawnError::Start)?;
    // It waits in the socket until there is somebody to read it.
    send(prospect, &Descriptors::default(), &connection).map_err(SpawnError::Start)?;
    // Everything this program opens is close-on-exec; what it was started with may not be.
    sys::set_cloexec_from_3().map_err(SpawnError::Start)?;
    // With nothing else to arrange in the child the C library can start it without copying this
    // process's memory. So it changes its directory itself.
    let process = Command::new("/proc/self/exe")
        .arg0("hullbox")
        .arg(ENTRY)
        .arg(hullbox_host::paths::short_id(id))
        .env_clear()
        .envs(
            std::env::vars_os()
                .filter(|(name, _)| name.to_str().is_some_and(|name| PASSED_ON.contains(&name))),
        )
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::from(lock.share().map_err(SpawnError::Start)?))
        .stderr(if talks {
            Stdio::inherit()
        } else {
            Stdio::null()
        })
        .spawn()
        .map_err(SpawnError::Start)?;
    Ok(Waiting {
        connection,
        process,
    })
}

impl Waiting {
    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Tells the monitor what to do. The descriptors are those of [`Config::streams`].
    ///
    /// # Errors
    /// [`SpawnError::Orders`].
    pub fn order(self, config: &Config, descriptors: &Descriptors) -> Result<Monitor, SpawnError> {
        send(config, descriptors, &self.connection).map_err(SpawnError::Orders)?;
        Ok(Monitor {
            connection: self.connection.into(),
            process: self.process,
            direct: config.streams,
        })
    }
}

/// The only variables that a monitor gets: where the boot files are when not in the program.
const PASSED_ON: [&str; 4] = [
    "HULLBOX_KERNEL",
    "HULLBOX_INITRAMFS",
    "HULLBOX_EMPTY_DISK",
    "RUST_BACKTRACE",
];
