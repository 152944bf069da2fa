//! A container, in the shape of Docker's `/containers/ID/json`.
//!
//! Lists and maps that nobody filled are `null` where Docker says `null`. Fields stand in Docker's
//! order; what only this program knows comes last.

mod host_config;
mod mounts;
mod summary;

pub use host_config::{Device, HostConfig, LogConfig, PortBinding, RestartPolicy, Ulimit};
pub use mounts::{BindOptions, MountDriver, MountPoint, MountSpec, TmpfsOptions, VolumeOptions};
pub use summary::{Port, Summary, SummaryHostConfig, SummaryNetworks};

use crate::health::{Health, HealthConfig};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Go's empty structure: the value of a set's members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// Names without values, such as `80/tcp`.
pub type Set = BTreeMap<String, Empty>;

/// All that is known of a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Inspect {
    /// 64 hexadecimal digits.
    pub id: String,
    /// When it was made, in RFC 3339's form.
    pub created: String,
    /// Its program.
    pub path: String,
    /// The program's arguments.
    pub args: Vec<String>,
    /// Where in its life it is.
    pub state: State,
    /// The image's id.
    pub image: String,
    /// Always empty: the file is made inside.
    pub resolv_conf_path: String,
    /// Always empty.
    pub hostname_path: String,
    /// Always empty.
    pub hosts_path: String,
    /// Where its log is; empty where none is kept.
    pub log_path: String,
    /// Its name after a slash.
    pub name: String,
    /// How often its restart policy has started it again.
    pub restart_count: u32,
    /// What holds its root filesystem.
    pub driver: String,
    /// `linux`.
    pub platform: String,
    /// SELinux's label of its files: none.
    pub mount_label: String,
    /// SELinux's label of its processes: none.
    pub process_label: String,
    /// Its AppArmor profile: none.
    pub app_armor_profile: String,
    /// Processes beside its workload that are remembered.
    #[serde(rename = "ExecIDs")]
    pub exec_ids: Option<Vec<String>>,
    /// What it was given of the host.
    pub host_config: HostConfig,
    /// What holds its root filesystem.
    pub graph_driver: GraphDriver,
    /// Bytes of what it has written, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<u64>,
    /// The same with its image's files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<u64>,
    /// What is mounted in it.
    pub mounts: Vec<MountPoint>,
    /// What it runs.
    pub config: Config,
    /// Its network.
    pub network_settings: NetworkSettings,
    /// `vm` or `container`: what stands between it and the host.
    pub isolation: String,
    /// Its microVM.
    pub machine: Option<Machine>,
    /// How the guest of its last run began.
    pub start: Option<Start>,
    /// Where it may connect to, in the words of `--egress`; `null` is everywhere.
    pub egress: Option<String>,
    /// How fast its frames may come and go; `null` is as fast as can be.
    pub network_rate: Option<NetworkRate>,
}

/// Rates of a container's network, in bytes a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkRate {
    /// Of what it is sent; `null` is as fast as can be.
    #[serde(rename = "In")]
    pub inbound: Option<u64>,
    /// Of what it sends.
    #[serde(rename = "Out")]
    pub outbound: Option<u64>,
}

impl Inspect {
    /// As a template sees it: what JSON leaves out is a field without a value.
    ///
    /// # Errors
    /// None is known.
    pub fn to_template(&self) -> serde_json::Result<Value> {
        let mut value = serde_json::to_value(self)?;
        fill(&mut value, &["SizeRw", "SizeRootFs"]);
        if let Some(mounts) = value["Mounts"].as_array_mut() {
            // Text in Docker's client, which has no other nothing than the empty one.
            for mount in mounts {
                for name in ["Name", "Driver"] {
                    if mount.get(name).is_none() {
                        mount[name] = "".into();
                    }
                }
            }
        }
        fill(&mut value["State"], &["Health"]);
        fill(&mut value["HostConfig"], host_config::OPTIONAL);
        fill_config(&mut value["Config"]);
        Ok(value)
    }
}

/// Adds the fields of a `Config` that are not there.
pub(crate) fn fill_config(config: &mut Value) {
    fill(config, CONFIG_OPTIONAL);
    // Text in Docker's client, which has no other nothing than the empty one.
    if config.get("StopSignal").is_some_and(Value::is_null) {
        config["StopSignal"] = "".into();
    }
}

