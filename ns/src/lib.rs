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
mod cleanup;
mod container;
mod devices;
mod error;
mod executor;
mod guard;
mod init;
mod inroot;
mod join;
mod launch;
mod mounts;
pub mod network;
mod oom;
mod others;
mod requests;
mod rootfs;
mod serve;
mod spec;
pub mod sys;
mod trace;
mod workload;

pub use cgroup::CgroupError;
pub use cleanup::cleanup;
pub use container::Container;
pub use devices::DeviceError;
pub use error::NsError;
pub use mounts::MountError;
pub use network::NetworkError;
pub use rootfs::RootfsError;
pub use rootfs::upper_dir;
pub use serve::run;
pub use spec::SpecError;
pub use workload::WorkloadError;
