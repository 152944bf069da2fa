//! Why the machine cannot do what was asked.

use crate::connect::ConnectError;
use crate::disk::DiskError;
use crate::initramfs::InitramfsError;
use crate::kernel::KernelError;
use crate::qemu::QemuError;
use hullbox_host::paths::PathError;
use hullbox_protocol::Failure;
use hullbox_session::client::AttachError;
use std::io;
use std::path::PathBuf;

/// Why the machine cannot do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// No QEMU.
    #[error(transparent)]
    Qemu(#[from] QemuError),
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

/// Why a forwarded program's end is not known, or why it did not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// The directory we are in cannot be told.
    #[error("cannot tell the working directory")]
    WorkingDirectory(#[source] io::Error),
    /// Its name is not text.
    #[error("the working directory {} is not valid UTF-8", .0.display())]
    NotUtf8(PathBuf),
    /// Our own program file is not to be found under its name.
    #[error("cannot tell where this program is")]
    OwnProgram(#[source] io::Error),
    /// The program could not be run.
    #[error("{}", .0.message)]
    Failed(Failure),
    /// The machine ended in the middle.
    #[error("the helper machine ended while the command ran")]
    Disconnected,
    /// The streams failed.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

impl ForwardError {
    /// The exit code that goes with it, if it has one of its own.
    #[must_use]
    pub const fn exit_code(&self) -> Option<u8> {
        match self {
            Self::Failed(failure) => Some(failure.exit_code()),
            _ => None,
        }
    }
}
