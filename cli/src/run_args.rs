//! The flags of `run`, and what they ask of the engine.

use crate::failure::Failure;
use crate::life_args::{DetachKeys, HealthArgs, LogDriver, LogOpt};
use crate::timing::TimingArgs;
use clap::{Args, ValueEnum};
use hullbox_engine::bundle::Isolation;
use hullbox_engine::containers::RunOrder;
use hullbox_engine::plan::devices::{CgroupRule, Device};
use hullbox_engine::plan::life::{Life, LogOptions, Restart};
use hullbox_engine::plan::security::{CgroupNamespace, Security, SecurityOption, Sysctl, Systemd};
use hullbox_engine::plan::units::{
    Bytes, HostEntry, Label, NanoCpus, Signal, Tmpfs, Ulimit, Umask, ValueError,
};
use hullbox_engine::plan::{PullPolicy, RunRequest, environment};
use hullbox_engine::seccomp::Seccomp;
use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum IsolationArg {
    Vm,
    Container,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum PullArg {
    Missing,
    Never,
    Always,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum NetworkArg {
    None,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SystemdArg {
    True,
    False,
    Always,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum CgroupNamespaceArg {
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
    #[arg(short, long, default_missing_value = "true", num_args = 0..=1, require_equals = true, default_value = "false", hide_default_value = true, hide_possible_values = true, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long, default_missing_value = "true", num_args = 0..=1, require_equals = true, default_value = "false", hide_default_value = true, hide_possible_values = true, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub(crate) tty: bool,
    /// Run it in the background, and print its id
    #[arg(short, long, default_missing_value = "true", num_args = 0..=1, require_equals = true, default_value = "false", hide_default_value = true, hide_possible_values = true, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub(crate) detach: bool,
    /// Remove the container when it ends
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true, default_value = "false", hide_default_value = true, hide_possible_values = true, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub(crate) rm: bool,
    /// Which wall stands around it
    #[arg(
        long,
        value_enum,
        default_value = "vm",
        hide_possible_values = true,
        value_name = "vm|container"
    )]
    pub(crate) isolation: IsolationArg,
    /// Boot its guest, even if there is a template to begin at
    #[arg(long)]
    cold: bool,
    /// Go on from a snapshot, in place of an image
    #[arg(
        long,
        value_name = "SNAPSHOT",
        conflicts_with_all = [
            "words", "env", "env_file", "workdir", "user", "group_add", "entrypoint", "cpus",
            "memory", "pids_limit", "shm_size", "ulimit", "storage_opt", "tmpfs", "cap_add",
            "cap_drop", "privileged", "systemd", "device", "device_cgroup_rule", "security_opt", "cgroupns", "sysctl", "umask", "stop_signal", "stop_timeout",
            "restart", "log_driver", "log_opt", "add_host", "dns", "dns_search", "dns_option",
            "cold",
        ]
    )]
    from_snapshot: Option<String>,
    /// Name the container
    #[arg(long)]
    name: Option<String>,
    /// Set a variable; NAME alone takes the caller's value
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<OsString>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Who runs it
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Add supplementary groups
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Replace the image's ENTRYPOINT; '' for none
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<OsString>,
    /// Host name inside
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// CPUs, such as 1.5
    #[arg(long, value_name = "N")]
    cpus: Option<NanoCpus>,
    /// Memory, such as 512m
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<Bytes>,
    /// Most processes; -1 for no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<Bytes>,
    /// Set a resource limit, such as nofile=1024:2048
    #[arg(long, value_name = "LIMIT")]
    ulimit: Vec<Ulimit>,
    /// size=SIZE: most that it may write to its own disk
    #[arg(long, value_name = "OPTION")]
    storage_opt: Vec<StorageOpt>,
    /// Mount the root filesystem read-only
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true, default_value = "false", hide_default_value = true, hide_possible_values = true, value_name = "BOOL", action = clap::ArgAction::Set)]
    read_only: bool,
    /// Mount a tmpfs
    #[arg(long, value_name = "PATH[:OPTIONS]")]
    tmpfs: Vec<Tmpfs>,
    /// Run it under a small init that reaps
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true, default_value = "false", hide_default_value = true, hide_possible_values = true, value_name = "BOOL", action = clap::ArgAction::Set)]
    init: bool,
    /// Add a capability
    #[arg(long, value_name = "CAP")]
    cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAP")]
    cap_drop: Vec<String>,
    /// Give it everything that its kernel has
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true, default_value = "false", hide_default_value = true, hide_possible_values = true, value_name = "BOOL", action = clap::ArgAction::Set)]
    privileged: bool,
    /// Give it a device, as HOST[:CONTAINER[:rwm]]
    #[arg(long, value_name = "DEVICE")]
    device: Vec<Device>,
    /// Let it use devices, such as 'c 10:* rwm'
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<CgroupRule>,
    /// no-new-privileges, seccomp=FILE, mask=PATH, …
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<SecurityOpt>,
    /// It is an init system: true (by its name), false, always
    #[arg(
        long,
        value_enum,
        default_value = "true",
        hide_default_value = true,
        hide_possible_values = true,
        value_name = "WHEN"
    )]
    systemd: SystemdArg,
    /// Control groups that it sees: its own or all
    #[arg(
        long,
        value_enum,
        hide_possible_values = true,
        value_name = "private|host"
    )]
    cgroupns: Option<CgroupNamespaceArg>,
    /// Set a kernel parameter of its namespaces
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<Sysctl>,
    /// File mode mask
    #[arg(long, value_name = "MASK")]
    umask: Option<Umask>,
    /// Signal that stops it
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<Signal>,
    /// Seconds from that signal to SIGKILL; -1 for no end
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    stop_timeout: Option<i64>,
    /// Start it again when it ends: no, always, unless-stopped, on-failure[:N]
    #[arg(long, value_name = "POLICY")]
    restart: Option<Restart>,
    /// What of its output is kept: json-file or none
    #[arg(long, value_enum, hide_possible_values = true, value_name = "DRIVER")]
    log_driver: Option<LogDriver>,
    /// max-size=SIZE, max-file=N
    #[arg(long, value_name = "OPTION")]
    log_opt: Vec<LogOpt>,
    #[command(flatten)]
    health: HealthArgs,
    /// Keys that leave a terminal: letters, or ctrl-X, separated by commas
    #[arg(long, value_name = "KEYS")]
    pub(crate) detach_keys: Option<DetachKeys>,
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "NAME:IP")]
    add_host: Vec<HostEntry>,
    /// Name server
    #[arg(long, value_name = "IP")]
    dns: Vec<IpAddr>,
    /// Search domain
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Resolver option
    #[arg(long, alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Network; there is none yet
    #[arg(long, alias = "net", value_enum, value_name = "none", hide = true)]
    network: Option<NetworkArg>,
    /// Set a label
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<Label>,
    /// Write the container's id to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// The id that a forwarding process has chosen
    #[arg(long, hide = true, value_name = "ID", value_parser = hullbox_engine::state::parse_id)]
    container_id: Option<String>,
    /// Get the image first: missing, never, always
    #[arg(
        long,
        value_enum,
        default_value = "missing",
        hide_possible_values = true,
        hide_default_value = true,
        value_name = "WHEN"
    )]
    pull: PullArg,
    /// Pass signals on
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true, default_value = "true", hide_possible_values = true, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub(crate) sig_proxy: bool,
    #[command(flatten)]
    pub(crate) timing: TimingArgs,
    /// Show no progress
    #[arg(short, long, hide = true)]
    quiet: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// The image, and command and arguments instead of its CMD
    // One argument, because after the image's name nothing is a flag of ours.
    #[arg(
        value_name = "IMAGE",
        required_unless_present = "from_snapshot",
        trailing_var_arg = true
    )]
    words: Vec<OsString>,
}

