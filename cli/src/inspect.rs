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
            Some(parsed.map_err(|error| Failure::of("invalid --format", &error))?)
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
            Ok(found) => return Ok(container(&engine.state().get(&found.id)?)),
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

fn container(record: &Record) -> Value {
    let spec = &record.spec;
    let argv = strings(&spec.process.argv);
    let user = match &spec.process.user {
        hullbox_protocol::UserSpec::Named { user, .. } => user.clone(),
        hullbox_protocol::UserSpec::Ids { uid, gid, .. } => format!("{uid}:{gid}"),
    };
    json!({
        "Id": record.id,
        "Created": time(Some(record.created_ns)),
        "Path": argv.first(),
        "Args": argv.get(1..).unwrap_or_default(),
        "State": {
            "Status": state(record),
            "Running": matches!(record.phase, Phase::Running | Phase::Paused),
            "Paused": record.phase == Phase::Paused,
            "Restarting": record.phase == Phase::Restarting,
            "Health": health(record),
            "OOMKilled": record.oom,
            "Pid": record.monitor_pid.unwrap_or(0),
            "ExitCode": record.exit_code.unwrap_or(0),
            "Signal": record.signal,
            "Error": record.error.clone().unwrap_or_default(),
            "StartedAt": time(record.started_ns),
            "FinishedAt": time(record.finished_ns),
        },
        "Start": record.beginning.as_ref().map(start),
        "RestartCount": record.restarts,
        "Image": record.image_id,
        "Name": format!("/{}", record.name),
        "Isolation": match spec.isolation {
            Isolation::Vm => "vm",
            Isolation::Container => "container",
        },
        "Machine": (spec.isolation == Isolation::Vm).then(|| json!({
            "Cpus": spec.vcpus,
            "MemoryMib": spec.memory_mib,
        })),
        "HostConfig": {
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
            "Memory": spec.setup.limits.memory_bytes,
            "CpuQuota": spec.setup.limits.cpu_quota_us,
            "PidsLimit": spec.setup.limits.pids,
            "ReadonlyRootfs": spec.setup.rootfs.read_only,
            "Init": spec.setup.init,
            "ShmSize": spec.setup.shm_size_bytes,
            "Tmpfs": spec.setup.tmpfs.iter()
                .map(|mount| (mount.path.clone(), Value::from(mount.options.clone())))
                .collect::<serde_json::Map<_, _>>(),
        },
        "Config": {
            "Hostname": spec.setup.hostname,
            "User": user,
            "Tty": spec.process.terminal.is_some(),
            "OpenStdin": spec.process.stdin,
            "Env": strings(&spec.process.env),
            "Cmd": strings(&spec.cmd),
            "Entrypoint": strings(&spec.entrypoint),
            "StdinOnce": spec.life.stdin_once,
            "StopTimeout": spec.life.stop_timeout_s,
            "Healthcheck": spec.life.check().map(|check| check.to_value()),
            "Image": record.image_ref,
            "WorkingDir": spec.process.cwd,
            "Labels": spec.labels,
            "StopSignal": spec.stop_signal,
        },
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
