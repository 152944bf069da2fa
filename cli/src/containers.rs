//! Commands on containers.

use crate::app::{PsArgs, RmArgs};
use crate::container_filters::Wanted;
use crate::failure::Failure;
use crate::images::one_of;
use crate::output::{self, Column, Format};
use crate::system;
use crate::text::{ago, cut, duration, now_s};
use hullbox_engine::bundle::Isolation;
use hullbox_engine::containers::ContainerError;
use hullbox_engine::monitor::health::HealthStatus;
use hullbox_engine::paths::short_id;
use hullbox_engine::state::{Phase, Record, StateError};
use hullbox_image::rfc3339;
use serde_json::{Value, json};

const COLUMNS: [Column; 7] = [
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("ISOLATION", "Isolation"),
    ("NAMES", "Names"),
];

/// Characters of a command in the table.
const COMMAND_LEN: usize = 20;

pub(crate) fn list(args: &PsArgs) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let engine = system::engine()?;
    let wanted = Wanted::parse(&engine, &args.filters)?;
    let limit = if args.latest { Some(1) } else { args.last };
    // Whoever asks for a status wants those that have it, running or not.
    let all = args.all || limit.is_some() || wanted.of_all();
    let mut rows = Vec::new();
    for record in engine.state().list()? {
        let shown = all || record.is_active();
        if shown && wanted.fits(&record) {
            rows.push(row(&record, args.no_trunc));
        }
        if limit.is_some_and(|limit| rows.len() >= limit) {
            break;
        }
    }
    if args.quiet {
        let ids: String = rows
            .iter()
            .filter_map(|row| row["ID"].as_str())
            .map(|id| format!("{id}\n"))
            .collect();
        return output::print(&ids);
    }
    output::rows(&rows, &COLUMNS, &format)
}

pub(crate) fn isolation(record: &Record) -> &'static str {
    match record.spec.isolation {
        Isolation::Vm => "vm",
        Isolation::Container => "container",
    }
}

pub(crate) const fn state(record: &Record) -> &'static str {
    match record.phase {
        // It is being made at this moment.
        Phase::Created | Phase::Starting => "created",
        other => other.as_str(),
    }
}

pub(crate) const fn seconds(ns: i64) -> i64 {
    ns.div_euclid(1_000_000_000)
}

fn status(record: &Record) -> String {
    let past = |ns: Option<i64>| {
        let then = ns.map_or(0, seconds);
        duration(u64::try_from(now_s().saturating_sub(then)).unwrap_or(0))
    };
    match record.phase {
        Phase::Created | Phase::Starting => "Created".to_owned(),
        Phase::Running => {
            let health = record.health.as_ref().map(|report| report.status);
            let health = match (health, &record.spec.life.health) {
                (_, None) => String::new(),
                (None | Some(HealthStatus::Starting), _) => " (health: starting)".to_owned(),
                (Some(status), _) => format!(" ({})", status.as_str()),
            };
            format!("Up {}{health}", past(record.started_ns))
        }
        Phase::Paused => format!("Up {} (Paused)", past(record.started_ns)),
        Phase::Restarting => format!(
            "Restarting ({}) {} ago",
            record.exit_code.unwrap_or(0),
            past(record.finished_ns)
        ),
        Phase::Exited => format!(
            "Exited ({}) {} ago",
            record.exit_code.unwrap_or(0),
            past(record.finished_ns)
        ),
    }
}

/// The command as one line, fit for a terminal.
pub(crate) fn command_line(record: &Record) -> String {
    let words: Vec<_> = record
        .spec
        .process
        .argv
        .iter()
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    words
        .join(" ")
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn row(record: &Record, whole: bool) -> Value {
    let command = command_line(record);
    let created = seconds(record.created_ns);
    let labels: Vec<_> = record
        .spec
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    json!({
        "ID": if whole { &record.id } else { short_id(&record.id) },
        "Image": record.image_ref,
        "Command": format!("\"{}\"", if whole { command } else { cut(&command, COMMAND_LEN) }),
        "CreatedAt": rfc3339(created, 0),
        "RunningFor": ago(Some(created)),
        "State": state(record),
        "Status": status(record),
        "Isolation": isolation(record),
        "Names": record.name,
        "Labels": labels.join(","),
        "Ports": "",
        "Mounts": "",
        "Networks": "",
    })
}

pub(crate) fn remove(args: &RmArgs) -> Result<(), Failure> {
    let engine = system::engine()?;
    let mut failures = Vec::new();
    for name in &args.names {
        match engine.remove(name, args.force) {
            Ok(()) => output::print(&format!("{name}\n"))?,
            // Said, and no failure: as in Docker.
            Err(error @ ContainerError::State(StateError::NotFound(_))) if args.force => {
                crate::failure::report(&error.into());
            }
            Err(error) => failures.push(error.into()),
        }
    }
    one_of(failures)
}