/// `--storage-opt`.
#[derive(Debug, Clone, Copy)]
struct StorageOpt {
    size: Bytes,
}

impl std::str::FromStr for StorageOpt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("size", size)) => size
                .parse()
                .map(|size| Self { size })
                .map_err(|error| format!("{error}")),
            _ => Err("expected size=SIZE".to_owned()),
        }
    }
}

/// `--security-opt`, as typed too.
#[derive(Debug, Clone)]
struct SecurityOpt(String, SecurityOption);

impl std::str::FromStr for SecurityOpt {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Ok(Self(text.to_owned(), text.parse()?))
    }
}

/// Largest seccomp profile that is read, in bytes.
const MAX_PROFILE: u64 = 4 << 20;

/// A profile that was named, as its text: whoever asks what the container was made with sees it.
fn read_profile(path: &str) -> Result<(String, SecurityOption), Failure> {
    use std::io::Read;
    let what = || format!("opening seccomp profile ({path}) failed");
    let file = std::fs::File::open(path).map_err(|error| Failure::of(what(), &error))?;
    let mut text = String::new();
    file.take(MAX_PROFILE + 1)
        .read_to_string(&mut text)
        .map_err(|error| Failure::of(what(), &error))?;
    if text.len() as u64 > MAX_PROFILE {
        return Err(Failure::new(format!("{}: it is too long", what())));
    }
    let invalid = |error| Failure::of(format!("seccomp profile ({path}) is invalid"), &error);
    let profile = Seccomp::parse(&text).map_err(invalid)?;
    let option = SecurityOption::Seccomp(Box::new(profile));
    Ok((format!("seccomp={}", text.trim()), option))
}

