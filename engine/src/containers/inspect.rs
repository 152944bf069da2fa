//! What is known of a container, in the model's terms.

pub(super) mod mounts;
pub(super) mod network;

use super::{Engine, disk_use};
use crate::bundle::Isolation;
use crate::monitor::execs;
use crate::paths::{DISK_FILE, Roots};
use crate::plan::network::MacAddress;
use crate::plan::security::CgroupNamespace;
use crate::plan::{self, ContainerSpec, caps, units};
use crate::state::{Beginning, BegunFrom, Phase, Record};
use hullbox_backend::network::Network;
use hullbox_model::container::{
    Config, Device, Empty, GraphDriver, HostConfig, Hygiene, Inspect, LogConfig, Machine,
    RestartPolicy, Set, Start, State, Ulimit,
};
use hullbox_model::health::{Health, HealthResult};
use hullbox_model::{image, time};
use hullbox_protocol::UserSpec;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

/// What holds the layers and the root filesystems.
const DRIVER: &str = "erofs";

impl Engine {
    /// All that is known of a container; with `size`, what it takes on the disk too.
    #[must_use]
    pub fn inspect_container(&self, record: &Record, size: bool) -> Inspect {
        // Of an image that cannot be read any more, the container still tells the rest.
        let images = self.images().ok();
        let image = images.and_then(|images| images.inspect(&record.image_id).ok());
        let image = image.unwrap_or_default();
        let mut inspect = inspect(record, &image.config, &self.roots);
        let dir = self.roots.container_dir(&record.id);
        if record.spec.life.log.keep {
            let path = crate::logs::path(&dir);
            inspect.log_path = path.to_string_lossy().into_owned();
        }
        inspect.exec_ids = self.exec_ids(record);
        if let Network::User(_) = &record.spec.network {
            let refused = network::named(self.refused(record), record);
            inspect.network_settings.refused = refused;
        }
        if size {
            let written = self.written_bytes(record);
            inspect.size_rw = Some(written);
            inspect.size_root_fs = Some(image.size.saturating_add(written));
        }
        inspect
    }

    fn exec_ids(&self, record: &Record) -> Option<Vec<String>> {
        let kept = || execs::kept(&self.roots.container_dir(&record.id));
        let all = match record.phase {
            // Of a monitor that does not answer, what its earlier runs have left is told.
            Phase::Running | Phase::Paused => self.execs(record).unwrap_or_else(|_| kept()),
            _ => kept(),
        };
        (!all.is_empty()).then(|| all.into_iter().map(|exec| exec.id).collect())
    }

    /// Space that what a container has written takes, in bytes: files in container mode, blocks of
    /// its disk in VM mode.
    #[must_use]
    pub fn written_bytes(&self, record: &Record) -> u64 {
        let dir = self.roots.container_dir(&record.id);
        match record.spec.isolation {
            Isolation::Vm => {
                std::fs::metadata(dir.join(DISK_FILE)).map_or(0, |disk| disk.blocks() * 512)
            }
            Isolation::Container => disk_use(&crate::ns::upper_dir(&dir)),
        }
    }
}

/// What the record tells; `image` is its image's configuration.
fn inspect(record: &Record, image: &Config, roots: &Roots) -> Inspect {
    let spec = &record.spec;
    let argv = strings(&spec.process.argv);
    let (path, args) = match argv.split_first() {
        Some((path, args)) => (path.clone(), args.to_vec()),
        None => (String::new(), Vec::new()),
    };
    Inspect {
        id: record.id.clone(),
        created: time::rfc3339(record.created_ns),
        path,
        args,
        state: state_of(record),
        image: record.image_id.clone(),
        name: format!("/{}", record.name),
        restart_count: record.restarts,
        driver: DRIVER.to_owned(),
        platform: "linux".to_owned(),
        host_config: host_config(spec),
        graph_driver: GraphDriver {
            name: DRIVER.to_owned(),
            ..GraphDriver::default()
        },
        mounts: mounts::points(spec, roots),
        config: config(record, image),
        network_settings: network::settings(record),
        isolation: isolation(spec).to_owned(),
        machine: (spec.isolation == Isolation::Vm).then_some(Machine {
            cpus: spec.vcpus,
            memory_mib: spec.memory_mib,
        }),
        start: record
            .beginning
            .as_ref()
            .map(|beginning| start(beginning, record)),
        egress: network::egress(spec),
        network_rate: network::rate(spec),
        ..Inspect::default()
    }
}

pub(super) fn isolation(spec: &ContainerSpec) -> &'static str {
    match spec.isolation {
        Isolation::Vm => "vm",
        Isolation::Container => "container",
    }
}

fn moment(ns: Option<i64>) -> String {
    ns.map_or_else(|| time::NEVER.to_owned(), time::rfc3339)
}

pub(super) fn strings(list: &[Vec<u8>]) -> Vec<String> {
    list.iter()
        .map(|item| String::from_utf8_lossy(item).into_owned())
        .collect()
}

