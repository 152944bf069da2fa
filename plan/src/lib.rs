//! From what was typed and what the image says to a container with all questions answered.
//!
//! [`RunRequest`] is what was typed, [`ImageDefaults`] what the image says; [`plan`] makes a
//! [`ContainerSpec`] of them, which is what is kept of a container and what every start of it
//! begins with.
#![forbid(unsafe_code)]

mod copy;
pub mod environment;
mod error;
mod files;
mod health;
pub mod ipam;
pub mod life;
pub mod mounts;
pub mod names;
pub mod network;
pub mod ports;
mod request;
mod spec;
mod systemd;
pub mod units;

pub use copy::copy;
pub use error::PlanError;
pub use files::{join_shared, share_host};
pub use hullbox_backend::bundle::GuestSize;
pub use hullbox_security::{caps, devices, options as security};
pub use request::{ImageDefaults, RunRequest};
pub use spec::{Configured, ContainerSpec, Typed};

use error::value;
use hullbox_backend::bundle::MIN_DISK_BYTES;
use hullbox_host::paths::{machine_id, short_id};
use hullbox_model::isolation::Isolation;
use hullbox_protocol::{
    Access, CgroupLimits, ProcessSpec, Rlimit, RootfsSpec, Setup, UserSpec, WritableLayer,
};
use hullbox_security::seccomp::Seccomp;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use units::{Bytes, check_hostname};

/// Docker's `/dev/shm`.
const DEFAULT_SHM: Bytes = Bytes(64 << 20);
/// Below this Docker refuses a limit, and rightly.
const MIN_MEMORY: Bytes = Bytes(6 << 20);
/// The least memory a guest kernel is given; a smaller `--memory` becomes a limit inside.
const MIN_GUEST_MIB: u32 = 64;
/// A guest's memory unless it asks for more. It is an upper bound: the host commits a page when
/// the guest first touches it.
const DEFAULT_GUEST_MIB: u32 = 1024;
/// The least size of a writable layer that may be asked for.
const MIN_DISK: Bytes = Bytes(MIN_DISK_BYTES);
/// The size of a writable layer's disk, its own metadata included.
const MAX_DISK: Bytes = Bytes(16 << 30);
/// The most memory a guest may have, in MiB.
const MAX_GUEST_MIB: u64 = 1 << 20;
/// Virtual CPUs unless it asks for more. Each further one costs milliseconds at every start.
const DEFAULT_VCPUS: u8 = 2;
/// The most virtual CPUs the VMM gives.
const MAX_VCPUS: u64 = 32;

/// What a plan must know of the host.
#[derive(Debug, Clone, Copy)]
pub struct HostFacts {
    /// CPUs this process may use.
    pub cpus: u64,
}

impl HostFacts {
    /// Asks the kernel, once.
    #[must_use]
    pub fn probe() -> Self {
        static FACTS: OnceLock<HostFacts> = OnceLock::new();
        *FACTS.get_or_init(|| {
            let cpus = std::thread::available_parallelism().map_or(1, usize::from);
            Self {
                cpus: u64::try_from(cpus).unwrap_or(u64::MAX),
            }
        })
    }

    /// Whether the host has so many CPUs.
    ///
    /// # Errors
    /// [`PlanError::Value`] of `--cpus`.
    pub fn check_cpus(self, cpus: units::NanoCpus) -> Result<(), PlanError> {
        if cpus.whole() > self.cpus {
            let why = format!("this host has {} CPUs", self.cpus);
            return Err(value("cpus", why));
        }
        Ok(())
    }
}

