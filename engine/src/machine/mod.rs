//! The helper machine: one long-lived VM in which KVM really works, for hosts on which it does not.
//!
//! ```text
//! host                                         machine (QEMU, emulated CPU with SVM)
//!   hullbox run … ── exec ──► v (Unix socket) ══ vsock ══► agent ─► hullbox run …  (KVM)
//!   supervisor ─┬─ vsock backend
//!               ├─ share: the host's root, read-only below the machine
//!               └─ QEMU: data.ext4 is the machine's data directory
//! ```
//!
//! A machine belongs to one data directory, and holds it while it runs ([`DataLock`]). Commands go
//! in whole: the same program, with the same arguments, environment, directory and standard
//! streams. What it writes outside the data directory and named volumes is gone when it stops.
//!
//! The agent's part is described in `guest-agent/src/machine.rs`.

mod config;
mod connect;
mod cpio;
mod disk;
mod forward;
mod initramfs;
mod kernel;
mod log;
mod modules;
mod plan;
mod policy;
mod qemu;
mod share;
mod start;
mod state;
mod supervisor;
mod tsc;
mod version;
mod vsock;

pub use crate::data_lock::DataLock;
pub use config::{ConfigError, MachineConfig, POLICY_VARIABLE, Policy};
pub use connect::ConnectError;
pub use disk::DiskError;
pub use forward::{ForwardError, Session, Terminal};
pub use initramfs::{AgentSource, InitramfsError};
pub use kernel::{KernelError, MachineKernel, find as find_kernel};
pub use modules::{ModuleError, ModuleTree};
pub use plan::find_program;
pub use policy::{KvmVerdict, Route, kvm_verdict, route};
pub use qemu::Qemu;
pub use start::StartOptions;

use crate::paths::{PathError, Roots};
use plan::RuntimeFiles;
use serde::Serialize;
use state::Record;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The hidden command with which the program runs the machine's host processes. Whoever uses this
/// library must pass what follows it on the command line to [`hidden`].
pub const HIDDEN_COMMAND: &str = "__machine";

/// The helper machine of one data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    data: PathBuf,
    files: RuntimeFiles,
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

/// Why the machine cannot do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// QEMU is missing.
    #[error("QEMU was not found; install the package qemu-system-x86")]
    NoQemu,
    /// What should be QEMU does not run.
    #[error("{} does not say which version of QEMU it is", .0.display())]
    NotQemu(PathBuf),
    /// A Unix socket's path would be too long.
    #[error(
        "the path {} is too long for a socket; set HULLBOX_RUNTIME to a shorter directory",
        .0.display()
    )]
    LongPath(PathBuf),
    /// Another program holds the data directory's lock.
    #[error("the data directory is held by a helper machine that neither answers nor ends")]
    Held,
    /// Containers run without the machine on the same data.
    #[error(
        "containers are running on this data directory without the helper machine; \
         stop them first, or set HULLBOX_ROOT to another directory"
    )]
    DirectlyUsed,
    /// It did not come up.
    #[error("the helper machine did not come up: {reason} (log: {})", log.display())]
    NotUp {
        /// In its own words.
        reason: String,
        /// Where there are more.
        log: PathBuf,
    },
    /// A directory cannot be used.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A file cannot be used.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its host process cannot be started.
    #[error("cannot start the helper machine's host process")]
    Supervisor {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No kernel for it.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// No initramfs for it.
    #[error(transparent)]
    Initramfs(#[from] InitramfsError),
    /// No disk for it.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// No session with it.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The session failed.
    #[error(transparent)]
    Forward(#[from] ForwardError),
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
    fn disk_dir(&self) -> PathBuf {
        self.data.join("machine")
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

/// Where kernels that were fetched are kept: one place for all of a user's data directories, and
/// one that may be emptied at any time.
#[must_use]
pub fn kernel_cache() -> PathBuf {
    let dir = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = if rustix::process::geteuid().is_root() {
        PathBuf::from("/var/cache")
    } else {
        dir("XDG_CACHE_HOME")
            .or_else(|| dir("HOME").map(|home| home.join(".cache")))
            .unwrap_or_else(std::env::temp_dir)
    };
    base.join("hullbox/kernel")
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

/// Entry of the machine's host processes: what follows [`HIDDEN_COMMAND`] on the command line.
#[must_use]
pub fn hidden(args: &[OsString]) -> ExitCode {
    let result = match args.split_first() {
        Some((verb, [])) if verb == "supervise" => supervisor::run().map_err(Into::into),
        Some((verb, rest)) if verb == "child" => supervisor::child(rest),
        _ => Err("not a command of yours".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("hullbox: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            eprintln!("{text}");
            ExitCode::from(125)
        }
    }
}
