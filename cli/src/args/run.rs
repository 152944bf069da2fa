//! The flags of `run` and `create`.

use super::bool_flag::BOOL;
use super::health::HealthArgs;
use super::values::{
    DetachKeys, Given, LogDriver, LogOpt, SecurityOpt, StorageOpt, TimingArgs, given,
};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use hullbox_engine::plan::devices::{CgroupRule, Device};
use hullbox_engine::plan::life::Restart;
use hullbox_engine::plan::mounts::{MountFlag, VolumeFlag, VolumesFrom};
use hullbox_engine::plan::network::{self, Attachment, Egress, MacAddress, NetworkRate};
use hullbox_engine::plan::ports::{Expose, Publish};
use hullbox_engine::plan::security::Sysctl;
use hullbox_engine::plan::units::{
    Bytes, HostEntry, Label, NanoCpus, Signal, Tmpfs, Ulimit, Umask,
};
use hullbox_engine::registry::Platform;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum IsolationArg {
    // Docker's words for no choice; the empty one elsewhere too.
    #[value(aliases = ["default", ""])]
    Vm,
    Container,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullArg {
    #[value(alias = "")]
    Missing,
    Never,
    Always,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SystemdArg {
    True,
    False,
    Always,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum CgroupNamespaceArg {
    #[value(alias = "")]
    Private,
    Host,
}

#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    next_line_help = false,
    override_usage = "hullbox run [OPTIONS] IMAGE [COMMAND] [ARG...]",
    after_help = "Example:\n  echo hello | hullbox run --rm -i -m 256m busybox cat"
)]
pub(crate) struct RunArgs {
    /// Keep standard input open
    #[arg(short, long, value_name = BOOL)]
    pub(crate) interactive: bool,
    /// Allocate a terminal
    #[arg(short, long, value_name = BOOL)]
    pub(crate) tty: bool,
    /// Run it in the background, and print its id
    #[arg(short, long, value_name = BOOL)]
    pub(crate) detach: bool,
    /// Remove the container when it ends
    #[arg(long, value_name = BOOL)]
    pub(crate) rm: bool,
    /// How it is isolated
    #[arg(
        long,
        value_enum,
        default_value = "vm",
        hide_possible_values = true,
        value_name = "vm|container"
    )]
    pub(crate) isolation: IsolationArg,
    /// Boot the guest, even if there is a template to restore
    #[arg(long)]
    pub(crate) cold: bool,
    /// Restore a snapshot, in place of an image
    #[arg(
        long,
        value_name = "SNAPSHOT",
        conflicts_with_all = [
            "words", "env", "env_file", "workdir", "user", "group_add", "entrypoint", "cpus",
            "memory", "pids_limit", "shm_size", "ulimit", "storage_opt", "tmpfs", "volume", "mount", "volumes_from", "cap_add",
            "cap_drop", "privileged", "systemd", "device", "device_cgroup_rule", "security_opt", "cgroupns", "sysctl", "umask", "stop_signal", "stop_timeout",
            "restart", "log_driver", "log_opt", "add_host", "dns", "dns_search", "dns_option",
            "network", "network_alias", "mac_address", "ip", "ip6", "cold",
        ]
    )]
    pub(crate) from_snapshot: Option<String>,
    /// Name the container
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Set a variable; NAME alone takes the caller's value
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<OsString>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User that runs it
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Add supplementary groups
    #[arg(long, value_name = "GROUP")]
    pub(crate) group_add: Vec<String>,
    /// Replace the image's ENTRYPOINT; '' for none
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<OsString>,
    /// Host name inside
    #[arg(short = 'h', long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// CPUs, such as 1.5
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<NanoCpus>,
    /// Memory, such as 512m
    #[arg(short, long, value_name = "SIZE")]
    pub(crate) memory: Option<Bytes>,
    /// Maximum number of processes; -1 for no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE")]
    pub(crate) shm_size: Option<Bytes>,
    /// Set a resource limit, such as nofile=1024:2048
    #[arg(long, value_name = "LIMIT")]
    pub(crate) ulimit: Vec<Ulimit>,
    /// size=SIZE: size of its writable layer
    #[arg(long, value_name = "OPTION")]
    pub(crate) storage_opt: Vec<StorageOpt>,
    /// Mount the root filesystem read-only
    #[arg(long, value_name = BOOL)]
    pub(crate) read_only: bool,
    /// Mount a tmpfs
    #[arg(long, value_name = "PATH[:OPTIONS]")]
    pub(crate) tmpfs: Vec<Tmpfs>,
    #[command(flatten)]
    pub(crate) mounts: MountArgs,
    /// Run it under an init that reaps zombies
    #[arg(long, value_name = BOOL)]
    pub(crate) init: bool,
    /// Add a capability
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_drop: Vec<String>,
    /// Give it all capabilities and devices of its kernel
    #[arg(long, value_name = BOOL)]
    pub(crate) privileged: bool,
    /// Give it a device, as HOST[:CONTAINER[:rwm]]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Vec<Device>,
    /// Let it use devices, such as 'c 10:* rwm'
    #[arg(long, value_name = "RULE")]
    pub(crate) device_cgroup_rule: Vec<CgroupRule>,
    /// no-new-privileges, seccomp=FILE, mask=PATH, …
    #[arg(long, value_name = "OPTION")]
    pub(crate) security_opt: Vec<SecurityOpt>,
    /// Set it up for an init system: true (by its name), false, always
    #[arg(
        long,
        value_enum,
        default_value = "true",
        hide_default_value = true,
        hide_possible_values = true,
        value_name = "WHEN"
    )]
    pub(crate) systemd: SystemdArg,
    /// Control group namespace
    #[arg(
        long,
        value_enum,
        hide_possible_values = true,
        value_name = "private|host"
    )]
    pub(crate) cgroupns: Option<CgroupNamespaceArg>,
    /// Set a kernel parameter of its namespaces
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) sysctl: Vec<Sysctl>,
    /// File mode mask
    #[arg(long, value_name = "MASK")]
    pub(crate) umask: Option<Umask>,
    /// Signal that stops it
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<Signal>,
    /// Seconds from that signal to SIGKILL; -1 for never
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub(crate) stop_timeout: Option<i64>,
    /// Start it again when it ends: no, always, unless-stopped, on-failure[:N]
    #[arg(long, value_name = "POLICY")]
    pub(crate) restart: Option<Restart>,
    /// Where its output is kept: json-file or none
    #[arg(long, value_enum, hide_possible_values = true, value_name = "DRIVER")]
    pub(crate) log_driver: Option<LogDriver>,
    /// max-size=SIZE, max-file=N
    #[arg(long, value_name = "OPTION")]
    pub(crate) log_opt: Vec<LogOpt>,
    #[command(flatten)]
    pub(crate) health: HealthArgs,
    /// Keys that detach from a terminal: letters, or ctrl-X, separated by commas
    #[arg(long, value_name = "KEYS")]
    pub(crate) detach_keys: Option<DetachKeys>,
    /// Add a line to /etc/hosts; host-gateway for IP is the host
    #[arg(long, value_name = "NAME:IP")]
    pub(crate) add_host: Vec<HostEntry>,
    /// Name server
    #[arg(long, value_name = "IP")]
    pub(crate) dns: Vec<IpAddr>,
    /// Search domain
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) dns_search: Vec<String>,
    /// Resolver option
    #[arg(long, alias = "dns-opt", value_name = "OPTION")]
    pub(crate) dns_option: Vec<String>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// Set a label
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub(crate) label: Vec<Label>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) label_file: Vec<PathBuf>,
    /// Write the container's id to a file
    #[arg(
        long,
        value_name = "FILE",
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    pub(crate) cidfile: Option<PathBuf>,
    /// The id that the container gets: see [`super::forwarded`]
    #[arg(skip)]
    pub(crate) container_id: Option<String>,
    /// The process that has forwarded this fetches an image that is missing: see [`super::forwarded`]
    #[arg(skip)]
    pub(crate) is_fetched_by_caller: bool,
    /// Get the image first: missing, never, always
    #[arg(
        long,
        value_enum,
        default_value = "missing",
        hide_possible_values = true,
        hide_default_value = true,
        value_name = "WHEN"
    )]
    pub(crate) pull: PullArg,
    /// Platform of the image, as OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<Given<Platform>>,
    /// Pass signals on
    #[arg(long, value_name = BOOL, default_value = "true")]
    pub(crate) sig_proxy: bool,
    #[command(flatten)]
    pub(crate) timing: TimingArgs,
    /// Show no progress of pulling
    #[arg(short, long, hide = true)]
    pub(crate) quiet: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub(crate) help: Option<bool>,
    /// The image, and command and arguments instead of its CMD
    // One argument: whatever follows the image's name is the container's.
    #[arg(
        value_name = "IMAGE",
        required_unless_present = "from_snapshot",
        trailing_var_arg = true
    )]
    pub(crate) words: Vec<OsString>,
}

