//! `logs`: what the workload has said.

use crate::container_args::LogsArgs;
use crate::failure::{Failure, output_failed};
use crate::follow::{Watch, Woken};
use crate::system;
use hullbox_engine::logs::LogReader;
use hullbox_model::log::{LogLine, LogQuery, LogStream};
use hullbox_model::time as when;
use rustix::event::Timespec;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::os::fd::AsFd;

pub(crate) fn logs(args: &LogsArgs) -> Result<(), Failure> {
    let engine = system::engine()?;
    let record = engine.find(&args.name)?;
    if !record.spec.life.log.keep {
        return Err(Failure::new(format!(
            "nothing is kept of the output of container {}: it was made with --log-driver=none",
            record.name
        )));
    }
    let query = LogQuery {
        since_ns: args.since.as_deref().map(when::parse).transpose()?,
        until_ns: args.until.as_deref().map(when::parse).transpose()?,
        // Docker takes whatever is no number for "all".
        tail: args.tail.parse().ok(),
    };
    let dir = engine.roots().container_dir(&record.id);
    // Watched before it is read, so that nothing is missed in between.
    let follow = if args.follow && record.is_active() {
        let ended = engine.watch(&record).ok();
        Some((Watch::new(&dir)?, ended))
    } else {
        None
    };
    let mut reader = LogReader::open(&dir, query)?;
    let mut printer = Printer::new(args.timestamps);
    printer.all(&mut reader)?;
    let Some((watch, Some(ended))) = follow else {
        return Ok(());
    };
    loop {
        let left = query.until_ns.map(time_left);
        let woken = watch.wait(Some(ended.as_fd()), left.as_ref())?;
        printer.all(&mut reader)?;
        if woken != Woken::Changed || left.is_some_and(|left| left == Timespec::default()) {
            return Ok(());
        }
    }
}

/// From now until then; nothing if that is over.
fn time_left(until_ns: i64) -> Timespec {
    let now = when::parse("0s").unwrap_or(i64::MAX);
    let left = until_ns.saturating_sub(now).max(0);
    Timespec {
        tv_sec: left / 1_000_000_000,
        tv_nsec: left % 1_000_000_000,
    }
}

/// Writes lines where the workload wrote them.
struct Printer {
    stamps: bool,
    out: BufWriter<StdoutLock<'static>>,
    /// A stream's last line was shown without its end.
    within: [bool; 2],
}

impl Printer {
    fn new(stamps: bool) -> Self {
        Self {
            stamps,
            out: BufWriter::new(io::stdout().lock()),
            within: [false; 2],
        }
    }

    /// Shows what there is now.
    fn all(&mut self, reader: &mut LogReader) -> Result<(), Failure> {
        while let Some(line) = reader.next_line()? {
            self.show(&line).map_err(|error| output_failed(&error))?;
        }
        self.out.flush().map_err(|error| output_failed(&error))
    }

    fn show(&mut self, line: &LogLine) -> io::Result<()> {
        let within = std::mem::replace(&mut self.within[line.stream.index()], line.partial);
        let mut text = Vec::new();
        if self.stamps && !(within && line.continues) {
            text = when::rfc3339(line.time_ns).into_bytes();
            text.push(b' ');
        }
        text.extend_from_slice(&line.bytes);
        match line.stream {
            LogStream::Stdout => self.out.write_all(&text),
            LogStream::Stderr => {
                self.out.flush()?;
                io::stderr().write_all(&text)
            }
        }
    }
}
