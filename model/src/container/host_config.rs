//! What a container was given of the host.

use super::MountSpec;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What a container was given of the host. Fields that are always empty are there because clients
/// read them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    /// Paths of the host that are mounted in it.
    pub binds: Option<Vec<String>>,
    /// Always empty: the client keeps that to itself.
    #[serde(rename = "ContainerIDFile")]
    pub container_id_file: String,
    /// What is kept of its output.
    pub log_config: LogConfig,
    /// Its network, by name.
    pub network_mode: String,
    /// Ports that were asked to be published, as typed.
    pub port_bindings: BTreeMap<String, Option<Vec<PortBinding>>>,
    /// Whether it is started again when it ends.
    pub restart_policy: RestartPolicy,
    /// It is removed when it ends.
    pub auto_remove: bool,
    /// The driver of volumes that were made with it.
    pub volume_driver: String,
    /// Containers whose mounts it has, as typed.
    pub volumes_from: Option<Vec<String>>,
    /// Rows and columns of its terminal.
    pub console_size: [u16; 2],
    /// Capabilities that were asked for, as `CAP_…` or `ALL`.
    pub cap_add: Option<Vec<String>>,
    /// Capabilities that were refused.
    pub cap_drop: Option<Vec<String>>,
    /// `private` or `host`.
    pub cgroupns_mode: String,
    /// Name servers.
    pub dns: Option<Vec<String>>,
    /// Resolver options.
    pub dns_options: Option<Vec<String>>,
    /// Search domains.
    pub dns_search: Option<Vec<String>>,
    /// `NAME:ADDRESS`.
    pub extra_hosts: Option<Vec<String>>,
    /// Supplementary groups.
    pub group_add: Option<Vec<String>>,
    /// `private`.
    pub ipc_mode: String,
    /// Always empty.
    pub cgroup: String,
    /// Always `null`.
    pub links: Option<Vec<String>>,
    /// Always 0.
    pub oom_score_adj: i32,
    /// Empty: its own.
    pub pid_mode: String,
    /// It may do everything.
    pub privileged: bool,
    /// All ports that are exposed are published.
    pub publish_all_ports: bool,
    /// Its root filesystem cannot be written.
    pub readonly_rootfs: bool,
    /// `--security-opt`, as typed.
    pub security_opt: Option<Vec<String>>,
    /// `size`: bytes of its writable layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_opt: Option<BTreeMap<String, String>>,
    /// `--mount`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: Option<Vec<MountSpec>>,
    /// Mount options by path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs: Option<BTreeMap<String, String>>,
    /// Empty: its own.
    #[serde(rename = "UTSMode")]
    pub uts_mode: String,
    /// Empty: as the engine has it.
    pub userns_mode: String,
    /// Bytes of `/dev/shm`.
    pub shm_size: u64,
    /// Kernel parameters of its namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sysctls: Option<BTreeMap<String, String>>,
    /// Always empty: [`super::Inspect::isolation`] tells.
    pub runtime: String,
    /// Windows' business: [`super::Inspect::isolation`] is ours.
    pub isolation: String,
    /// Always 0: the kernel's default.
    pub cpu_shares: u64,
    /// Bytes; of a microVM what it was made with. 0 is no limit.
    pub memory: u64,
    /// CPUs in thousand millionths. 0 is no limit.
    pub nano_cpus: u64,
    /// Always empty.
    pub cgroup_parent: String,
    /// Always 0.
    pub blkio_weight: u16,
    /// Always empty.
    pub blkio_weight_device: Vec<Value>,
    /// Always empty.
    pub blkio_device_read_bps: Vec<Value>,
    /// Always empty.
    pub blkio_device_write_bps: Vec<Value>,
    /// Always empty.
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub blkio_device_read_iops: Vec<Value>,
    /// Always empty.
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub blkio_device_write_iops: Vec<Value>,
    /// Always 0: [`Self::nano_cpus`] tells.
    pub cpu_period: u64,
    /// Always 0.
    pub cpu_quota: i64,
    /// Always 0.
    pub cpu_realtime_period: u64,
    /// Always 0.
    pub cpu_realtime_runtime: u64,
    /// Always empty: all of the host's.
    pub cpuset_cpus: String,
    /// Always empty.
    pub cpuset_mems: String,
    /// Devices that it was given.
    pub devices: Vec<Device>,
    /// What else it may use.
    pub device_cgroup_rules: Option<Vec<String>>,
    /// Always `null`.
    pub device_requests: Option<Vec<Value>>,
    /// Always 0.
    pub memory_reservation: u64,
    /// Bytes of memory and swap together: no container has swap, so this is the limit of memory.
    pub memory_swap: i64,
    /// Always `null`.
    pub memory_swappiness: Option<i64>,
    /// Always false.
    pub oom_kill_disable: bool,
    /// Most processes; `null` is no limit.
    pub pids_limit: Option<u64>,
    /// Resource limits that were asked for.
    pub ulimits: Vec<Ulimit>,
    /// Windows' business.
    pub cpu_count: u64,
    /// Windows' business.
    pub cpu_percent: u64,
    /// Windows' business.
    #[serde(rename = "IOMaximumIOps")]
    pub io_maximum_iops: u64,
    /// Windows' business.
    #[serde(rename = "IOMaximumBandwidth")]
    pub io_maximum_bandwidth: u64,
    /// Paths that show nothing.
    pub masked_paths: Vec<String>,
    /// Paths that cannot be written.
    pub readonly_paths: Vec<String>,
    /// It runs under a small init.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
}

/// What JSON leaves out.
pub(super) const OPTIONAL: &[&str] = &["StorageOpt", "Mounts", "Tmpfs", "Sysctls", "Init"];

/// What is kept of a container's output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LogConfig {
    /// `json-file` or `none`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// `max-size`, `max-file`.
    pub config: BTreeMap<String, String>,
}

/// Where a port is published.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortBinding {
    /// Address of the host.
    pub host_ip: String,
    /// Port of the host.
    pub host_port: String,
}

/// When a container that ended is started again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RestartPolicy {
    /// `no`, `on-failure`, `always`, `unless-stopped`.
    pub name: String,
    /// Of `on-failure`; 0 is without end.
    pub maximum_retry_count: u32,
}

/// A resource limit; -1 is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ulimit {
    /// The word of `--ulimit`.
    pub name: String,
    /// What a process may raise itself to.
    pub hard: i64,
    /// What holds.
    pub soft: i64,
}

/// A device of the host in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Device {
    /// Its path on the host.
    pub path_on_host: String,
    /// Its path inside.
    pub path_in_container: String,
    /// Of `r`, `w` and `m`.
    pub cgroup_permissions: String,
}
