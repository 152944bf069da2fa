//! Why a VM could not be built or started.

use crate::config::ConfigError;
use std::io;
use std::path::PathBuf;

/// Why a VM could not be built or started.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The configuration holds an impossible value.
    #[error("impossible configuration")]
    Config(#[source] ConfigError),
    /// `/dev/kvm` could not be opened.
    #[error("cannot open /dev/kvm")]
    OpenKvm(#[source] io::Error),
    /// A KVM request failed.
    #[error("KVM refused: {what}")]
    Kvm {
        /// What was asked.
        what: &'static str,
        /// KVM's answer.
        #[source]
        source: io::Error,
    },
    /// Guest memory could not be arranged.
    #[error("cannot arrange guest memory")]
    Memory(#[source] crate::memory::MemoryError),
    /// The kernel or initramfs could not be loaded.
    #[error("cannot load {}", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: crate::boot::LoadError,
    },
    /// The tables a kernel expects could not be written.
    #[error("cannot prepare the guest's boot")]
    Boot(#[source] crate::boot::BootError),
    /// A file behind a device could not be used.
    #[error("cannot use {} for a device", path.display())]
    DeviceFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended before it could be saved.
    #[error("the virtual machine has ended")]
    Ended,
    /// A thread of it is in a system call that does not return: a disk's file system hangs, or KVM
    /// does not let go of a virtual CPU.
    #[error("{0} does not answer")]
    Silent(&'static str),
    /// Its file system device has a stream, and it can have one in its life.
    #[error("the virtual machine has files already")]
    Files,
    /// A snapshot does not fit its configuration.
    #[error("the snapshot does not fit: {0}")]
    Snapshot(&'static str),
    /// An event file, an epoll set or a thread could not be made.
    #[error("cannot set up {what}")]
    Setup {
        /// What could not be set up.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl VmError {
    /// A closure for `map_err` on what kvm-ioctls returns.
    pub(crate) fn kvm(what: &'static str) -> impl Fn(vmm_sys_util::errno::Error) -> Self {
        move |error| Self::Kvm {
            what,
            source: error.into(),
        }
    }

    /// A closure for `map_err` on what the standard library returns.
    pub(crate) fn setup(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Setup { what, source }
    }
}