/// Makes a container of a request. `id` is the container's full id.
///
/// # Errors
/// [`PlanError`]; nothing was changed anywhere.
pub fn plan(
    id: &str,
    request: RunRequest,
    mut image: ImageDefaults,
    host: HostFacts,
) -> Result<ContainerSpec, PlanError> {
    let network = network::plan(id, &request, std::mem::take(&mut image.exposed))?;
    let hostname = hostname(id, &request)?;
    let (entrypoint, cmd) = command(&request, &image)?;
    let argv: Vec<_> = entrypoint.iter().chain(&cmd).cloned().collect();
    let systemd = systemd::is_wanted(&request, &argv);
    let configured = configured(&request, &image);
    let mut defaults = environment::defaults(&hostname, request.tty);
    if systemd {
        defaults.extend(systemd::environment(id));
    }
    let env = environment::merge(defaults, configured.env.iter().cloned());
    check_size(&argv, &env)?;
    let mut life = request.life.clone();
    health::plan(&mut life, &request, image.health.take())?;
    if let Some(health) = &life.health {
        let argv: Vec<_> = health.argv.iter().map(|a| a.clone().into_bytes()).collect();
        check_size(&argv, &env)?;
    }
    let cwd = workdir(&request, &image)?;
    let machine = Machine::decide(&request, host)?;
    let disk_bytes = disk_bytes(&request)?;
    let capabilities = capabilities(&request)?;
    let access = access(&request, systemd)?;
    let stop_signal = match (request.stop_signal, image.stop_signal.as_deref()) {
        (Some(signal), _) => signal,
        (None, Some(text)) if !text.is_empty() => text
            .parse()
            .map_err(|_| PlanError::Image("its StopSignal is not a signal"))?,
        // What systemd takes as the wish to end it all.
        _ if systemd => units::Signal::RTMIN_3,
        _ => units::Signal::TERM,
    };
    let typed = typed(&request);
    let (mounts, mut tmpfs) = mounts::together(&request.mounts, &request.tmpfs, &image.volumes)?;
    if systemd {
        let mut own = systemd::mounts(&tmpfs);
        own.retain(|one| mounts.iter().all(|mount| mount.target != one.path));
        tmpfs.splice(0..0, own);
    }
    let setup = Setup {
        rootfs: RootfsSpec {
            layers: Vec::new(),
            // A read-only root keeps nothing, so it needs no disk.
            writable: if request.read_only {
                WritableLayer::Memory
            } else {
                WritableLayer::Disk
            },
            read_only: request.read_only,
        },
        etc_hosts: files::hosts(&hostname, &request, &network),
        etc_resolv_conf: files::resolv_conf(&request, &network.network)?,
        etc_hostname: format!("{hostname}\n"),
        hostname,
        tmpfs,
        shm_size_bytes: request.shm_size.unwrap_or(DEFAULT_SHM).0,
        limits: machine.limits,
        init: request.init,
        wall_clock_ns: 0,
        persist: !request.auto_remove,
        sysctls: request
            .sysctls
            .iter()
            .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
            .collect(),
        system_paths_unconfined: request.security.system_paths_unconfined,
        seccomp_unconfined: request.security.seccomp == Seccomp::Unconfined,
        interfaces: network.interfaces,
        mounts: Vec::new(),
        // Each start of it gets its own.
        entropy: Vec::new(),
        resumed: false,
        machine_id: machine_id(id).to_owned(),
        timed: false,
        access,
    };
    let process = ProcessSpec {
        argv,
        env,
        cwd,
        user: UserSpec::Named {
            user: request.user.clone().unwrap_or(image.user),
            additional_groups: request.group_add.clone(),
        },
        rlimits: typed.ulimits.clone(),
        umask: request.umask.map(|mask| mask.0),
        terminal: request
            .tty
            .then(|| request.terminal_size.unwrap_or_default()),
        capabilities: Some(capabilities),
        pipes: hullbox_protocol::PipedStreams::default(),
        no_new_privileges: request.security.no_new_privileges,
        stdin: request.interactive,
        builtin: None,
        privileged: false,
    };
    Ok(ContainerSpec {
        isolation: request.isolation,
        setup,
        process,
        vcpus: machine.vcpus,
        memory_mib: machine.memory_mib,
        disk_bytes,
        stop_signal: stop_signal.0,
        entrypoint,
        cmd,
        configured: Some(configured),
        life,
        cold: request.cold,
        auto_remove: request.auto_remove,
        mounts,
        security: request.security,
        network: network.network,
        networks: network.shared,
        exposed: network.exposed,
        labels: image
            .labels
            .into_iter()
            .chain(request.labels.into_iter().map(|l| (l.key, l.value)))
            .collect(),
        typed,
    })
}

