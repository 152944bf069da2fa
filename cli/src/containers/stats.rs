//! `stats`: the resource usage of containers.

use crate::args::container::StatsArgs;
use crate::engine;
use crate::output::failure::{Failure, report};
use crate::output::format::{self, Column, Format};
use crate::output::stdout;
use crate::output::text::{memory, size};
use hullbox_engine::containers::{ContainerError, Engine};
use hullbox_engine::paths::short_id;
use hullbox_engine::state::{Phase, Record};
use hullbox_model::stats::Stats;
use rustix::termios::isatty;
use serde_json::{Value, json};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const STATS: [Column; 8] = [
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
];

/// What was seen the last time.
#[derive(Default)]
struct Seen {
    samples: Vec<Sample>,
    /// Containers, not named on the command line, whose monitors do not answer: they are asked once.
    silent: Vec<String>,
}

/// What was seen of one container.
struct Sample {
    id: String,
    at: Instant,
    cpu_ns: u64,
}

pub(crate) fn stats(args: &StatsArgs) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let engine = engine::open()?;
    let mut before = Seen::default();
    // CPU usage is a difference of two samples.
    sample(&engine, args, &mut before)?;
    let live = !args.no_stream;
    let clears = live && matches!(format, Format::Table) && isatty(io::stdout().as_fd());
    loop {
        // Docker's interval; shorter where only one picture is wanted.
        std::thread::sleep(Duration::from_millis(if live { 1000 } else { 250 }));
        let rows = sample(&engine, args, &mut before)?;
        if clears {
            stdout::print("\x1b[H\x1b[2J")?;
        }
        format::rows(&rows, &STATS, &format)?;
        if !live {
            return Ok(());
        }
    }
}

fn sample(engine: &Engine, args: &StatsArgs, before: &mut Seen) -> Result<Vec<Value>, Failure> {
    let records = if args.names.is_empty() {
        engine.state().list()?
    } else {
        let found: Result<Vec<_>, _> = args.names.iter().map(|name| engine.find(name)).collect();
        found?
    };
    let mut rows = Vec::new();
    let mut now = Vec::new();
    for record in records {
        let runs = matches!(record.phase, Phase::Running | Phase::Paused);
        if !runs && args.names.is_empty() && !args.all || before.silent.contains(&record.id) {
            continue;
        }
        let usage = match engine.stats(&record) {
            Err(error @ ContainerError::NoAnswer(_)) if args.names.is_empty() => {
                report(&error.into());
                before.silent.push(record.id);
                continue;
            }
            Err(error @ ContainerError::NoAnswer(_)) => return Err(error.into()),
            // Its monitor has asked it in vain.
            Err(error @ ContainerError::Refused(_)) if runs && !args.names.is_empty() => {
                return Err(error.into());
            }
            // One that ends at this moment uses nothing.
            usage => usage.unwrap_or_default(),
        };
        let at = Instant::now();
        let cpu_ns = usage.cpu_stats.cpu_usage.total_usage;
        let last = before.samples.iter().find(|sample| sample.id == record.id);
        let percent = last.map_or(0.0, |last| {
            let time = at.duration_since(last.at).as_secs_f64();
            let cpu = cpu_ns.saturating_sub(last.cpu_ns);
            cpu as f64 / 1e7 / time.max(1e-6)
        });
        rows.push(stats_row(&record, &usage, percent, args.no_trunc));
        now.push(Sample {
            id: record.id,
            at,
            cpu_ns,
        });
    }
    before.samples = now;
    Ok(rows)
}

fn stats_row(record: &Record, usage: &Stats, cpu_percent: f64, whole: bool) -> Value {
    let (used, limit) = (usage.memory_stats.used(), usage.memory_stats.limit);
    let memory_percent = 100.0 * used as f64 / limit.max(1) as f64;
    let pair = |(a, b)| format!("{} / {}", size(a), size(b));
    let mut row = json!({
        "ID": if whole { &record.id } else { short_id(&record.id) },
        "Container": record.id,
        "Name": record.name,
        "CPUPerc": format!("{cpu_percent:.2}%"),
        "MemUsage": format!("{} / {}", memory(used), memory(limit)),
        "MemPerc": format!("{memory_percent:.2}%"),
        "NetIO": pair(usage.network_bytes()),
        "BlockIO": pair(usage.blkio_stats.bytes()),
        "PIDs": usage.pids_stats.current.to_string(),
    });
    if let Some(vm) = &usage.vm {
        row["VM"] = json!({
            "Events": vm.events,
            "HostPrivate": size(vm.host_private),
            "HostResident": size(vm.host_resident),
        });
    }
    row
}
