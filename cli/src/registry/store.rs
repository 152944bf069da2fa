//! The image store as an end of transfers: this process's own, or that of the helper machine, which a
//! process of this program in the machine gives and takes for ([`serve`]).

use crate::machine::forward::{self, Place};
use crate::output::failure::{FAILED, Failure};
use hullbox_engine::machine::DataLock;
use hullbox_engine::paths::Roots;
use hullbox_engine::registry::{self, LocalStore, Origin, Remote, Target, TransferError};
use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

/// The hidden command that is the store's side.
pub(crate) const ENTRY: &str = "__images";

/// An image store.
pub(super) struct StoreEnd {
    pub(super) target: Arc<dyn Target>,
    pub(super) origin: Arc<dyn Origin>,
    /// Held to the end: while it is, no helper machine takes the data directory.
    _lock: Option<DataLock>,
    /// The other side, in the helper machine.
    process: Option<Child>,
}

impl StoreEnd {
    /// The store that commands use: in the helper machine if the policy says so.
    pub(super) fn open() -> Result<Self, Failure> {
        match forward::place()? {
            Place::Here(lock) => Self::here(lock),
            Place::Machine => Self::in_the_machine(),
        }
    }

    /// The store of this process.
    pub(super) fn here(lock: Option<DataLock>) -> Result<Self, Failure> {
        let store = Arc::new(LocalStore::open(Roots::from_env()?)?);
        Ok(Self {
            target: Arc::clone(&store) as Arc<dyn Target>,
            origin: store,
            _lock: lock,
            process: None,
        })
    }

    /// The store of the helper machine, which is started if need be.
    pub(super) fn in_the_machine() -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::of("cannot reach the helper machine", &error);
        let mut process = Command::new("/proc/self/exe")
            .arg(ENTRY)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let broken = || failed(io::ErrorKind::BrokenPipe.into());
        let reader = process.stdout.take().ok_or_else(broken)?;
        let writer = process.stdin.take().ok_or_else(broken)?;
        let remote = Arc::new(Remote::new(reader, writer).map_err(failed)?);
        Ok(Self {
            target: Arc::clone(&remote) as Arc<dyn Target>,
            origin: remote,
            _lock: None,
            process: Some(process),
        })
    }

    /// Ends the connection, and gives what a transfer came to. The other side's own message explains more
    /// than a connection that broke off.
    pub(super) fn end<T>(self, done: Result<T, TransferError>) -> Result<T, Failure> {
        let Self {
            target,
            origin,
            process,
            ..
        } = self;
        drop((target, origin));
        let is_broken = matches!(done, Err(TransferError::End(registry::EndError::Broken)));
        let is_well = match process {
            Some(mut process) => {
                if done.is_err() && !is_broken {
                    // It may wait for another command's download. What it holds is sound at any time.
                    let _ = process.kill();
                }
                process.wait().is_ok_and(|status| status.success())
            }
            None => true,
        };
        if is_broken && !is_well {
            return Err(Failure::silent(FAILED));
        }
        done.map_err(super::failed)
    }
}

/// `__images`: the store's side, on standard input and output.
pub(crate) fn serve() -> Result<u8, Failure> {
    let store = LocalStore::open(Roots::from_env()?)?;
    let mut stdin = io::BufReader::with_capacity(1 << 18, io::stdin());
    registry::serve(&store, &mut stdin, io::stdout())
        .map_err(|error| Failure::of("the connection of a transfer failed", &error))?;
    Ok(0)
}
