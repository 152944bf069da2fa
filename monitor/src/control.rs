//! What other processes ask of a monitor on its control socket, and the answers.
//!
//! Both travel as [`Frame::Local`]. The first frame of a client is a [`Command`]; after `Attach`
//! and `Exec` the frames of session 0 follow in both directions, for the workload or for the new
//! process, and `Detach` may. Everything else is answered once, and the connection closed, but for
//! `Hold`. Before that comes [`Answer::Acknowledged`], at once: where it does not come the monitor
//! does not answer, however long the command itself may take.

pub use hullbox_backend::backend::VmUsage;
use hullbox_backend::network::Membership;
use hullbox_host::timing::{Marks, Timing};
use hullbox_model::container::Refused;
use hullbox_model::exec::ExecInspect;
use hullbox_plan::life::Restart;
use hullbox_protocol::{
    Frame, Interface, MAX_PAYLOAD, NameFiles, ProcessInfo, ProcessSpec, Request, StreamSet, Usage,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::path::{Path, PathBuf};

/// Where a container's monitor listens.
#[must_use]
pub fn socket_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("control")
}

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Command {
    /// Join the workload's standard streams.
    Attach {
        /// Its input too.
        stdin: bool,
    },
    /// Run a process beside the workload.
    Exec {
        /// What.
        spec: Box<ProcessSpec>,
        /// Close the connection as soon as it runs.
        detach: bool,
        /// Collects what takes how long, to be answered before the end.
        timing: Timing,
        /// Streams of it that do not travel on this connection. Their other ends follow, when the
        /// command was acknowledged ([`Frame::Descriptors`]): a monitor that does not answer must
        /// not hold them.
        streams: StreamSet,
    },
    /// Make a process beside the workload that is not started yet: [`Answer::Made`].
    ExecCreate {
        /// What.
        spec: Box<ProcessSpec>,
    },
    /// Start one that was made; goes on as `Exec` does.
    ExecStart {
        /// Its id.
        id: String,
        /// Close the connection as soon as it runs.
        detach: bool,
        /// Collects what takes how long, to be answered before the end.
        timing: Timing,
    },
    /// What is known of processes beside the workload: [`Answer::Execs`].
    Execs,
    /// After `Attach`, `Exec` or `ExecStart`, or from whoever started the container: leave, and let the
    /// process run on. As a first frame it only ends the connection.
    Detach,
    /// Send a signal to the workload.
    Signal(u8),
    /// Send a signal, and SIGKILL if that does not end it in time. Answered when it has ended.
    Stop {
        /// The first signal.
        signal: u8,
        /// How long to wait; `None` is for ever.
        timeout_ms: Option<u64>,
    },
    /// Pass a request to the workload's side.
    Ask(Request),
    /// Freeze the workload for as long as this connection is open: who asks for it may be killed.
    Hold,
    /// Save the container as a snapshot.
    Save {
        /// Into this empty directory.
        dir: PathBuf,
        /// A [`hullbox_backend::saving::Description`], as JSON.
        about: String,
    },
    /// Put the container into one more network.
    Connect {
        /// Which; none is a network of its own.
        membership: Option<Box<Membership>>,
        /// The interface that it gets there; its name is the next that is free.
        interface: Box<Interface>,
        /// What it is to know of its networks' names then.
        names: Box<NameFiles>,
    },
    /// Take it out of a network.
    Disconnect {
        /// The network's id; none is its own.
        network: Option<String>,
        /// What it is to know of its networks' names then.
        names: Box<NameFiles>,
    },
    /// What its networks have refused it: [`Answer::Refused`].
    Refused,
    /// Replace the restart policy.
    SetRestart(Restart),
    /// It has another name now.
    SetName {
        /// This one.
        name: String,
        /// The names under which others find it in its networks, by their ids.
        dns: Vec<(String, Vec<String>)>,
    },
    /// Nothing: answered when the container has ended.
    Watch,
}

/// What is answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answer {
    /// The command has arrived; its answer follows.
    Acknowledged,
    /// It is done.
    Done,
    /// It cannot be done: why, in one line.
    Failed(String),
    /// To [`Request::Usage`].
    Usage(Box<Usage>, Option<VmUsage>),
    /// To [`Request::Processes`].
    Processes(Vec<ProcessInfo>),
    /// To [`Command::ExecCreate`]: the id.
    Made(String),
    /// To [`Command::Execs`]: a list of [`hullbox_model::exec::ExecInspect`], as JSON.
    Execs(String),
    /// To [`Command::Refused`]: a [`hullbox_model::container::Refused`], as JSON.
    Refused(String),
    /// To [`Command::Watch`]: the exit code.
    Ended(u8),
    /// What took how long, for who asked with the command; the answer itself follows.
    Timing(Marks),
}

impl Command {
    /// Whether descriptors follow before it can be obeyed.
    pub(super) fn awaits_descriptors(&self) -> bool {
        matches!(self, Self::Exec { streams, .. } if !streams.is_empty())
    }

    /// Whether its client stays connected for as long as something in the container takes.
    pub(super) const fn stays(&self) -> bool {
        matches!(
            self,
            Self::Attach { .. }
                | Self::Exec { .. }
                | Self::ExecStart { .. }
                | Self::Ask(_)
                | Self::Connect { .. }
                | Self::Disconnect { .. }
                | Self::Hold
                | Self::Save { .. }
                | Self::Watch
        )
    }
}

impl Answer {
    /// What a container was refused: much less than an answer holds.
    pub(super) fn of_refused(refused: &Refused) -> Self {
        Self::Refused(serde_json::to_string(refused).unwrap_or_default())
    }

    /// As many of them as an answer holds, the newest ones.
    pub(super) fn of_execs(mut all: Vec<ExecInspect>) -> Self {
        loop {
            let text = serde_json::to_string(&all).unwrap_or_default();
            if text.len() < MAX_PAYLOAD - 16 {
                return Self::Execs(text);
            }
            all.drain(..all.len().div_ceil(4));
        }
    }
}

/// A message as a frame.
///
/// # Errors
/// It is too long to be one.
pub fn to_frame<T: Serialize>(message: &T) -> Result<Frame, postcard::Error> {
    postcard::to_allocvec(message).map(Frame::Local)
}

/// The message in a frame, if it is one.
#[must_use]
pub fn from_frame<T: DeserializeOwned>(frame: &Frame) -> Option<T> {
    match frame {
        Frame::Local(bytes) => postcard::from_bytes(bytes).ok(),
        _ => None,
    }
}
