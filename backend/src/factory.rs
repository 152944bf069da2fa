//! Where a monitor gets its backend from.

use crate::backend::Backend;
use crate::bundle::{Bundle, GuestSize};
use hullbox_host::timing::Timing;
use hullbox_protocol::Failure;
use hullbox_session::direct::Descriptors;
use serde::{Deserialize, Serialize};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

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
    pub templates: bool,
    /// Collects what takes how long, for the one who starts it.
    pub timing: Timing,
}

/// What a backend is started with, besides its bundle.
#[derive(Debug)]
pub struct Start<'a> {
    /// The data directory.
    pub data: &'a Path,
    /// Holds the container's lock: whoever inherits it keeps the container alive.
    pub lock: BorrowedFd<'a>,
    /// The other ends of streams of the workload, for a backend whose connection takes descriptors.
    pub streams: Descriptors,
    /// Show on standard error what the guest's kernel writes.
    pub debug: bool,
    /// Collects what takes how long.
    pub timing: &'a Timing,
}

/// Makes the backends of one monitor.
pub trait Factory {
    /// Prepares what does not depend on the bundle. Called once, before anything else; what goes
    /// wrong here is told by [`Self::start`].
    fn prepare(&self, prospect: &Prospect);

    /// Starts a container. The first call uses what was prepared; another one, for a restart, begins
    /// in the same way. Fills in what the bundle leaves to its backend.
    ///
    /// # Errors
    /// What the container's clients are told.
    fn start(&self, bundle: &mut Bundle, start: Start<'_>) -> Result<Box<dyn Backend>, Failure>;

    /// The last run has ended, and clients have been told: time for what later containers gain by.
    /// `found_useless_template` is [`Backend::found_useless_template`] of any of the runs.
    fn finish(&self, found_useless_template: bool);
}
