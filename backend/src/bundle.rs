//! What both isolation backends start: one container, all questions answered.

use crate::mount::Mount;
use crate::network::Network;
pub use hullbox_model::isolation::Isolation;
use hullbox_protocol::{ProcessSpec, Setup};
use hullbox_security::devices::Device;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Least size of the file system of a microVM's writable layer, in bytes.
pub const MIN_DISK_BYTES: u64 = 1 << 20;

/// A guest's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSize {
    /// Virtual CPUs.
    pub vcpus: u8,
    /// Memory.
    pub memory_mib: u32,
    /// Disks besides those that every guest has: block volumes.
    #[serde(default)]
    pub disks: u8,
}

/// A container ready to start. The same value drives a microVM and a namespace container:
/// `setup` and `process` mean the same in both, which is what makes the two comparable.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bundle {
    /// Full container id, 64 hexadecimal digits.
    pub id: String,
    /// The wall.
    pub isolation: Isolation,
    /// The container's own directory: writable layer, records.
    pub dir: PathBuf,
    /// Its runtime directory: sockets, mount points; gone after a reboot.
    pub runtime_dir: PathBuf,
    /// EROFS images of the layers, lowest first.
    pub layers: Vec<PathBuf>,
    /// Arrangement of root filesystem, names and limits. A backend fills in
    /// `setup.rootfs.layers` where it needs byte ranges.
    pub setup: Setup,
    /// Files from outside. The VM backend makes exports and [`Setup::mounts`] of them; container mode
    /// mounts them itself.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Devices of the host to be shared (container mode).
    #[serde(default)]
    pub devices: Vec<Device>,
    /// The workload.
    pub process: ProcessSpec,
    /// Virtual CPUs (VM mode).
    pub vcpus: u8,
    /// Guest memory (VM mode), in MiB.
    pub memory_mib: u32,
    /// Most bytes of files in the writable layer (VM mode), if less than the disk holds.
    pub disk_bytes: Option<u64>,
    /// Log of the guest kernel's serial console, if wanted (VM mode).
    pub serial_log: Option<PathBuf>,
    /// Its network.
    #[serde(default)]
    pub network: Network,
}
