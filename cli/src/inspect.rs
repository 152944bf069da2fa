//! `inspect`: everything that is known, under Docker's keys.

use crate::app::InspectArgs;
use crate::containers::{seconds, state};
use crate::failure::Failure;
use crate::output;
use crate::system;
use crate::template::Template;
use clap::ValueEnum;
use hullbox_engine::bundle::Isolation;
use hullbox_engine::containers::Engine;
use hullbox_engine::paths::Roots;
use hullbox_engine::plan::{caps, units};
use hullbox_engine::state::{Beginning, BegunFrom, Phase, Record, StateError};
use hullbox_image::{ResolveError, rfc3339};
use serde_json::{Value, json};

/// What to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Container,
    Image,
    #[value(skip)]
    Any,
}

pub(crate) fn inspect(args: &InspectArgs, kind: Kind) -> Result<(), Failure> {
    let engine = system::engine()?;
    let template = match args.format.as_deref() {
        None | Some("json") => None,
        Some(text) => {
            let parsed = Template::parse(text);
            // Docker's code for a template that is none.
            Some(parsed.map_err(|error| Failure::of("invalid --format", &error).with_code(64))?)
        }
    };
    let mut found = Vec::new();
    let mut missing = None;
    for name in &args.names {
        match look_up(&engine, name, kind) {
            Ok(value) => found.push(value),
            Err(failure) => missing = missing.or(Some(failure)),
        }
    }
    let mut text = String::new();
    match (template, args.format.as_deref()) {
        (Some(template), _) => {
            for value in &found {
                let rendered = template.render(value);
                text.push_str(
                    &rendered.map_err(|error| Failure::of("cannot apply --format", &error))?,
                );
                text.push('\n');
            }
        }
        (None, Some(_)) => text = format!("{}\n", Value::Array(found)),
        (None, None) => {
            text = serde_json::to_string_pretty(&Value::Array(found))?;
            text.push('\n');
        }
    }
    output::print(&text)?;
    missing.map_or(Ok(()), Err)
}

fn look_up(engine: &Engine, name: &str, kind: Kind) -> Result<Value, Failure> {
    if kind != Kind::Image {
        match engine.state().resolve(name) {
            Ok(found) => {
                let record = engine.state().get(&found.id)?;
                // Of an image that cannot be read any more, the container still tells the rest.
                let images = engine.images().ok();
                let image = images.and_then(|images| images.inspect(&record.image_id).ok());
                let image = image.unwrap_or(Value::Null);
                return Ok(container(&record, engine.roots(), &image["Config"]));
            }
            Err(StateError::NotFound(_)) if kind == Kind::Any => {}
            Err(error) => return Err(error.into()),
        }
    }
    match engine.images()?.inspect(name) {
        Err(ResolveError::NotFound(_)) if kind == Kind::Any => {
            Err(Failure::new(format!("no such container or image: {name}")))
        }
        other => Ok(other?),
    }
}

fn time(ns: Option<i64>) -> String {
    // Docker's word for never.
    const NEVER: &str = "0001-01-01T00:00:00Z";
    ns.map_or_else(
        || NEVER.to_owned(),
        |ns| {
            let nanos = u32::try_from(ns.rem_euclid(1_000_000_000)).unwrap_or(0);
            rfc3339(seconds(ns), nanos)
        },
    )
}

fn strings(list: &[Vec<u8>]) -> Vec<String> {
    list.iter()
        .map(|item| String::from_utf8_lossy(item).into_owned())
        .collect()
}

/// Docker says null of a list that nobody filled.
fn list_or_null(list: &[Vec<u8>]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| strings(list))
}

fn container(record: &Record, roots: &Roots, image: &Value) -> Value {
    let spec = &record.spec;
    let log = hullbox_engine::logs::path(&roots.container_dir(&record.id));
    let argv = strings(&spec.process.argv);
    json!({
        "Id": record.id,
        "Created": time(Some(record.created_ns)),
        "Path": argv.first(),
        "Args": argv.get(1..).unwrap_or_default(),
        "State": state_of(record),
        "Start": record.beginning.as_ref().map(start),
        "RestartCount": record.restarts,
        "Image": record.image_id,
        "Name": format!("/{}", record.name),
        "Driver": "erofs",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": null,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": if spec.life.log.keep { log.to_string_lossy().into_owned() } else { String::new() },
        "GraphDriver": { "Name": "erofs", "Data": {} },
        // `--tmpfs` is under HostConfig.Tmpfs, as Docker has it; there are no others yet.
        "Mounts": [],
        "NetworkSettings": network(),
        "Isolation": match spec.isolation {
            Isolation::Vm => "vm",
            Isolation::Container => "container",
        },
        "Machine": (spec.isolation == Isolation::Vm).then(|| json!({
            "Cpus": spec.vcpus,
            "MemoryMib": spec.memory_mib,
        })),
        "HostConfig": host_config(record),
        "Config": config(record, image),
    })
}

