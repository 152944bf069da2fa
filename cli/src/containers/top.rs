//! `top`: the processes of a container.

use crate::args::container::TopArgs;
use crate::engine;
use crate::output::failure::Failure;
use crate::output::stdout;
use crate::output::text::table;
use hullbox_protocol::ProcessInfo;

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
    let engine = engine::open()?;
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
    stdout::print(&table(&lines))
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