/// What the plan does not keep in another form.
fn typed(request: &RunRequest) -> Typed {
    let hosts = request.add_host.iter();
    Typed {
        detached: request.detached,
        memory_bytes: request.memory.unwrap_or_default().0,
        nano_cpus: request.cpus.unwrap_or_default().0,
        cap_add: request.cap_add.clone(),
        cap_drop: request.cap_drop.clone(),
        ulimits: rlimits(request),
        extra_hosts: hosts
            .map(|host| format!("{}:{}", host.name, host.address))
            .collect(),
        dns: request.dns.iter().map(ToString::to_string).collect(),
        dns_search: request.dns_search.clone(),
        dns_options: request.dns_option.clone(),
        publish: request.network.published(),
        publish_all: request.network.publish_all,
        mac_address: request.network.mac().map(|mac| mac.to_string()),
        network_mode: request.network.shared_name(),
        binds: request.mounts.binds(),
        mounts: request.mounts.mounts.iter().map(|one| one.spec()).collect(),
        volumes: request.mounts.anonymous(),
        volumes_from: request
            .mounts
            .from
            .iter()
            .map(|one| one.text.clone())
            .collect(),
        volume_driver: request.mounts.driver.clone(),
    }
}

/// The name that was typed; without one that of the kernel or the container whose network it shares, or
/// the beginning of its own id.
fn hostname(id: &str, request: &RunRequest) -> Result<String, PlanError> {
    if let Some(name) = &request.hostname {
        check_hostname(name).map_err(|source| PlanError::Value {
            flag: "hostname",
            source,
        })?;
        return Ok(name.clone());
    }
    let shared = match request.network.mode() {
        network::Mode::Host => std::fs::read_to_string("/proc/sys/kernel/hostname").ok(),
        network::Mode::Container(_) => {
            let joined = request.network.joined.as_ref();
            joined.map(|joined| joined.hostname.clone())
        }
        _ => None,
    };
    let shared = shared.map(|name| name.trim_end().to_owned());
    let shared = shared.filter(|name| check_hostname(name).is_ok());
    Ok(shared.unwrap_or_else(|| short_id(id).to_owned()))
}

/// What `--cap-add` and `--cap-drop` leave; of a privileged container Docker asks neither.
fn capabilities(request: &RunRequest) -> Result<u64, PlanError> {
    let mask =
        caps::resolve(&request.cap_add, &request.cap_drop).map_err(|source| PlanError::Value {
            flag: "cap-add and --cap-drop",
            source,
        })?;
    Ok(if request.security.privileged {
        caps::ALL
    } else {
        mask
    })
}

/// What the container is kept from, and given. The filter of system calls is made at each start, and
/// devices of a host are looked up then.
fn access(request: &RunRequest, systemd: bool) -> Result<Access, PlanError> {
    let security = &request.security;
    let (masked_paths, read_only_paths) = security.paths();
    let devices = match request.isolation {
        Isolation::Vm => security.devices.iter().map(devices::of_a_vm).collect(),
        Isolation::Container => Ok(Vec::new()),
    };
    Ok(Access {
        privileged: security.privileged,
        // Who sees all groups of the kernel could leave its own, and with it limits and device rules.
        manages_cgroups: security.privileged
            || systemd && security.cgroup_namespace == security::CgroupNamespace::Private,
        runs_systemd: systemd,
        sees_all_cgroups: security.cgroup_namespace == security::CgroupNamespace::Host,
        masked_paths,
        read_only_paths,
        devices: devices.map_err(|source| PlanError::Value {
            flag: "device",
            source,
        })?,
        device_rules: security.device_rules.iter().map(|rule| rule.rule).collect(),
        filter: Vec::new(),
    })
}