fn state_of(record: &Record) -> Value {
    let runs = matches!(record.phase, Phase::Running | Phase::Paused);
    json!({
        "Status": state(record),
        "Running": runs,
        "Dead": false,
        "Paused": record.phase == Phase::Paused,
        "Restarting": record.phase == Phase::Restarting,
        "Health": health(record),
        "OOMKilled": record.oom,
        // The process on this host that holds the container: its monitor.
        "Pid": record.monitor_pid.filter(|_| runs).unwrap_or(0),
        "ExitCode": record.exit_code.filter(|_| !runs).unwrap_or(0),
        "Signal": record.signal,
        "Error": record.error.clone().unwrap_or_default(),
        "StartedAt": time(record.started_ns),
        "FinishedAt": time(record.finished_ns),
    })
}

fn config(record: &Record, image: &Value) -> Value {
    let spec = &record.spec;
    let user = match &spec.process.user {
        hullbox_protocol::UserSpec::Named { user, .. } => user.clone(),
        hullbox_protocol::UserSpec::Ids { uid, gid, .. } => format!("{uid}:{gid}"),
    };
    json!({
        "Hostname": spec.setup.hostname,
        "Domainname": "",
        "User": user,
        "AttachStdin": spec.life.stdin_once,
        "AttachStdout": true,
        "AttachStderr": true,
        "ExposedPorts": image["ExposedPorts"],
        "Volumes": image["Volumes"],
        "OnBuild": null,
        "Tty": spec.process.terminal.is_some(),
        "OpenStdin": spec.process.stdin,
        "Env": strings(&spec.process.env),
        "Cmd": list_or_null(&spec.cmd),
        "Entrypoint": list_or_null(&spec.entrypoint),
        "StdinOnce": spec.life.stdin_once,
        "StopTimeout": spec.life.stop_timeout_s,
        "Healthcheck": spec.life.check().map(|check| check.to_value()),
        "Image": record.image_ref,
        "WorkingDir": spec.process.cwd,
        "Labels": spec.labels,
        "StopSignal": units::Signal(spec.stop_signal).to_string(),
    })
}

/// No container has a network yet but its own loopback device.
fn network() -> Value {
    json!({
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": "",
        "Ports": {},
        "IPAddress": "",
        "IPPrefixLen": 0,
        "Gateway": "",
        "MacAddress": "",
        "Networks": {
            "none": {
                "NetworkID": "",
                "EndpointID": "",
                "Gateway": "",
                "IPAddress": "",
                "IPPrefixLen": 0,
                "MacAddress": "",
            },
        },
    })
}

fn ulimits(record: &Record) -> Vec<Value> {
    // Docker's word for no limit is -1.
    let limit = |value: u64| i64::try_from(value).unwrap_or(-1);
    let limits = record.spec.process.rlimits.iter();
    limits
        .filter_map(|rlimit| {
            let name = units::rlimit_name(rlimit.resource)?;
            Some(json!({ "Name": name, "Soft": limit(rlimit.soft), "Hard": limit(rlimit.hard) }))
        })
        .collect()
}

/// `--add-host`: what stands in /etc/hosts behind the name of the container.
fn extra_hosts(record: &Record) -> Vec<String> {
    let own = format!("127.0.1.1\t{}\n", record.spec.setup.hostname);
    let text = &record.spec.setup.etc_hosts;
    let extra = text.split_once(&own).map_or("", |(_, extra)| extra);
    let entries = extra.lines().filter_map(|line| line.split_once('\t'));
    entries
        .map(|(address, name)| format!("{name}:{address}"))
        .collect()
}

