//! The helper machine of one data directory: where its files are, and how it is.

use crate::error::MachineError;
use crate::plan::RuntimeFiles;
use crate::state::Record;
use hullbox_files::grant::Grant;
use hullbox_host::data_lock::DataLock;
use hullbox_host::paths::Roots;
use serde::Serialize;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const DISK_DIR: &str = "machine";

/// What the machine of a data directory may have of the host's files. The machine sees its own disk there.
pub(crate) fn grants_in(data: &Path) -> PathBuf {
    data.join(DISK_DIR).join("grants")
}

/// The helper machine of one data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub(crate) data: PathBuf,
    pub(crate) files: RuntimeFiles,
}

/// Whether a machine runs, and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// `running`, `starting` or `stopped`.
    pub state: &'static str,
    /// Its process on the host, when it runs.
    pub pid: Option<i32>,
    /// How long it has run, in seconds.
    pub uptime_s: Option<u64>,
    /// How long its start took, in milliseconds.
    pub start_ms: Option<u64>,
    /// Its memory, in MiB.
    pub memory_mib: Option<u32>,
    /// Its virtual CPUs.
    pub cpus: Option<u8>,
    /// Its kernel's release.
    pub kernel: Option<String>,
    /// Idle time until it stops, in seconds; 0 is never.
    pub idle_s: Option<u64>,
    /// What is written through, besides the data directory.
    pub volumes: Vec<PathBuf>,
    /// The data directory it stands for.
    pub data: PathBuf,
    /// Its console and its helpers' messages.
    pub log: PathBuf,
}

impl Machine {
    /// The machine of these directories, running or not.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        let name = format!("machine-{:016x}", fnv1a(roots.data.as_os_str().as_bytes()));
        Self {
            data: roots.data.clone(),
            files: RuntimeFiles::new(roots.runtime.join(name)),
        }
    }

    /// What the machine keeps on the host's disk.
    pub(crate) fn disk_dir(&self) -> PathBuf {
        self.data.join(DISK_DIR)
    }

    /// Lets the machine have files of the host, as long as its data directory lives: what was named in a
    /// command that is forwarded to it, before it is.
    ///
    /// # Errors
    /// They cannot be written down.
    pub fn grant(&self, grants: &[Grant]) -> Result<(), MachineError> {
        if grants.is_empty() {
            return Ok(());
        }
        let path = grants_in(&self.data);
        std::fs::create_dir_all(self.disk_dir())
            .and_then(|()| hullbox_files::grant::add(&path, grants))
            .map_err(|source| MachineError::Io { path, source })
    }

    /// Whether it runs, and what it is.
    #[must_use]
    pub fn status(&self) -> Status {
        let record = Record::load(&self.files).filter(|record| record.process().is_some());
        let state = match &record {
            None => "stopped",
            Some(record) if record.ready => "running",
            Some(_) => "starting",
        };
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        let get = record.as_ref();
        Status {
            state,
            pid: get.map(|r| r.pid),
            uptime_s: get.map(|r| now.saturating_sub(r.started_s)),
            start_ms: get.filter(|r| r.ready).map(|r| r.start_ms),
            memory_mib: get.map(|r| r.memory_mib),
            cpus: get.map(|r| r.cpus),
            kernel: get.map(|r| r.kernel.clone()),
            idle_s: get.map(|r| r.idle_s),
            volumes: get.map(|r| r.volumes.clone()).unwrap_or_default(),
            data: self.data.clone(),
            log: self.files.log(),
        }
    }
}

/// A name for a directory: short, and the same every time. Not against malice: the directories
/// are the user's own.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Holds a data directory for use without the machine, `None` while the machine has it.
///
/// # Errors
/// The lock cannot be used.
pub fn hold_directly(data: &Path) -> Result<Option<DataLock>, MachineError> {
    DataLock::try_shared(data).map_err(|source| MachineError::Io {
        path: DataLock::path(data),
        source,
    })
}
