//! `ps` and `rm`.

use super::ports;
use crate::args::container::{PsArgs, RmArgs};
use crate::args::filters::filters;
use crate::engine;
use crate::output::failure::{Failure, one_of, report};
use crate::output::format::{self, Column, Format};
use crate::output::stdout;
use crate::output::text::{ago, cut, size};
use hullbox_engine::containers::{CONTAINER_FILTERS, ContainerError, Listing};
use hullbox_engine::paths::short_id;
use hullbox_engine::state::StateError;
use hullbox_model::container::Summary;
use hullbox_model::time;
use serde_json::{Value, json};

const COLUMNS: [Column; 8] = [
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("ISOLATION", "Isolation"),
    ("NAMES", "Names"),
];

/// Characters of a command in the table.
const COMMAND_LEN: usize = 20;
/// Characters of a mount's name.
const MOUNT_LEN: usize = 15;

pub(crate) fn list(args: &PsArgs) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    // As Docker: a template that shows sizes asks for them.
    let text = args.format.as_deref().unwrap_or_default();
    let listing = Listing {
        all: args.all,
        // Docker's 0 and -1 are no limit.
        limit: if args.latest {
            Some(1)
        } else {
            let last = args.last.filter(|last| *last > 0);
            last.and_then(|last| usize::try_from(last).ok())
        },
        size: args.size || text.contains(".Size"),
        filters: filters(&args.filters, CONTAINER_FILTERS)?,
    };
    let found = engine::open()?.list(&listing)?;
    let rows: Vec<_> = found.iter().map(|one| row(one, args.no_trunc)).collect();
    if args.quiet {
        let ids: String = rows
            .iter()
            .filter_map(|row| row["ID"].as_str())
            .map(|id| format!("{id}\n"))
            .collect();
        return stdout::print(&ids);
    }
    let mut columns = COLUMNS.to_vec();
    if args.size {
        columns.push(("SIZE", "Size"));
    }
    format::rows(&rows, &columns, &format)
}

pub(crate) fn row(summary: &Summary, whole: bool) -> Value {
    let command = &summary.command;
    let labels: Vec<_> = summary
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let names: Vec<_> = summary
        .names
        .iter()
        .map(|name| name.trim_start_matches('/'))
        .collect();
    let networks: Vec<_> = summary.network_settings.networks.keys().cloned().collect();
    let size_of = |bytes: Option<u64>| size(bytes.unwrap_or(0));
    let sizes = match summary.size_root_fs {
        Some(_) => format!(
            "{} (virtual {})",
            size_of(summary.size_rw),
            size_of(summary.size_root_fs)
        ),
        None => size_of(None),
    };
    let mounts: Vec<_> = summary
        .mounts
        .iter()
        .map(|mount| {
            let name = if mount.name.is_empty() {
                &mount.source
            } else {
                &mount.name
            };
            if whole {
                name.clone()
            } else {
                cut(name, MOUNT_LEN)
            }
        })
        .collect();
    let local = summary
        .mounts
        .iter()
        .filter(|mount| mount.driver == "local")
        .count();
    json!({
        "ID": if whole { &summary.id } else { short_id(&summary.id) },
        "Image": summary.image,
        "Command": format!("\"{}\"", if whole { command.clone() } else { cut(command, COMMAND_LEN) }),
        "CreatedAt": time::local(summary.created),
        "RunningFor": ago(Some(summary.created)),
        "State": summary.state,
        "Status": summary.status,
        "Size": sizes,
        "Isolation": summary.isolation,
        "Names": names.join(","),
        "Labels": labels.join(","),
        "LocalVolumes": local.to_string(),
        "Ports": ports::column(&summary.ports),
        "Mounts": mounts.join(","),
        "Networks": networks.join(","),
    })
}

pub(crate) fn remove(args: &RmArgs) -> Result<(), Failure> {
    let engine = engine::open()?;
    let mut failures = Vec::new();
    for name in &args.names {
        match engine.remove(name, args.force, args.volumes) {
            Ok(()) => stdout::print(&format!("{name}\n"))?,
            // Said, and no failure: as in Docker.
            Err(error @ ContainerError::State(StateError::NotFound(_))) if args.force => {
                report(&error.into());
            }
            Err(error) => failures.push(error.into()),
        }
    }
    one_of(failures)
}