/// Docker says null of a list that nobody filled.
fn filled<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn state_of(record: &Record) -> State {
    let runs = matches!(record.phase, Phase::Running | Phase::Paused);
    let pid = match record.spec.isolation {
        // The VM is a part of its monitor.
        Isolation::Vm => record.monitor_pid,
        Isolation::Container => record.pid,
    };
    State {
        status: record.phase.word().to_owned(),
        running: runs,
        paused: record.phase == Phase::Paused,
        restarting: record.phase == Phase::Restarting,
        oom_killed: record.oom,
        dead: false,
        pid: pid.filter(|_| runs).unwrap_or(0),
        exit_code: record.exit_code.filter(|_| !runs).unwrap_or(0),
        error: record.error.clone().unwrap_or_default(),
        started_at: moment(record.started_ns),
        finished_at: moment(record.finished_ns),
        health: health(record),
        signal: record.signal.filter(|_| !runs),
    }
}

fn health(record: &Record) -> Option<Health> {
    let status = record.health_status()?;
    let report = record.health.clone().unwrap_or_default();
    let result = |result: &crate::monitor::health::HealthResult| HealthResult {
        start: time::rfc3339(result.started_ns),
        end: time::rfc3339(result.ended_ns),
        exit_code: result.exit_code,
        output: result.output.clone(),
    };
    Some(Health {
        status: status.as_str().to_owned(),
        failing_streak: report.failing_streak,
        log: report.log.iter().map(result).collect(),
    })
}

fn config(record: &Record, image: &Config) -> Config {
    let spec = &record.spec;
    let check = spec.life.check();
    Config {
        hostname: spec.setup.hostname.clone(),
        user: match &spec.process.user {
            UserSpec::Named { user, .. } => user.clone(),
            UserSpec::Ids { uid, gid, .. } => format!("{uid}:{gid}"),
        },
        attach_stdin: spec.process.stdin && !spec.typed.detached,
        attach_stdout: !spec.typed.detached,
        attach_stderr: !spec.typed.detached,
        exposed_ports: exposed(spec, image),
        tty: spec.process.terminal.is_some(),
        open_stdin: spec.process.stdin,
        stdin_once: spec.life.stdin_once,
        env: Some(strings(&spec.configured().env)),
        cmd: filled(strings(&spec.cmd)),
        healthcheck: check.and_then(|check| image::read_health(&check.to_value())),
        image: record.image_ref.clone(),
        volumes: mounts::wanted(spec, image),
        working_dir: spec.process.cwd.clone(),
        entrypoint: filled(strings(&spec.entrypoint)),
        labels: Some(spec.labels.clone()),
        stop_signal: units::Signal(spec.stop_signal).to_string(),
        stop_timeout: spec.life.stop_timeout_s,
        ..Config::default()
    }
}

fn host_config(spec: &ContainerSpec) -> HostConfig {
    let (memory, nano_cpus) = limits(spec);
    let (cap_add, cap_drop) = caps::named(&spec.typed.cap_add, &spec.typed.cap_drop);
    let security = &spec.security;
    let groups = match &spec.process.user {
        UserSpec::Named {
            additional_groups, ..
        } => additional_groups.clone(),
        UserSpec::Ids { .. } => Vec::new(),
    };
    let (restart, retries) = spec.life.restart.parts();
    let map = |entries: BTreeMap<String, String>| (!entries.is_empty()).then_some(entries);
    HostConfig {
        binds: filled(spec.typed.binds.clone()),
        volume_driver: spec.typed.volume_driver.clone().unwrap_or_default(),
        volumes_from: filled(spec.typed.volumes_from.clone()),
        mounts: filled(spec.typed.mounts.clone()),
        log_config: log_config(spec),
        network_mode: network::mode(spec),
        port_bindings: network::typed(spec),
        restart_policy: RestartPolicy {
            name: restart.to_owned(),
            maximum_retry_count: retries,
        },
        auto_remove: spec.auto_remove,
        cap_add: filled(cap_add),
        cap_drop: filled(cap_drop),
        cgroupns_mode: match security.cgroup_namespace {
            CgroupNamespace::Private => "private",
            CgroupNamespace::Host => "host",
        }
        .to_owned(),
        devices: security.devices.iter().map(device).collect(),
        device_cgroup_rules: filled(
            security
                .device_rules
                .iter()
                .map(|rule| rule.text.clone())
                .collect(),
        ),
        dns: Some(spec.typed.dns.clone()),
        dns_options: Some(spec.typed.dns_options.clone()),
        dns_search: Some(spec.typed.dns_search.clone()),
        extra_hosts: filled(spec.typed.extra_hosts.clone()),
        group_add: filled(groups),
        ipc_mode: "private".to_owned(),
        privileged: security.privileged,
        publish_all_ports: spec.typed.publish_all,
        readonly_rootfs: spec.setup.rootfs.read_only,
        security_opt: filled(security.options.clone()),
        storage_opt: spec
            .disk_bytes
            .map(|bytes| BTreeMap::from([("size".to_owned(), bytes.to_string())])),
        tmpfs: map(mounts::tmpfs(spec)),
        shm_size: spec.setup.shm_size_bytes,
        sysctls: map(spec.setup.sysctls.iter().cloned().collect()),
        memory,
        nano_cpus,
        memory_swap: i64::try_from(memory).unwrap_or(i64::MAX),
        pids_limit: Some(spec.setup.limits.pids).filter(|pids| *pids > 0),
        ulimits: ulimits(spec),
        masked_paths: spec.setup.access.masked_paths.clone(),
        readonly_paths: spec.setup.access.read_only_paths.clone(),
        init: spec.setup.init.then_some(true),
        ..HostConfig::default()
    }
}

