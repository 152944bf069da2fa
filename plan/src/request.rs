//! What a plan is made of.

use super::life::Life;
use super::mounts::MountsRequest;
use super::network::NetworkRequest;
use super::ports::PortSet;
use super::units::{Bytes, HostEntry, Label, NanoCpus, Signal, Tmpfs, Ulimit, Umask};
use hullbox_image::{HealthCheck, HealthCheckError};
use hullbox_model::isolation::Isolation;
use hullbox_protocol::TerminalSize;
use hullbox_security::options::{Security, Sysctl};
use std::net::IpAddr;

/// What somebody asks for, as typed: nothing is looked up or merged yet.
#[derive(Debug, Clone, Default)]
pub struct RunRequest {
    /// Which wall.
    pub isolation: Isolation,
    /// Arguments after the image's name.
    pub args: Vec<Vec<u8>>,
    /// `--entrypoint`; empty means none.
    pub entrypoint: Option<Vec<u8>>,
    /// `--env-file` and then `-e`, as [`super::environment`] reads them.
    pub env: Vec<Vec<u8>>,
    /// `--workdir`.
    pub workdir: Option<String>,
    /// `--user`.
    pub user: Option<String>,
    /// `--group-add`.
    pub group_add: Vec<String>,
    /// `--hostname`.
    pub hostname: Option<String>,
    /// `--interactive`.
    pub interactive: bool,
    /// `--tty`.
    pub tty: bool,
    /// `--detach`.
    pub detached: bool,
    /// Size of the caller's terminal.
    pub terminal_size: Option<TerminalSize>,
    /// `--rm`.
    pub auto_remove: bool,
    /// `--read-only`.
    pub read_only: bool,
    /// `--init`.
    pub init: bool,
    /// `--cpus`.
    pub cpus: Option<NanoCpus>,
    /// `--memory`.
    pub memory: Option<Bytes>,
    /// `--storage-opt size=`.
    pub disk_size: Option<Bytes>,
    /// `--pids-limit`.
    pub pids_limit: Option<i64>,
    /// `--shm-size`.
    pub shm_size: Option<Bytes>,
    /// `--tmpfs`.
    pub tmpfs: Vec<Tmpfs>,
    /// `--volume`, `--mount`, `--volumes-from`.
    pub mounts: MountsRequest,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--umask`.
    pub umask: Option<Umask>,
    /// `--cap-add`.
    pub cap_add: Vec<String>,
    /// `--cap-drop`.
    pub cap_drop: Vec<String>,
    /// `--privileged`, `--security-opt`, `--device` and their like.
    pub security: Security,
    /// `--cold`: boot its guest, even if there is a template.
    pub cold: bool,
    /// `--stop-signal`.
    pub stop_signal: Option<Signal>,
    /// `--add-host`.
    pub add_host: Vec<HostEntry>,
    /// `--dns`.
    pub dns: Vec<IpAddr>,
    /// `--dns-search`.
    pub dns_search: Vec<String>,
    /// `--dns-option`.
    pub dns_option: Vec<String>,
    /// `--network`, `--publish` and their like.
    pub network: NetworkRequest,
    /// `--sysctl`.
    pub sysctls: Vec<Sysctl>,
    /// `--label`.
    pub labels: Vec<Label>,
    /// `--restart`, `--log-opt` and their like.
    pub life: Life,
    /// `--health-cmd` and its family, and `--no-healthcheck`: over what the image says.
    pub health: HealthCheck,
}

/// What the image's configuration says about running it.
#[derive(Debug, Clone, Default)]
pub struct ImageDefaults {
    /// ENTRYPOINT.
    pub entrypoint: Vec<Vec<u8>>,
    /// CMD.
    pub cmd: Vec<Vec<u8>>,
    /// ENV, as `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// USER.
    pub user: String,
    /// WORKDIR.
    pub workdir: String,
    /// STOPSIGNAL.
    pub stop_signal: Option<String>,
    /// HEALTHCHECK, or what is wrong with it.
    pub health: Option<Result<HealthCheck, HealthCheckError>>,
    /// EXPOSE.
    pub exposed: PortSet,
    /// VOLUME.
    pub volumes: Vec<String>,
    /// LABEL.
    pub labels: Vec<(String, String)>,
}