/// A limit for the writable layer. In container mode that is a directory of the host's file system,
/// and only some could keep it (Docker asks for XFS with project quotas): none is promised.
fn disk_bytes(request: &RunRequest) -> Result<Option<u64>, PlanError> {
    let Some(Bytes(size)) = request.disk_size else {
        return Ok(None);
    };
    match request.isolation {
        Isolation::Container => Err(value(
            "storage-opt",
            "a size needs a disk of the container's own, which it has with --isolation=vm",
        )),
        Isolation::Vm if size < MIN_DISK.0 => Err(value("storage-opt", "the least size is 1m")),
        Isolation::Vm if size > MAX_DISK.0 => Err(value("storage-opt", "the most is 16g")),
        Isolation::Vm => Ok(Some(size)),
    }
}

/// ENTRYPOINT and CMD.
type CommandLine = (Vec<Vec<u8>>, Vec<Vec<u8>>);

/// Docker's rule: `--entrypoint` replaces the image's ENTRYPOINT and forgets its CMD; arguments
/// replace CMD; what is left is joined.
fn command(request: &RunRequest, image: &ImageDefaults) -> Result<CommandLine, PlanError> {
    let (entrypoint, cmd): (Vec<Vec<u8>>, &[Vec<u8>]) = match &request.entrypoint {
        Some(program) if program.is_empty() => (Vec::new(), &[]),
        Some(program) => (vec![program.clone()], &[]),
        None => (image.entrypoint.clone(), &image.cmd),
    };
    let arguments = if request.args.is_empty() {
        cmd
    } else {
        &request.args
    };
    let first = entrypoint.first().or_else(|| arguments.first());
    if first.is_none_or(Vec::is_empty) {
        return Err(PlanError::NoCommand);
    }
    let arguments = arguments.to_vec();
    Ok((entrypoint, arguments))
}

/// Of two limits of one resource the last counts.
fn rlimits(request: &RunRequest) -> Vec<Rlimit> {
    let limits = request.ulimits.iter().map(|limit| {
        let (resource, soft, hard) = (limit.resource, limit.soft, limit.hard);
        let rlimit = Rlimit {
            resource,
            soft,
            hard,
        };
        (units::rlimit_name(resource), rlimit)
    });
    // In the order of their names, as Docker shows them.
    limits.collect::<BTreeMap<_, _>>().into_values().collect()
}

/// What [`ContainerSpec::configured`] keeps.
fn configured(request: &RunRequest, image: &ImageDefaults) -> Configured {
    let typed = request.stop_signal.map(|signal| signal.to_string());
    Configured {
        env: environment::configured(&request.env, &image.env),
        workdir: request.workdir.as_ref().unwrap_or(&image.workdir).clone(),
        stop_signal: typed.or_else(|| image.stop_signal.clone()),
    }
}

fn workdir(request: &RunRequest, image: &ImageDefaults) -> Result<String, PlanError> {
    let chosen = match &request.workdir {
        Some(dir) if !dir.starts_with('/') => return Err(PlanError::RelativeWorkdir(dir.clone())),
        Some(dir) => dir,
        None if image.workdir.is_empty() => "/",
        // An image may say it relative to the root.
        None if !image.workdir.starts_with('/') => return Ok(format!("/{}", image.workdir)),
        None => &image.workdir,
    };
    if chosen.contains('\0') {
        return Err(PlanError::Nul);
    }
    Ok(chosen.to_owned())
}

