//! A monitor's orders and how they travel: first what is known at once, then all of it.

use hullbox_backend::bundle::Bundle;
use hullbox_host::paths::Roots;
use hullbox_plan::life::Life;
use hullbox_protocol::StreamSet;
use hullbox_session::direct::{Descriptors, Received, receive_with, send_with};
use rustix::io::retry_on_intr;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Longest encoding of a [`Config`], in bytes: a `Setup`, an `Exec`, and paths.
const MAX_LEN: usize = 3 * hullbox_protocol::MAX_PAYLOAD;

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

/// A monitor's orders.
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
    /// The container's attributes in events: `name`, `image` and its labels.
    pub about: BTreeMap<String, String>,
    /// See [`Life`].
    pub life: Life,
    /// Removed when it has ended: no restarts, and no log without a reader.
    pub auto_remove: bool,
    /// What `stop` sends first.
    pub stop_signal: u8,
    /// Show what goes on inside on standard error.
    pub debug: bool,
    /// Streams of the workload whose other ends come with these orders.
    pub streams: StreamSet,
}

impl Config {
    /// Whether the workload's output is logged. What somebody who is there reads and nobody could
    /// read later is not.
    pub(crate) fn keeps_log(&self) -> bool {
        self.life.log.keep
            && self.mode != Mode::Errand
            && !(self.auto_remove && self.mode == Mode::Foreground)
    }

    /// Whether the workload's streams may be joined to its starter's without frames: nobody else
    /// has a use for them.
    #[must_use]
    pub fn may_be_direct(&self) -> bool {
        self.mode == Mode::Foreground
            && self.auto_remove
            && !self.keeps_log()
            && self.bundle.process.terminal.is_none()
            && !self.bundle.setup.access.runs_systemd
    }

    pub(super) fn roots(&self) -> Roots {
        Roots {
            data: self.data.clone(),
            runtime: self.runtime.clone(),
        }
    }
}

/// Sends one of the above, and descriptors along with it.
pub(super) fn send(
    message: &impl Serialize,
    descriptors: &Descriptors,
    mut to: &UnixStream,
) -> io::Result<()> {
    let body = postcard::to_allocvec(message).map_err(io::Error::other)?;
    let len = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= MAX_LEN)
        .ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let len = len.to_le_bytes();
    // So short a message is not cut.
    let sent = match descriptors.streams().is_empty() {
        true => 0,
        false => send_with(to.as_fd(), &len, descriptors)?,
    };
    to.write_all(len.get(sent..).unwrap_or_default())?;
    to.write_all(&body)
}

/// Receives one of the above, and the descriptors that came along. `None` when the sender thought
/// better of it.
pub(super) fn receive<T: DeserializeOwned>(
    mut from: &UnixStream,
) -> io::Result<Option<(T, Received)>> {
    let mut len = [0; 4];
    let mut descriptors = Received::new();
    let begun = retry_on_intr(|| receive_with(from.as_fd(), &mut len, &mut descriptors))?;
    if begun == 0 {
        return Ok(None);
    }
    from.read_exact(len.get_mut(begun..).unwrap_or_default())?;
    let len = usize::try_from(u32::from_le_bytes(len)).unwrap_or(usize::MAX);
    if len > MAX_LEN {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    let mut body = vec![0; len];
    from.read_exact(&mut body)?;
    postcard::from_bytes(&body)
        .map(|message| Some((message, descriptors)))
        .map_err(io::Error::other)
}
