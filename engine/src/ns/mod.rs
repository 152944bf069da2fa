//! Container mode: a bundle as an OCI namespace container of the host's kernel, by way of
//! youki's libcontainer.
//!
//! ```text
//! run ─► cgroup ─► root ─► workload ─► libcontainer ─► last mile ─► execve
//!        limits,   layers,  user,       namespaces,     seccomp,
//!        devices   overlay  PATH        mounts, pivot   user, caps
//! ```
//!
//! [`run`] speaks the protocol that the guest agent speaks from inside a microVM, on a socket
//! that its caller gives it, so that a monitor need not know which of the two it has.
//!
//! What holds a container together is that one process, the caller of [`run`]: it has the
//! mounts in a namespace of its own and is its container's parent. When it dies, however it
//! dies, the kernel or a guard kills the container's first process and with it the rest; mounts and loop
//! devices go with the last of them. An empty cgroup and a small directory remain for
//! [`cleanup`].

mod builtin;
mod cgroup;
mod devices;
mod executor;
mod guard;
mod init;
mod inroot;
mod join;
mod launch;
mod legacy;
mod network;
mod oom;
mod others;
mod requests;
mod rootfs;
mod serve;
mod spec;
mod trace;
mod workload;

pub use cgroup::CgroupError;
pub use devices::DeviceError;
pub use rootfs::RootfsError;
pub(crate) use rootfs::upper_dir;
pub use spec::SpecError;
pub use workload::WorkloadError;

use crate::bundle::Bundle;
use crate::sys::container as sys;
use hullbox_protocol::{Failure, FailureKind};
use hullbox_session::connection::ConnectionError;
use hullbox_session::direct::Descriptors;
use libcontainer::error::LibcontainerError;
use std::error::Error;
use std::os::unix::net::UnixStream;
use std::path::Path;

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
    /// The monitor's connection broke.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl NsError {
    /// The error with all its causes, as the peer is told of it.
    fn failure(&self) -> Failure {
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
fn io<E: Into<std::io::Error>>(action: &'static str) -> impl FnOnce(E) -> NsError {
    move |error| NsError::Io {
        action,
        source: error.into(),
    }
}

/// Runs a bundle to its end, and says on `connection` what the guest agent would say.
///
/// The bundle has all that is needed, so the container starts at once; a `Setup` frame and an
/// `Exec` frame of session 0 are taken as repetitions of what it says. A container that cannot
/// be started is not an error of this function: the peer is told by `Failed`, which the exit
/// code follows from. When this returns, nothing is left of the container but its writable
/// layer.
///
/// The calling process must have no other threads, and is no use for anything else afterwards:
/// it is in a mount namespace of its own, and not dumpable. `descriptors` are the other ends of the
/// workload's streams, of those that are not to travel as frames.
///
/// # Errors
/// [`NsError::Connection`] when the connection breaks, which ends the container;
/// [`NsError::Cgroup`] when something could not be removed.
pub fn run(
    bundle: &Bundle,
    connection: UnixStream,
    descriptors: Descriptors,
) -> Result<(), NsError> {
    serve::serve(bundle, connection, descriptors)
}

/// Ends whatever is left of a container whose monitor was killed, and removes what it left:
/// processes, cgroup, runtime files. Does nothing when there is nothing. The writable layer
/// stays.
///
/// # Errors
/// [`NsError::NotRoot`], or [`NsError::Cgroup`] when processes will not die.
pub fn cleanup(bundle: &Bundle) -> Result<(), NsError> {
    if !rustix::process::geteuid().is_root() {
        return Err(NsError::NotRoot);
    }
    if let Some(cgroup) = cgroup::Cgroup::find(&bundle.id)? {
        cgroup.kill()?;
        cgroup.remove()?;
    }
    cgroup::remove_legacy(&bundle.id)?;
    remove_runtime_files(&bundle.runtime_dir);
    Ok(())
}

/// Removes what [`run`] made in the runtime directory.
fn remove_runtime_files(runtime_dir: &Path) {
    // What is not there need not go, and what cannot go does not stop a later run.
    let _ = std::fs::remove_dir_all(launch::state_dir(runtime_dir));
    rootfs::remove_leftovers(&rootfs::base_of(runtime_dir));
}

/// Whether this process may start a container.
fn check_caller() -> Result<(), NsError> {
    if !rustix::process::geteuid().is_root() {
        return Err(NsError::NotRoot);
    }
    match sys::thread_count() {
        Ok(1) => Ok(()),
        Ok(_) => Err(NsError::Threads),
        Err(e) => Err(io("count threads")(e)),
    }
}
