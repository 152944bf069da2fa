//! `top`, `stats` and `events`: what containers do.

use crate::container_args::{EventsArgs, StatsArgs, TopArgs};
use crate::failure::{Failure, output_failed};
use crate::follow::{Watch, Woken};
use crate::output::{self, Column, Format};
use crate::system;
use crate::text::{size, table};
use hullbox_engine::containers::Engine;
use hullbox_engine::events::{self, Event};
use hullbox_engine::monitor::control::VmUsage;
use hullbox_engine::paths::short_id;
use hullbox_engine::state::{Phase, Record};
use hullbox_model::time as when;
use hullbox_protocol::{ProcessInfo, Usage};
use rustix::event::Timespec;
use rustix::termios::isatty;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
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

/// What was seen of one container.
struct Sample {
    id: String,
    at: Instant,
    cpu_us: u64,
}

pub(crate) fn stats(args: &StatsArgs) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let engine = system::engine()?;
    let mut before: Vec<Sample> = Vec::new();
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

fn sample(
    engine: &Engine,
    args: &StatsArgs,
    before: &mut Vec<Sample>,
) -> Result<Vec<Value>, Failure> {
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
        if !runs && args.names.is_empty() && !args.all {
            continue;
        }
        // One that ends at this moment uses nothing.
        let (usage, vm) = engine.usage(&record).unwrap_or_default();
        let at = Instant::now();
        let last = before.iter().find(|sample| sample.id == record.id);
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
    *before = now;
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

/// Keys of `events --filter`.
const EVENT_FILTERS: [&str; 5] = ["container", "event", "type", "image", "label"];

pub(crate) fn events(args: &EventsArgs) -> Result<(), Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let since = args.since.as_deref().map(when::parse).transpose()?;
    let until = args.until.as_deref().map(when::parse).transpose()?;
    let mut wanted = Vec::new();
    for text in &args.filters {
        let (key, value) = output::filter(text)?;
        if !EVENT_FILTERS.contains(&key) {
            return Err(Failure::new(format!("no filter is called {key:?}"))
                .with_hint(format!("filters are {}", EVENT_FILTERS.join(", "))));
        }
        wanted.push((key, value));
    }
    let roots = hullbox_engine::paths::Roots::from_env()?;
    roots.create()?;
    let [newest, older] = events::paths(&roots);
    let watch = Watch::new(&roots.data)?;
    let show = |line: &[u8], from: Option<i64>| -> Result<bool, Failure> {
        let Ok(event) = serde_json::from_slice::<Event>(line) else {
            return Ok(true);
        };
        if until.is_some_and(|until| event.time_ns >= until) {
            return Ok(false);
        }
        if from.is_none_or(|from| event.time_ns >= from) && fits(&event, &wanted) {
            print_event(&event, &format)?;
        }
        Ok(true)
    };
    let now = chrono::Utc::now().timestamp_nanos_opt();
    let from = since.or(now);
    let mut tail = Tail::open(&newest);
    if since.is_some() {
        Tail::open(&older).each(|line| show(line, from))?;
    }
    loop {
        if !tail.each(|line| show(line, from))? {
            return Ok(());
        }
        if tail.is_replaced(&newest) {
            tail = Tail::open(&newest);
            continue;
        }
        let left = until.zip(chrono::Utc::now().timestamp_nanos_opt());
        let left = left.map(|(until, now)| Timespec {
            tv_sec: (until - now).max(0) / 1_000_000_000,
            tv_nsec: (until - now).max(0) % 1_000_000_000,
        });
        if watch.wait(None, left.as_ref())? == Woken::Timeout {
            tail.each(|line| show(line, from))?;
            return Ok(());
        }
    }
}

fn fits(event: &Event, wanted: &[(&str, &str)]) -> bool {
    let attribute = |name: &str| event.actor.attributes.get(name).map(String::as_str);
    EVENT_FILTERS.iter().all(|key| {
        let mut values = wanted.iter().filter(|(k, _)| k == key).peekable();
        values.peek().is_none()
            || values.any(|(key, value)| match *key {
                "container" => {
                    event.actor.id.starts_with(value) || attribute("name") == Some(value)
                }
                "event" => event.action == *value,
                "type" => event.kind == *value,
                "image" => attribute("image") == Some(value),
                _ => match value.split_once('=') {
                    Some((key, value)) => attribute(key) == Some(value),
                    None => attribute(value).is_some(),
                },
            })
    })
}

fn print_event(event: &Event, format: &Format) -> Result<(), Failure> {
    match format {
        Format::Table => {
            let attributes: Vec<_> = event
                .actor
                .attributes
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            let line = format!(
                "{} {} {} {} ({})",
                when::rfc3339(event.time_ns),
                event.kind,
                event.action,
                event.actor.id,
                attributes.join(", ")
            );
            let line: String = line
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            output::print(&format!("{line}\n"))?;
        }
        _ => output::rows(&[serde_json::to_value(event)?], &[], format)?,
    }
    io::stdout()
        .lock()
        .flush()
        .map_err(|error| output_failed(&error))
}

/// A file of lines that grows.
struct Tail {
    file: Option<BufReader<File>>,
    partial: Vec<u8>,
}

impl Tail {
    fn open(path: &std::path::Path) -> Self {
        Self {
            file: File::open(path).ok().map(BufReader::new),
            partial: Vec::new(),
        }
    }

    /// Gives each line that is new, until it is told to stop; false if it was.
    fn each(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<bool, Failure>,
    ) -> Result<bool, Failure> {
        let Some(file) = &mut self.file else {
            return Ok(true);
        };
        loop {
            let read = file
                .read_until(b'\n', &mut self.partial)
                .map_err(|error| Failure::of("cannot read the events", &error))?;
            if !self.partial.ends_with(b"\n") {
                if read == 0 {
                    return Ok(true);
                }
                continue;
            }
            if !take(&self.partial)? {
                return Ok(false);
            }
            self.partial.clear();
        }
    }

    /// Whether another file has this name now.
    fn is_replaced(&self, path: &std::path::Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        let now = std::fs::metadata(path).ok().map(|now| now.ino());
        let ours = self
            .file
            .as_ref()
            .and_then(|file| file.get_ref().metadata().ok())
            .map(|ours| ours.ino());
        now.is_some() && now != ours
    }
}
