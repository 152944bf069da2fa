//! What is kept of a container.

use super::environment::{self, Entry};
use super::life::Life;
use super::mounts::ContainerMount;
use super::network::Attached;
use super::ports::PortSet;
use super::security::Security;
use hullbox_backend::bundle::Bundle;
use hullbox_backend::network::{Network, PublishedPort};
use hullbox_host::paths::Roots;
use hullbox_model::container::MountSpec;
use hullbox_model::isolation::Isolation;
use hullbox_protocol::{ProcessSpec, Rlimit, Setup};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What the image and the command line say, before defaults fill it up. This is what an image made
/// of the container keeps; a default (the host name, a terminal's name) belongs to one container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured {
    /// `-e`, then what the image's ENV adds to it. A name alone takes a default out.
    pub env: Vec<Entry>,
    /// `--workdir`, or the image's WORKDIR; empty for none.
    pub workdir: String,
    /// `--stop-signal`, or the image's STOPSIGNAL.
    pub stop_signal: Option<String>,
}

/// A container with all questions answered: what every start of it begins with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Which wall.
    pub isolation: Isolation,
    /// Arrangement of root filesystem, names and limits.
    pub setup: Setup,
    /// The workload.
    pub process: ProcessSpec,
    /// Virtual CPUs; 0 in container mode.
    pub vcpus: u8,
    /// Guest memory, in MiB; 0 in container mode.
    pub memory_mib: u32,
    /// `--storage-opt size=`, in bytes (VM mode).
    #[serde(default)]
    pub disk_bytes: Option<u64>,
    /// What `stop` sends first.
    pub stop_signal: u8,
    /// The first part of the workload's command line, which an image keeps as ENTRYPOINT.
    #[serde(default)]
    pub entrypoint: Vec<Vec<u8>>,
    /// The rest of it, which an image keeps as CMD.
    #[serde(default)]
    pub cmd: Vec<Vec<u8>>,
    /// What image and command line say of its surroundings. Older records do not have it: see
    /// [`Self::configured`].
    #[serde(default)]
    pub configured: Option<Configured>,
    /// How it lives on.
    #[serde(default)]
    pub life: Life,
    /// Its guest boots, even if there is a template.
    #[serde(default)]
    pub cold: bool,
    /// Remove the container when it ends.
    pub auto_remove: bool,
    /// Files from outside that it has, each behind what it lies in. Older records have none.
    #[serde(default)]
    pub mounts: Vec<ContainerMount>,
    /// What it may do to its kernel, as asked.
    #[serde(default)]
    pub security: Security,
    /// Its network. A record of a program without networks has none.
    #[serde(default)]
    pub network: Network,
    /// Networks that it shares with others, in the order of its interfaces, which it gets at each start. With
    /// none it has the interface of the setup.
    #[serde(default)]
    pub networks: Vec<Attached>,
    /// Ports that the image exposes, and those that were exposed or published when it was made.
    #[serde(default)]
    pub exposed: PortSet,
    /// Labels of the image and the container's own.
    pub labels: BTreeMap<String, String>,
    /// What was typed.
    #[serde(default)]
    pub typed: Typed,
}

/// What was typed, where the rest of a specification no longer tells it: for `inspect`. An older
/// record's is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Typed {
    /// `--detach`: whoever made it was not attached to it.
    pub detached: bool,
    /// `--memory`, in bytes.
    pub memory_bytes: u64,
    /// `--cpus`, in thousand millionths.
    pub nano_cpus: u64,
    /// `--cap-add`.
    pub cap_add: Vec<String>,
    /// `--cap-drop`.
    pub cap_drop: Vec<String>,
    /// `--ulimit`.
    pub ulimits: Vec<Rlimit>,
    /// `--add-host`, as `NAME:ADDRESS`.
    pub extra_hosts: Vec<String>,
    /// `--dns`.
    pub dns: Vec<String>,
    /// `--dns-search`.
    pub dns_search: Vec<String>,
    /// `--dns-option`.
    pub dns_options: Vec<String>,
    /// `--publish`, each port; what is published is the network's.
    pub publish: Vec<PublishedPort>,
    /// `--publish-all`.
    pub publish_all: bool,
    /// `--mac-address`.
    pub mac_address: Option<String>,
    /// `--network`, the first one, where it is one that containers share.
    pub network_mode: Option<String>,
    /// `--volume` with a source.
    pub binds: Vec<String>,
    /// `--mount`.
    pub mounts: Vec<MountSpec>,
    /// `--volume` without a source.
    pub volumes: Vec<String>,
    /// `--volumes-from`.
    pub volumes_from: Vec<String>,
    /// `--volume-driver`.
    pub volume_driver: Option<String>,
}

impl ContainerSpec {
    /// What image and command line say of its surroundings.
    #[must_use]
    pub fn configured(&self) -> Cow<'_, Configured> {
        if let Some(configured) = &self.configured {
            return Cow::Borrowed(configured);
        }
        // A record of a program that kept only the outcome: without what looks like a default.
        let process = &self.process;
        let defaults = environment::defaults(&self.setup.hostname, process.terminal.is_some());
        let said = |entry: &&Entry| !defaults.contains(entry);
        Cow::Owned(Configured {
            env: process.env.iter().filter(said).cloned().collect(),
            workdir: process.cwd.clone(),
            stop_signal: None,
        })
    }

    /// The environment of a process in the container.
    #[must_use]
    pub fn environment(&self, terminal: bool) -> Vec<Entry> {
        let defaults = environment::defaults(&self.setup.hostname, terminal);
        environment::merge(defaults, self.configured().env.iter().cloned())
    }

    /// The bundle to start: this container, in its place, over these layers (lowest first).
    #[must_use]
    pub fn bundle(&self, id: &str, roots: &Roots, layers: Vec<PathBuf>) -> Bundle {
        let mut setup = self.setup.clone();
        let security = &self.security;
        let capabilities = self.process.capabilities.unwrap_or(super::caps::ALL);
        let privileged = security.privileged;
        setup.access.filter = security
            .seccomp
            .filter(self.isolation, capabilities, privileged);
        // Records of older programs say it only here.
        if security.options.is_empty() {
            if setup.system_paths_unconfined {
                setup.access.masked_paths.clear();
                setup.access.read_only_paths.clear();
            }
            if setup.seccomp_unconfined {
                setup.access.filter.clear();
            }
        }
        Bundle {
            id: id.to_owned(),
            isolation: self.isolation,
            dir: roots.container_dir(id),
            runtime_dir: roots.container_runtime_dir(id),
            layers,
            setup,
            mounts: Vec::new(),
            devices: security.devices.clone(),
            process: self.process.clone(),
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            disk_bytes: self.disk_bytes,
            serial_log: None,
            network: self.network.clone(),
        }
    }
}