impl RunArgs {
    /// The order for the engine. Reads environment files.
    pub(crate) fn order(self, detach: bool) -> Result<RunOrder, Failure> {
        let env = self.environment()?;
        let mut words = self.words.clone().into_iter();
        let image = words.next().unwrap_or_default();
        let image = image.into_string().map_err(|image| {
            Failure::new(format!("invalid reference {:?}", image.to_string_lossy()))
        })?;
        let life = self.life(detach)?;
        let health = self.health.check()?;
        let security = self.security()?;
        let request = RunRequest {
            cold: self.cold,
            isolation: match self.isolation {
                IsolationArg::Vm => Isolation::Vm,
                IsolationArg::Container => Isolation::Container,
            },
            security,
            args: words.map(OsString::into_vec).collect(),
            entrypoint: self.entrypoint.map(OsString::into_vec),
            env,
            workdir: self.workdir,
            user: self.user,
            group_add: self.group_add,
            hostname: self.hostname,
            interactive: self.interactive,
            detached: detach,
            tty: self.tty,
            terminal_size: None,
            auto_remove: self.rm,
            read_only: self.read_only,
            init: self.init,
            cpus: self.cpus,
            memory: self.memory,
            disk_size: self.storage_opt.last().map(|option| option.size),
            pids_limit: self.pids_limit,
            shm_size: self.shm_size,
            tmpfs: self.tmpfs,
            ulimits: self.ulimit,
            umask: self.umask,
            cap_add: self.cap_add,
            cap_drop: self.cap_drop,
            stop_signal: self.stop_signal,
            add_host: self.add_host,
            dns: self.dns,
            dns_search: self.dns_search,
            dns_option: self.dns_option,
            sysctls: self.sysctl,
            labels: self.label,
            life,
            health,
        };
        Ok(RunOrder {
            image,
            id: self.container_id,
            name: self.name,
            snapshot: self.from_snapshot,
            pull: match self.pull {
                PullArg::Missing => PullPolicy::Missing,
                PullArg::Never => PullPolicy::Never,
                PullArg::Always => PullPolicy::Always,
            },
            request,
        })
    }

    fn security(&self) -> Result<Security, Failure> {
        let mut security = Security {
            privileged: self.privileged,
            devices: self.device.clone(),
            device_rules: self.device_cgroup_rule.clone(),
            cgroup_namespace: match self.cgroupns {
                None | Some(CgroupNamespaceArg::Private) => CgroupNamespace::Private,
                Some(CgroupNamespaceArg::Host) => CgroupNamespace::Host,
            },
            systemd: match self.systemd {
                SystemdArg::True => Systemd::True,
                SystemdArg::False => Systemd::False,
                SystemdArg::Always => Systemd::Always,
            },
            ..Security::default()
        };
        for SecurityOpt(text, option) in &self.security_opt {
            match option {
                SecurityOption::SeccompFile(path) => {
                    let (text, option) = read_profile(path)?;
                    security.apply(&text, option);
                }
                option => security.apply(text, option.clone()),
            }
        }
        Ok(security)
    }

    fn life(&self, detach: bool) -> Result<Life, Failure> {
        let restart = self.restart.unwrap_or_default();
        if self.rm && restart != Restart::No {
            return Err(Failure::new("--rm and --restart exclude each other"));
        }
        let mut log = LogOptions {
            keep: self.log_driver != Some(LogDriver::None),
            ..LogOptions::default()
        };
        for option in &self.log_opt {
            match *option {
                LogOpt::MaxSize(bytes) => log.max_size_bytes = bytes,
                LogOpt::MaxFile(count) => log.max_files = count,
                LogOpt::Same => {}
            }
        }
        Ok(Life {
            stop_timeout_s: self.stop_timeout,
            restart,
            log,
            stdin_once: self.interactive && !detach,
            ..Life::default()
        })
    }

    /// Files first, then flags: what is typed wins.
    fn environment(&self) -> Result<Vec<Vec<u8>>, Failure> {
        let mut entries = Vec::new();
        for path in &self.env_file {
            entries.extend(environment::from_file(path, &environment::own)?);
        }
        for argument in &self.env {
            let bytes = argument.clone().into_vec();
            entries.push(environment::from_argument(&bytes, &environment::own)?);
        }
        Ok(entries)
    }
}
