//! A monitor's orders and how they travel: first what is known at once, then all of it.

use crate::bundle::Bundle;
use crate::paths::Roots;
use crate::plan::GuestSize;
use crate::plan::life::Life;
use crate::templates::Policy;
use crate::timing::Timing;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;

/// Longest encoding of a [`Config`], in bytes: a `Setup`, an `Exec`, and paths.
const MAX_LEN: usize = 3 * hullbox_protocol::MAX_PAYLOAD;

/// What a monitor is told as it starts, so that it can prepare.
#[derive(Debug, Serialize, Deserialize)]
pub struct Prospect {
    /// The guest there will be, if there will be one.
    pub guest: Option<GuestSize>,
    /// The snapshot that the guest goes on from, if it does.
    pub snapshot: Option<PathBuf>,
    /// The data directory.
    pub data: PathBuf,
    /// Whether the guest may begin at a template.
    pub templates: Policy,
    /// Collects what takes how long, for the one who starts it.
    pub timing: Timing,
}

/// Who starts a container, and what that means for the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// `run`: attached to the workload's streams, and the container ends with it.
    Foreground,
    /// `start -a`: attached, and the container does not mind when it goes.
    Attached {
        /// To standard input too.
        stdin: bool,
    },
    /// `run -d`, `start`: leaves when the workload runs.
    Detached,
    /// Attached, and the workload is not the container's own but an errand in its root, of which
    /// nothing is recorded.
    Errand,
}

/// What a monitor is told.
#[derive(Debug, Serialize, Deserialize)]
pub struct Config {
    /// The container to start.
    pub bundle: Bundle,
    /// The data directory.
    pub data: PathBuf,
    /// The runtime directory.
    pub runtime: PathBuf,
    /// Who the one who gives these orders is.
    pub mode: Mode,
    /// What events say about the container: `name`, `image` and its labels.
    pub about: BTreeMap<String, String>,
    /// See [`Life`].
    pub life: Life,
    /// Removed when it has ended: no restarts, and no log without a reader.
    pub auto_remove: bool,
    /// What `stop` sends first.
    pub stop_signal: u8,
    /// Show what goes on inside on standard error.
    pub debug: bool,
}

impl Config {
    pub(super) fn roots(&self) -> Roots {
        Roots {
            data: self.data.clone(),
            runtime: self.runtime.clone(),
        }
    }
}

/// Sends one of the above.
pub(super) fn send(message: &impl Serialize, mut to: impl Write) -> io::Result<()> {
    let body = postcard::to_allocvec(message).map_err(io::Error::other)?;
    let len = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= MAX_LEN)
        .ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
    to.write_all(&len.to_le_bytes())?;
    to.write_all(&body)
}

/// Receives one of the above. `None` when the sender thought better of it.
pub(super) fn receive<T: DeserializeOwned>(mut from: impl Read) -> io::Result<Option<T>> {
    let mut len = [0; 4];
    match from.read_exact(&mut len) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let len = usize::try_from(u32::from_le_bytes(len)).unwrap_or(usize::MAX);
    if len > MAX_LEN {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    let mut body = vec![0; len];
    from.read_exact(&mut body)?;
    postcard::from_bytes(&body)
        .map(Some)
        .map_err(io::Error::other)
}
