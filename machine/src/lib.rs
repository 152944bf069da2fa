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
mod entry;
mod error;
mod forward;
mod initramfs;
mod kernel;
mod log;
mod machine;
mod modules;
mod plan;
mod policy;
mod qemu;
mod services;
mod share;
mod start;
mod state;
mod supervisor;
mod sys;
mod tsc;
mod version;
mod vhost_user;
mod vsock;

pub use config::{ConfigError, MachineConfig, POLICY_VARIABLE, Policy};
pub use connect::ConnectError;
pub use disk::DiskError;
pub use entry::hidden;
pub use error::{ForwardError, MachineError};
pub use forward::{Session, Terminal};
pub use hullbox_files::grant::Grant;
pub use hullbox_host::data_lock::DataLock;
pub use initramfs::{AgentSource, InitramfsError};
pub use kernel::{KernelError, MachineKernel, cache as kernel_cache, find as find_kernel};
pub use machine::{Machine, Status, hold_directly};
pub use modules::{ModuleError, ModuleTree};
pub use plan::{HIDDEN_COMMAND, find_program};
pub use policy::{KvmVerdict, Route, kvm_verdict, route};
pub use qemu::{Qemu, QemuError};
pub use start::StartOptions;