/// Adds fields that are not there.
fn fill(value: &mut Value, names: &[&str]) {
    if let Value::Object(fields) = value {
        for name in names {
            fields.entry(*name).or_insert(Value::Null);
        }
    }
}

/// Where in its life a container is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct State {
    /// Docker's word: `created`, `running`, `paused`, `restarting`, `exited`.
    pub status: String,
    /// Its workload has started and has not ended; it may be paused.
    pub running: bool,
    /// It is frozen.
    pub paused: bool,
    /// It has ended and is about to be started again.
    pub restarting: bool,
    /// The out-of-memory killer was at work in it.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// Always false: nothing is removed by halves.
    pub dead: bool,
    /// A process on the host: in container mode the container's first one, in VM mode the one that
    /// runs the VM. 0 while it does not run.
    pub pid: u32,
    /// 0 while it runs, and before it ever has.
    pub exit_code: u8,
    /// Why it did not start, or how it ended, where a code does not tell.
    pub error: String,
    /// When its last run began, or [`crate::time::NEVER`].
    pub started_at: String,
    /// When its last run ended, or [`crate::time::NEVER`].
    pub finished_at: String,
    /// What its health checks say, if it has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// The signal that ended it.
    pub signal: Option<u8>,
}

/// What a container runs; the configuration of an image has the same shape.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// Its host name.
    pub hostname: String,
    /// Always empty.
    pub domainname: String,
    /// User and group, as they were named.
    pub user: String,
    /// Its maker was attached to its input.
    pub attach_stdin: bool,
    /// Its maker was attached to its output.
    pub attach_stdout: bool,
    /// Its maker was attached to its standard error.
    pub attach_stderr: bool,
    /// Ports that its image names, and those that were exposed or published when it was made.
    pub exposed_ports: Option<Set>,
    /// It has a terminal.
    pub tty: bool,
    /// Its input is kept open.
    pub open_stdin: bool,
    /// Its input ends with the first client.
    pub stdin_once: bool,
    /// `NAME=value`.
    pub env: Option<Vec<String>>,
    /// Arguments, or the program where there is no entry point.
    pub cmd: Option<Vec<String>>,
    /// Its health check, if anything was said of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// Windows' business.
    #[serde(skip_serializing_if = "is_false")]
    pub args_escaped: bool,
    /// The image as it was named.
    pub image: String,
    /// Directories that the image wants to be volumes.
    pub volumes: Option<Set>,
    /// Working directory.
    pub working_dir: String,
    /// Program and first arguments.
    pub entrypoint: Option<Vec<String>>,
    /// For images that are built on this one.
    pub on_build: Option<Vec<String>>,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// What `stop` sends first.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// How long `stop` waits, in seconds, if that was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// The shell of `CMD` in its text form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

const CONFIG_OPTIONAL: &[&str] = &[
    "Healthcheck",
    "ArgsEscaped",
    "StopSignal",
    "StopTimeout",
    "Shell",
];

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it by reference"
)]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// What holds a root filesystem.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct GraphDriver {
    /// Nothing is told.
    pub data: BTreeMap<String, String>,
    /// Which one.
    pub name: String,
}

/// A container's network. Of a container that does not run it has neither ports nor addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkSettings {
    /// Always empty.
    #[serde(rename = "Bridge")]
    pub bridge: String,
    /// Always empty.
    #[serde(rename = "SandboxID")]
    pub sandbox_id: String,
    /// Always empty.
    #[serde(rename = "SandboxKey")]
    pub sandbox_key: String,
    /// Ports that are exposed, and what leads to each: `null` where it is not published.
    #[serde(rename = "Ports")]
    pub ports: BTreeMap<String, Option<Vec<PortBinding>>>,
    /// Always false.
    #[serde(rename = "HairpinMode")]
    pub hairpin_mode: bool,
    /// Always empty.
    #[serde(rename = "LinkLocalIPv6Address")]
    pub link_local_ipv6_address: String,
    /// Always 0.
    #[serde(rename = "LinkLocalIPv6PrefixLen")]
    pub link_local_ipv6_prefix_len: u8,
    /// Always `null`.
    #[serde(rename = "SecondaryIPAddresses")]
    pub secondary_ip_addresses: Option<Vec<Value>>,
    /// Always `null`.
    #[serde(rename = "SecondaryIPv6Addresses")]
    pub secondary_ipv6_addresses: Option<Vec<Value>>,
    /// That of the first network.
    #[serde(flatten)]
    pub endpoint: Endpoint,
    /// The networks it is in.
    #[serde(rename = "Networks")]
    pub networks: BTreeMap<String, Network>,
    /// What it was refused in its present or its last run; `null` of a container without networks in user
    /// mode, and as long as nothing was.
    #[serde(rename = "Refused")]
    pub refused: Option<Refused>,
}

