//! What runs on the workload's side and what was asked of it.

use crate::monitor::rules::Said;
use crate::monitor::streams::{Input, Shared};
use crate::timing::Timing;
use hullbox_backend::saving::Description;
use hullbox_protocol::CgroupLimits;
use std::path::PathBuf;
use std::time::Instant;

/// The workload.
#[derive(Debug, Default)]
pub(super) struct Workload {
    pub(super) said: Said,
    /// The workload's side has said who it is.
    pub(super) greeted: bool,
    pub(super) spoke: bool,
    pub(super) outputs: [Shared; 2],
    pub(super) input: Input,
    /// Streams of it go to whoever started it without coming by here.
    pub(super) direct: bool,
}

/// Whose a process beside the workload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// A client's that is told of everything.
    Client(u64),
    /// A client's that leaves when it runs.
    Leaving(u64),
    /// Nobody's: what it says is dropped.
    Nobody,
    /// The health check's.
    Health,
}

/// A process beside the workload.
#[derive(Debug)]
pub(super) struct Exec {
    pub(super) session: u32,
    /// Under which it is remembered, if it is.
    pub(super) id: Option<String>,
    pub(super) owner: Owner,
    pub(super) said: Said,
    pub(super) spoke: bool,
    pub(super) outputs: [Shared; 2],
    /// Input that it takes, and that its client was not told of yet, in bytes.
    pub(super) credit: u32,
    /// For its client.
    pub(super) timing: Timing,
}

impl Exec {
    /// One that is asked for just now.
    pub(super) fn new(session: u32, owner: Owner) -> Self {
        Self {
            session,
            id: None,
            owner,
            said: Said::default(),
            spoke: false,
            credit: 0,
            outputs: [Shared::default(); 2],
            timing: Timing::default(),
        }
    }
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) number: u32,
    pub(super) client: Option<u64>,
    /// When it succeeds, the container is paused, or no longer.
    pub(super) pauses: Option<bool>,
    /// It stays so only while the client is there.
    pub(super) holds: bool,
    /// When it succeeds, these are the limits.
    pub(super) limits: Option<CgroupLimits>,
    /// What is to be done once the workload's side is at rest.
    pub(super) save: Option<Save>,
    /// When its client has waited long enough.
    pub(super) due: Option<Instant>,
}

/// A snapshot to be made.
#[derive(Debug)]
pub(super) struct Save {
    pub(super) dir: PathBuf,
    pub(super) about: Description,
}
