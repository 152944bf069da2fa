//! What a container is kept from of the kernel that it runs on, and what it is given beyond the usual.

use crate::bounded::{MAX_LIST, list};
use serde::{Deserialize, Serialize};

/// What a container has no business looking at, as Docker has it.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What a container may look at and not change, as Docker has it.
pub const READ_ONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Longest filter of system calls that a kernel takes, in bytes: 4096 instructions.
const MAX_FILTER: usize = 4096 * 8;

/// See the module. The default is an ordinary container's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Access {
    /// Every device may be used, and /sys is writable (`--privileged`).
    pub privileged: bool,
    /// Control groups below its own are its own to make (`--privileged`, `--systemd`).
    pub manages_cgroups: bool,
    /// Its first process is an init system, which wants a console and no virtual ones (`--systemd`).
    pub runs_systemd: bool,
    /// It sees the control groups of its kernel from their root (`--cgroupns=host`).
    pub sees_all_cgroups: bool,
    /// What is covered; absent paths are left out.
    #[serde(deserialize_with = "list::<_, _, MAX_LIST>")]
    pub masked_paths: Vec<String>,
    /// What is read-only; absent paths are left out.
    #[serde(deserialize_with = "list::<_, _, MAX_LIST>")]
    pub read_only_paths: Vec<String>,
    /// Nodes to make beyond the usual (`--device`), and to be used as they say.
    #[serde(deserialize_with = "list::<_, _, MAX_LIST>")]
    pub devices: Vec<DeviceNode>,
    /// What may be used beyond that (`--device-cgroup-rule`).
    #[serde(deserialize_with = "list::<_, _, MAX_LIST>")]
    pub device_rules: Vec<DeviceRule>,
    /// The filter of system calls: instructions of classic BPF, eight bytes each (`struct
    /// sock_filter`). Empty is none.
    #[serde(deserialize_with = "list::<_, _, MAX_FILTER>")]
    pub filter: Vec<u8>,
}

impl Default for Access {
    fn default() -> Self {
        let own = |paths: &[&str]| paths.iter().map(|&path| path.to_owned()).collect();
        Self {
            privileged: false,
            manages_cgroups: false,
            runs_systemd: false,
            sees_all_cgroups: false,
            masked_paths: own(&MASKED_PATHS),
            read_only_paths: own(&READ_ONLY_PATHS),
            devices: Vec::new(),
            device_rules: Vec::new(),
            filter: Vec::new(),
        }
    }
}

/// A node in a container's /dev.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Absolute path in the container.
    pub path: String,
    /// What sort of device.
    pub kind: DeviceKind,
    /// Number of the driver.
    pub major: u32,
    /// Number of the device.
    pub minor: u32,
    /// Permissions of the node.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// What may be done with it.
    pub access: DeviceAccess,
}

/// Sorts of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Reads and writes go straight to it.
    Char,
    /// A disk.
    Block,
}

/// What may be done with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceAccess {
    /// Open it for reading.
    pub read: bool,
    /// Open it for writing.
    pub write: bool,
    /// Make a node of it.
    pub make: bool,
}

/// Devices that may be used. `None` is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Which sort.
    pub kind: Option<DeviceKind>,
    /// Number of the driver.
    pub major: Option<u32>,
    /// Number of the device.
    pub minor: Option<u32>,
    /// What may be done with them.
    pub access: DeviceAccess,
}

impl DeviceAccess {
    /// Everything.
    pub const ALL: Self = Self {
        read: true,
        write: true,
        make: true,
    };
}

impl DeviceNode {
    /// What may be done with it.
    #[must_use]
    pub const fn rule(&self) -> DeviceRule {
        DeviceRule {
            kind: Some(self.kind),
            major: Some(self.major),
            minor: Some(self.minor),
            access: self.access,
        }
    }
}