/// The protocol's frame holds 4 MiB; leave room for the rest of it. The kernel takes less.
fn check_size(argv: &[Vec<u8>], env: &[Vec<u8>]) -> Result<(), PlanError> {
    let all = || argv.iter().chain(env);
    if all().any(|text| text.contains(&0)) {
        return Err(PlanError::Nul);
    }
    let total: usize = all().map(|text| text.len() + 8).sum();
    if total > hullbox_protocol::MAX_PAYLOAD / 2 {
        return Err(PlanError::TooLong);
    }
    Ok(())
}

/// The size of the guest that [`plan`] will ask for, which no image has a say in. `None` when there
/// will be no guest.
#[must_use]
pub fn guest_size(request: &RunRequest, host: HostFacts) -> Option<GuestSize> {
    if request.isolation != Isolation::Vm {
        return None;
    }
    // What is wrong with the request, the plan says.
    let machine = Machine::decide(request, host).ok()?;
    Some(GuestSize {
        vcpus: machine.vcpus,
        memory_mib: machine.memory_mib,
        disks: 0,
    })
}

/// CPU and memory: what a guest has, and what the workload's control group allows.
#[derive(Debug)]
struct Machine {
    vcpus: u8,
    memory_mib: u32,
    limits: CgroupLimits,
}

impl Machine {
    fn decide(request: &RunRequest, host: HostFacts) -> Result<Self, PlanError> {
        // Docker's 0 and all that is below it are no limit, which is what there is without one. So
        // no controller is needed unless somebody asks for a limit.
        let pids = request.pids_limit.unwrap_or(0);
        let pids = u64::try_from(pids).unwrap_or(0);
        let memory = request.memory.unwrap_or_default();
        if memory.0 != 0 && memory < MIN_MEMORY {
            return Err(value("memory", "the least is 6m"));
        }
        match request.isolation {
            Isolation::Vm => Self::guest(request, host, memory, pids),
            Isolation::Container => Self::group(request, host, memory, pids),
        }
    }

    fn guest(
        request: &RunRequest,
        host: HostFacts,
        memory: Bytes,
        pids: u64,
    ) -> Result<Self, PlanError> {
        let cpus = request.cpus.unwrap_or_default();
        let vcpus = match cpus.whole() {
            0 => u8::try_from(host.cpus).map_or(DEFAULT_VCPUS, |cpus| cpus.clamp(1, DEFAULT_VCPUS)),
            whole if whole > MAX_VCPUS => {
                return Err(value(
                    "cpus",
                    format!("a guest has at most {MAX_VCPUS} CPUs"),
                ));
            }
            whole => u8::try_from(whole).unwrap_or(u8::MAX),
        };
        let fractional = !cpus.0.is_multiple_of(units::NanoCpus::ONE);
        let mib = memory.0.div_ceil(1 << 20);
        if mib > MAX_GUEST_MIB {
            return Err(value("memory", "the most is 1t"));
        }
        let memory_mib = match u32::try_from(mib) {
            Ok(0) => DEFAULT_GUEST_MIB,
            Ok(mib) => mib.max(MIN_GUEST_MIB),
            Err(_) => return Err(value("memory", "too large")),
        };
        let small = mib < u64::from(MIN_GUEST_MIB);
        Ok(Self {
            vcpus,
            memory_mib,
            limits: CgroupLimits {
                memory_bytes: if small { memory.0 } else { 0 },
                pids,
                cpu_quota_us: if fractional { cpus.quota_us() } else { 0 },
            },
        })
    }

    fn group(
        request: &RunRequest,
        host: HostFacts,
        memory: Bytes,
        pids: u64,
    ) -> Result<Self, PlanError> {
        let cpus = request.cpus.unwrap_or_default();
        host.check_cpus(cpus)?;
        Ok(Self {
            vcpus: 0,
            memory_mib: 0,
            limits: CgroupLimits {
                memory_bytes: memory.0,
                pids,
                cpu_quota_us: cpus.quota_us(),
            },
        })
    }
}

#[cfg(test)]
mod tests;