/// What a container's networks refused it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Refused {
    /// TCP connections.
    pub connections: u64,
    /// UDP datagrams.
    pub datagrams: u64,
    /// ICMP echo requests.
    pub echoes: u64,
    /// Names that it asked for.
    pub names: u64,
    /// Frames with an address that is not its own.
    pub spoofed: u64,
    /// Frames that make no sense.
    pub malformed: u64,
    /// What was not begun because of a limit.
    pub limited: u64,
    /// The targets that were refused last, the oldest first.
    pub targets: Vec<RefusedTarget>,
}

/// A target that a container was refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RefusedTarget {
    /// `tcp 192.0.2.1:80`, `name example.com` and the like.
    pub target: String,
    /// The network's name, or its id if the container is in there no longer.
    pub network: String,
    /// Why, in words.
    pub reason: String,
    /// The rule of `--egress` that decided; `null` if none did.
    pub rule: Option<String>,
    /// How often.
    pub count: u64,
    /// When that was first, in RFC 3339's form.
    pub first: String,
}

/// Addresses in a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// The endpoint's id.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Router.
    #[serde(rename = "Gateway")]
    pub gateway: String,
    /// IPv6 address.
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    /// Length of its prefix.
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: u8,
    /// IPv4 address.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// Length of its prefix.
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    /// Router of IPv6.
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    /// Hardware address.
    #[serde(rename = "MacAddress")]
    pub mac_address: String,
}

/// A container's place in a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Addresses that were asked for.
    #[serde(rename = "IPAMConfig")]
    pub ipam_config: Option<BTreeMap<String, Value>>,
    /// Always `null`.
    #[serde(rename = "Links")]
    pub links: Option<Vec<String>>,
    /// More names.
    #[serde(rename = "Aliases")]
    pub aliases: Option<Vec<String>>,
    /// Options of the network's driver.
    #[serde(rename = "DriverOpts")]
    pub driver_opts: Option<BTreeMap<String, String>>,
    /// The network's id.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// Its addresses there.
    #[serde(flatten)]
    pub endpoint: Endpoint,
    /// Its names there.
    #[serde(rename = "DNSNames")]
    pub dns_names: Option<Vec<String>>,
}

/// A container's microVM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Machine {
    /// Virtual CPUs.
    pub cpus: u8,
    /// Memory.
    pub memory_mib: u32,
}

/// How a microVM's last run began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Start {
    /// `boot`, `template` or `snapshot`.
    pub from: String,
    /// The template's id.
    pub template: Option<String>,
    /// The snapshot's name.
    pub snapshot: Option<String>,
    /// What was done so that no two guests are alike.
    pub hygiene: Hygiene,
}

/// What a guest did before its workload to be like no other that began as the same copy of memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(clippy::struct_excessive_bools, reason = "a list of what was done")]
pub struct Hygiene {
    /// Entropy of the host was added to the kernel's.
    pub entropy_added: bool,
    /// The kernel has seeded its generator anew.
    pub rng_reseeded: bool,
    /// The clock was set.
    pub wall_clock_set: bool,
    /// The workload sees a boot id of its own.
    pub boot_id_replaced: bool,
    /// The host name was set.
    pub hostname_set: bool,
    /// The workload sees a machine id of its own.
    pub machine_id_replaced: bool,
    /// The hardware addresses that its interfaces were given.
    pub mac_addresses: Vec<String>,
}

#[cfg(test)]
mod tests;