fn host_config(record: &Record) -> Value {
    let spec = &record.spec;
    let limits = &spec.setup.limits;
    let (memory_bytes, nano_cpus) = match spec.isolation {
        Isolation::Vm => (
            u64::from(spec.memory_mib) << 20,
            u64::from(spec.vcpus) * 1_000_000_000,
        ),
        // The quota is in microseconds of each 100 ms.
        Isolation::Container => (
            limits.memory_bytes,
            limits.cpu_quota_us.saturating_mul(10_000),
        ),
    };
    let mask = spec.process.capabilities.unwrap_or(caps::ALL);
    let (added, dropped) = caps::differences(mask);
    let security: Vec<&str> = [
        (spec.process.no_new_privileges, "no-new-privileges"),
        (spec.setup.seccomp_unconfined, "seccomp=unconfined"),
        (spec.setup.system_paths_unconfined, "systempaths=unconfined"),
    ]
    .into_iter()
    .filter_map(|(is, name)| is.then_some(name))
    .collect();
    let hosts = extra_hosts(record);
    let groups = match &spec.process.user {
        hullbox_protocol::UserSpec::Named {
            additional_groups, ..
        } if !additional_groups.is_empty() => Some(additional_groups),
        _ => None,
    };
    json!({
        "AutoRemove": spec.auto_remove,
        "RestartPolicy": {
            "Name": spec.life.restart.parts().0,
            "MaximumRetryCount": spec.life.restart.parts().1,
        },
        "LogConfig": {
            "Type": if spec.life.log.keep { "json-file" } else { "none" },
            "Config": {
                "max-size": spec.life.log.max_size_bytes.to_string(),
                "max-file": spec.life.log.max_files.to_string(),
            },
        },
        "StorageOpt": spec.disk_bytes.map(|bytes| json!({"size": bytes.to_string()})),
        "Memory": memory_bytes,
        "NanoCpus": nano_cpus,
        "CpuQuota": 0,
        "CpuPeriod": 0,
        "CpuShares": 0,
        "PidsLimit": (spec.setup.limits.pids > 0).then_some(spec.setup.limits.pids),
        "Binds": null,
        "PortBindings": {},
        "PublishAllPorts": false,
        "NetworkMode": "none",
        "CapAdd": (!added.is_empty()).then_some(added),
        "CapDrop": (!dropped.is_empty()).then_some(dropped),
        "SecurityOpt": (!security.is_empty()).then_some(security),
        "Ulimits": ulimits(record),
        "ExtraHosts": (!hosts.is_empty()).then_some(hosts),
        "GroupAdd": groups,
        "Privileged": false,
        "Sysctls": spec.setup.sysctls.iter().cloned()
            .collect::<std::collections::BTreeMap<String, String>>(),
        "Isolation": "",
        "IpcMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "UsernsMode": "",
        "CgroupnsMode": "private",
        "ReadonlyRootfs": spec.setup.rootfs.read_only,
        "Init": spec.setup.init,
        "ShmSize": spec.setup.shm_size_bytes,
        "Tmpfs": spec.setup.tmpfs.iter()
            .map(|mount| (mount.path.clone(), Value::from(mount.options.clone())))
            .collect::<serde_json::Map<_, _>>(),
    })
}

/// How a microVM's last run began.
fn start(beginning: &Beginning) -> Value {
    let (from, template, snapshot) = match &beginning.from {
        BegunFrom::Boot => ("boot", None, None),
        BegunFrom::Template(id) => ("template", Some(id), None),
        BegunFrom::Snapshot(name) => ("snapshot", None, Some(name)),
    };
    let done = &beginning.hygiene;
    json!({
        "From": from,
        "Template": template,
        "Snapshot": snapshot,
        "Hygiene": {
            "EntropyAdded": done.entropy_added,
            "RngReseeded": done.generator_reseeded,
            "WallClockSet": done.clock_set,
            "BootIdReplaced": done.boot_id_replaced,
            "HostnameSet": done.hostname_set,
            "MachineIdReplaced": done.machine_id_replaced,
            // There is no network that could have any.
            "MacAddresses": [],
        },
    })
}

fn health(record: &Record) -> Option<Value> {
    record.spec.life.health.as_ref()?;
    let report = record.health.clone().unwrap_or_default();
    Some(json!({
        "Status": report.status.as_str(),
        "FailingStreak": report.failing_streak,
        "Log": record.health.as_ref().map(|report| vec![json!({
            "Start": time(Some(report.started_ns)),
            "End": time(Some(report.ended_ns)),
            "ExitCode": report.exit_code,
            "Output": report.output,
        })]).unwrap_or_default(),
    }))
}
