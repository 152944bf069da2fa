//! Commands on containers.

use crate::app::{PsArgs, RmArgs};
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

/// Keys of `--filter`.
const FILTERS: [&str; 8] = [
    "id",
    "name",
    "status",
    "ancestor",
    "exited",
    "isolation",
    "label",
    "health",
];

/// Characters of a command in the table.
const COMMAND_LEN: usize = 20;

pub(crate) fn list(args: &PsArgs) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let mut wanted = Vec::new();
    for text in &args.filters {
        let (key, value) = output::filter(text)?;
        if !FILTERS.contains(&key) {
            return Err(Failure::new(format!("no filter is called {key:?}"))
                .with_hint(format!("filters are {}", FILTERS.join(", "))));
        }
        wanted.push((key, value));
    }
    let limit = if args.latest { Some(1) } else { args.last };
    // Whoever asks for a status wants those that have it, running or not.
    let all = args.all
        || limit.is_some()
        || wanted
            .iter()
            .any(|(key, _)| *key == "status" || *key == "exited");
    let mut rows = Vec::new();
    for record in system::engine()?.state().list()? {
        let shown = all || record.is_active();
        if shown && fits(&record, &wanted) {
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

/// Filters with one key are alternatives, those with different keys add up, as in Docker.
fn fits(record: &Record, wanted: &[(&str, &str)]) -> bool {
    let mut keys: Vec<&str> = wanted.iter().map(|(key, _)| *key).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let mut any = false;
        for (_, value) in wanted.iter().filter(|(k, _)| *k == key) {
            any |= fits_one(record, key, value);
        }
        if !any {
            return false;
        }
    }
    true
}

fn fits_one(record: &Record, key: &str, value: &str) -> bool {
    match key {
        "id" => record.id.starts_with(value),
        "name" => record.name.contains(value),
        "status" => state(record) == value,
        "ancestor" => record.image_ref == value || record.image_id == value,
        "exited" => record
            .exit_code
            .is_some_and(|code| code.to_string() == value),
        "isolation" => isolation(record) == value,
        "health" => match (&record.spec.life.health, &record.health) {
            (None, _) => value == "none",
            (Some(_), None) => value == "starting",
            (Some(_), Some(report)) => report.status.as_str() == value,
        },
        "label" => match value.split_once('=') {
            Some((key, value)) => record.spec.labels.get(key).is_some_and(|v| v == value),
            None => record.spec.labels.contains_key(value),
        },
        _ => false,
    }
}

fn isolation(record: &Record) -> &'static str {
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
            Err(ContainerError::State(StateError::NotFound(_))) if args.force => {}
            Err(error) => failures.push(error.into()),
        }
    }
    one_of(failures)
}
