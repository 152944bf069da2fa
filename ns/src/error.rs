//! Why a container cannot be run or cleaned up.

use crate::cgroup::CgroupError;
use crate::devices::DeviceError;
use crate::network::NetworkError;
use crate::rootfs::RootfsError;
use crate::spec::SpecError;
use crate::workload::WorkloadError;
use hullbox_protocol::{Failure, FailureKind};
use hullbox_session::connection::ConnectionError;
use libcontainer::error::LibcontainerError;
use std::error::Error;

/// Why a container cannot be run or cleaned up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NsError {
    /// Not root.
    #[error("container mode needs root")]
    NotRoot,
    /// Called where forking is not safe.
    #[error("a namespace container must be started from a process with a single thread")]
    Threads,
    /// See [`CgroupError`].
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// See [`DeviceError`].
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// See [`NetworkError`].
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// See [`RootfsError`].
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// See [`WorkloadError`].
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// Pipes, sockets, files of our own.
    #[error("cannot {action}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// See [`SpecError`].
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// libcontainer could not make the container.
    #[error("cannot create the container: {cause}")]
    Create {
        /// Why not, as far as libcontainer says.
        cause: String,
        /// What it returned, which says less.
        #[source]
        source: Box<LibcontainerError>,
    },
    /// The monitor changed its mind before the workload was started.
    #[error("the container was ended before it was started")]
    GivenUp,
    /// The monitor's connection broke.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl NsError {
    /// The error with all its causes, as the peer is told of it.
    pub(crate) fn failure(&self) -> Failure {
        let mut message = self.to_string();
        // The cause of a failed creation is in its message already.
        let mut source = match self {
            Self::Create { .. } => None,
            other => other.source(),
        };
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Failure {
            kind: FailureKind::Setup,
            message: message.replace('\n', " "),
        }
    }
}

/// Turns an I/O error into [`NsError::Io`].
pub(crate) fn io<E: Into<std::io::Error>>(action: &'static str) -> impl FnOnce(E) -> NsError {
    move |error| NsError::Io {
        action,
        source: error.into(),
    }
}