/// Its own and its image's; an older record has only those.
fn exposed(spec: &ContainerSpec, image: &Config) -> Option<Set> {
    let mut ports = image.exposed_ports.clone().unwrap_or_default();
    let own = spec.exposed.iter();
    ports.extend(own.map(|port| (port.to_string(), Empty {})));
    (!ports.is_empty()).then_some(ports)
}

fn device(device: &plan::devices::Device) -> Device {
    Device {
        path_on_host: device.host.clone(),
        path_in_container: device.container.clone(),
        cgroup_permissions: device.permissions.clone(),
    }
}

/// Bytes of memory, and thousand millionths of a CPU: as typed, unless `update` has changed them
/// since; of a microVM, what it has.
fn limits(spec: &ContainerSpec) -> (u64, u64) {
    let (limits, typed) = (&spec.setup.limits, &spec.typed);
    let memory = match (limits.memory_bytes, spec.isolation) {
        (0, Isolation::Vm) if typed.memory_bytes > 0 => typed.memory_bytes,
        (0, Isolation::Vm) => u64::from(spec.memory_mib) << 20,
        (bytes, _) => bytes,
    };
    let nano_cpus = match (limits.cpu_quota_us, spec.isolation) {
        (quota, _) if quota == units::NanoCpus(typed.nano_cpus).quota_us() && quota > 0 => {
            typed.nano_cpus
        }
        (0, Isolation::Vm) => u64::from(spec.vcpus) * units::NanoCpus::ONE,
        // The quota is in microseconds of each 100 ms.
        (quota, _) => quota.saturating_mul(10_000),
    };
    (memory, nano_cpus)
}

fn log_config(spec: &ContainerSpec) -> LogConfig {
    let log = &spec.life.log;
    if !log.keep {
        return LogConfig {
            kind: "none".to_owned(),
            ..LogConfig::default()
        };
    }
    LogConfig {
        kind: "json-file".to_owned(),
        config: BTreeMap::from([
            ("max-size".to_owned(), log.max_size_bytes.to_string()),
            ("max-file".to_owned(), log.max_files.to_string()),
        ]),
    }
}

fn ulimits(spec: &ContainerSpec) -> Vec<Ulimit> {
    // Docker's word for no limit is -1.
    let limit = |value: u64| i64::try_from(value).unwrap_or(-1);
    let typed = spec.typed.ulimits.iter();
    typed
        .filter_map(|rlimit| {
            Some(Ulimit {
                name: units::rlimit_name(rlimit.resource)?.to_owned(),
                hard: limit(rlimit.hard),
                soft: limit(rlimit.soft),
            })
        })
        .collect()
}

/// How a microVM's last run began.
fn start(beginning: &Beginning, record: &Record) -> Start {
    let spec = &record.spec;
    let (from, template, snapshot) = match &beginning.from {
        BegunFrom::Boot => ("boot", None, None),
        BegunFrom::Template(id) => ("template", Some(id), None),
        BegunFrom::Snapshot(name) => ("snapshot", None, Some(name)),
    };
    let done = &beginning.hygiene;
    // A guest that boots has no other address before.
    let boots = beginning.from == BegunFrom::Boot;
    let own = spec.setup.interfaces.iter();
    let shared = record.endpoints.iter().map(|endpoint| &endpoint.interface);
    let replaced = own.chain(shared).filter(|_| !boots);
    Start {
        from: from.to_owned(),
        template: template.cloned(),
        snapshot: snapshot.cloned(),
        hygiene: Hygiene {
            entropy_added: done.entropy_added,
            rng_reseeded: done.generator_reseeded,
            wall_clock_set: done.clock_set,
            boot_id_replaced: done.boot_id_replaced,
            hostname_set: done.hostname_set,
            machine_id_replaced: done.machine_id_replaced,
            mac_addresses: replaced
                .map(|interface| MacAddress(interface.mac).to_string())
                .collect(),
        },
    }
}

#[cfg(test)]
mod tests;
