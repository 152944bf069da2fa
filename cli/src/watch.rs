//! `top`, `stats` and `events`: what containers do.

use crate::container_args::{EventsArgs, StatsArgs, TopArgs};
use crate::failure::Failure;
use crate::output::{self, Column, Format, piped_output};
use crate::system;
use crate::text::{size, table};
use hullbox_engine::containers::{ContainerError, Engine};
use hullbox_engine::events::Query;
use hullbox_engine::monitor::control::VmUsage;
use hullbox_engine::paths::short_id;
use hullbox_engine::state::{Phase, Record};
use hullbox_model::event::{self, Event, EventFilter};
use hullbox_model::time;
use hullbox_protocol::{ProcessInfo, Usage};
use rustix::termios::isatty;
use serde_json::{Value, json};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

pub(crate) fn top(args: &TopArgs) -> Result<(), Failure> {
    let options: Vec<_> = args.options.iter().map(String::as_str).collect();
    let aux = match options[..] {
        [] | ["-ef"] | ["-f" | "-e"] => false,
        ["aux" | "-aux"] => true,
        _ => {
            return Err(Failure::new(format!(
                "options {:?} of ps are not supported",
                args.options.join(" ")
            ))
            .with_hint(
                "leave them out, or use -ef or aux; 'hullbox exec' runs the container's own ps",
            ));
        }
    };
    let engine = system::engine()?;
    let record = engine.find(&args.name)?;
    let processes = engine.processes(&record)?;
    let mut lines = vec![if aux {
        row(&[
            "USER", "PID", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND",
        ])
    } else {
        row(&["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"])
    }];
    lines.extend(processes.iter().map(|process| line(process, aux)));
    output::print(&table(&lines))
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn line(process: &ProcessInfo, aux: bool) -> Vec<String> {
    let started = chrono::DateTime::from_timestamp_nanos(process.started_ns);
    let started = started
        .with_timezone(&chrono::Local)
        .format("%H:%M")
        .to_string();
    let tty = if process.tty.is_empty() {
        "?".to_owned()
    } else {
        process.tty.clone()
    };
    let seconds = process.cpu_ms / 1000;
    let time = format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    if aux {
        return vec![
            process.uid.to_string(),
            process.pid.to_string(),
            (process.virtual_bytes / 1024).to_string(),
            (process.resident_bytes / 1024).to_string(),
            tty,
            process.state.to_string(),
            started,
            time,
            process.command.clone(),
        ];
    }
    vec![
        process.uid.to_string(),
        process.pid.to_string(),
        process.ppid.to_string(),
        "0".to_owned(),
        started,
        tty,
        time,
        process.command.clone(),
    ]
}

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
    /// Containers that nobody named and whose monitors do not answer: asked once.
    silent: Vec<String>,
}

/// What was seen of one container.
struct Sample {
    id: String,
    at: Instant,
    cpu_us: u64,
}

pub(crate) fn stats(args: &StatsArgs) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let engine = system::engine()?;
    let mut before = Seen::default();
    // CPU use is a difference: the first sample alone tells nothing of it.
    sample(&engine, args, &mut before)?;
    let live = !args.no_stream;
    let clears = live && matches!(format, Format::Table) && isatty(io::stdout().as_fd());
    loop {
        // Docker's interval; shorter where only one picture is wanted.
        std::thread::sleep(Duration::from_millis(if live { 1000 } else { 250 }));
        let rows = sample(&engine, args, &mut before)?;
        if clears {
            output::print("\x1b[H\x1b[2J")?;
        }
        output::rows(&rows, &STATS, &format)?;
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
        let (usage, vm) = match engine.usage(&record) {
            Err(error @ ContainerError::NoAnswer(_)) if args.names.is_empty() => {
                crate::failure::report(&error.into());
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
        let last = before.samples.iter().find(|sample| sample.id == record.id);
        let percent = last.map_or(0.0, |last| {
            let time = at.duration_since(last.at).as_secs_f64();
            let cpu = usage.cpu_us.saturating_sub(last.cpu_us);
            cpu as f64 / 1e4 / time.max(1e-6)
        });
        rows.push(stats_row(
            &record,
            &usage,
            vm.as_ref(),
            percent,
            args.no_trunc,
        ));
        now.push(Sample {
            id: record.id,
            at,
            cpu_us: usage.cpu_us,
        });
    }
    before.samples = now;
    Ok(rows)
}

fn stats_row(
    record: &Record,
    usage: &Usage,
    vm: Option<&VmUsage>,
    cpu_percent: f64,
    whole: bool,
) -> Value {
    // As Docker: what could be dropped at once is not counted as used.
    let used = usage.memory_bytes.saturating_sub(usage.cache_bytes);
    let memory_percent = 100.0 * used as f64 / usage.memory_limit_bytes.max(1) as f64;
    let pair = |a, b| format!("{} / {}", size(a), size(b));
    let mut row = json!({
        "ID": if whole { &record.id } else { short_id(&record.id) },
        "Container": record.id,
        "Name": record.name,
        "CPUPerc": format!("{cpu_percent:.2}%"),
        "MemUsage": pair(used, usage.memory_limit_bytes),
        "MemPerc": format!("{memory_percent:.2}%"),
        "NetIO": pair(usage.network_receive_bytes, usage.network_transmit_bytes),
        "BlockIO": pair(usage.block_read_bytes, usage.block_write_bytes),
        "PIDs": usage.pids.to_string(),
    });
    if let Some(vm) = vm {
        let events: serde_json::Map<_, _> = vm
            .events
            .iter()
            .map(|(name, count)| (name.clone(), Value::from(*count)))
            .collect();
        row["VM"] = json!({
            "Events": events,
            "HostPrivate": size(vm.host_private_bytes),
            "HostResident": size(vm.host_resident_bytes),
        });
    }
    row
}

pub(crate) fn events(args: &EventsArgs) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let query = Query {
        since_ns: args.since.as_deref().map(time::parse).transpose()?,
        until_ns: args.until.as_deref().map(time::parse).transpose()?,
        filter: EventFilter::new(output::filters(&args.filters, event::KEYS)?),
    };
    let engine = system::engine()?;
    let mut events = engine.events(query)?;
    while let Some(event) = events.next_event_for(piped_output())? {
        print_event(&event, &format)?;
    }
    Ok(())
}

fn print_event(event: &Event, format: &Format) -> Result<(), Failure> {
    match format {
        Format::Table => output::print(&event_line(event)),
        Format::Json => output::print(&format!("{}\n", event.to_api())),
        _ => output::rows(&[event.to_template()], &[], format),
    }
}

/// As Docker's client prints it.
fn event_line(event: &Event) -> String {
    let attributes: Vec<_> = event
        .actor
        .attributes
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let mut line = format!(
        "{} {} {} {}",
        time::rfc3339(event.time_ns),
        event.kind.as_str(),
        event.action,
        event.actor.id,
    );
    if !attributes.is_empty() {
        line.push_str(&format!(" ({})", attributes.join(", ")));
    }
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    line.chars().map(clean).chain(['\n']).collect()
}