/// What it has of files from outside.
#[derive(Debug, Default, Args)]
pub(crate) struct MountArgs {
    /// Mount a directory or file of the host, or a volume, as [SOURCE:]TARGET[:OPTIONS]
    #[arg(short, long, value_name = "VOLUME")]
    pub(crate) volume: Vec<VolumeFlag>,
    /// The same, as type=bind|volume|tmpfs,source=…,target=…
    #[arg(long, value_name = "MOUNT")]
    pub(crate) mount: Vec<MountFlag>,
    /// Mount what another container has, as CONTAINER[:ro]
    #[arg(long, value_name = "CONTAINER")]
    pub(crate) volumes_from: Vec<VolumesFrom>,
    /// Driver of volumes that are made; there is one
    #[arg(long, value_name = "DRIVER", hide = true)]
    pub(crate) volume_driver: Option<String>,
    /// Paths of the host outside, in the order of what was typed: see [`super::forwarded`]
    #[arg(skip)]
    pub(crate) outside: bool,
}

/// What it has of networks.
#[derive(Debug, Default, Args)]
pub(crate) struct NetworkArgs {
    /// Network: bridge (one of its own), none, host, container:NAME, or a network's name
    #[arg(long, alias = "net", value_name = "NETWORK")]
    pub(crate) network: Vec<Attachment>,
    /// Publish a port, as [IP:][HOST:]CONTAINER[/udp]
    #[arg(short, long, value_name = "PORT")]
    pub(crate) publish: Vec<Publish>,
    /// Publish all exposed ports, at ports that are free
    #[arg(short = 'P', long, value_name = BOOL)]
    pub(crate) publish_all: bool,
    /// Expose a port, or a range of ports
    #[arg(long, value_name = "PORT[/udp]")]
    pub(crate) expose: Vec<Expose>,
    /// Where it may connect to: all, none, or rules such as *.example.com,192.0.2.0/24:443
    #[arg(long, value_name = "RULES")]
    pub(crate) egress: Option<Egress>,
    /// How fast, in bytes a second: in=10m,out=1m, or one of them
    #[arg(long, value_name = "in=RATE,out=RATE")]
    pub(crate) network_rate: Option<NetworkRate>,
    /// Hardware address of its interface
    #[arg(long, value_name = "MAC")]
    pub(crate) mac_address: Option<Given<MacAddress>>,
    /// Another name in a network that containers share
    #[arg(long, alias = "net-alias", value_name = "NAME")]
    pub(crate) network_alias: Vec<String>,
    /// IPv4 address in such a network
    #[arg(long, value_name = "IP", value_parser = given(network::ipv4))]
    pub(crate) ip: Option<Given<Ipv4Addr>>,
    /// IPv6 address in such a network
    #[arg(long, value_name = "IP", value_parser = given(network::ipv6))]
    pub(crate) ip6: Option<Given<Ipv6Addr>>,
}

impl RunArgs {
    /// `--cidfile`; an empty one is none, as in Docker.
    pub(crate) fn cidfile(&self) -> Option<&Path> {
        let path = self.cidfile.as_deref();
        path.filter(|path| !path.as_os_str().is_empty())
    }
}
