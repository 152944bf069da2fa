//! `logs`: the workload's output.

use crate::args::container::LogsArgs;
use crate::engine;
use crate::output::failure::{Failure, output_failed};
use crate::output::stdout::piped_output;
use hullbox_engine::logs::LogFollower;
use hullbox_model::log::{LogLine, LogQuery, LogStream};
use hullbox_model::time as when;
use std::io::{self, BufWriter, StdoutLock, Write};

pub(crate) fn logs(args: &LogsArgs) -> Result<(), Failure> {
    let engine = engine::open()?;
    let record = engine.find(&args.name)?;
    let query = LogQuery {
        since_ns: args.since.as_deref().map(when::parse).transpose()?,
        until_ns: args.until.as_deref().map(when::parse).transpose()?,
        // Docker takes whatever is no number for "all".
        tail: args.tail.parse().ok(),
    };
    let mut log = engine.logs(&record, query, args.follow)?;
    let mut printer = Printer::new(args.timestamps, args.details);
    loop {
        printer.all(&mut log)?;
        if !log.wait_for(piped_output())? {
            return Ok(());
        }
    }
}

/// Writes lines where the workload wrote them.
struct Printer {
    stamps: bool,
    /// As in Docker, attributes and a blank are before each line; there are no attributes.
    details: bool,
    out: BufWriter<StdoutLock<'static>>,
    /// A stream's last line was shown without its end.
    within: [bool; 2],
}

impl Printer {
    fn new(stamps: bool, details: bool) -> Self {
        Self {
            stamps,
            details,
            out: BufWriter::new(io::stdout().lock()),
            within: [false; 2],
        }
    }

    /// Shows what there is now.
    fn all(&mut self, log: &mut LogFollower) -> Result<(), Failure> {
        while let Some(line) = log.try_next()? {
            self.show(&line).map_err(|error| output_failed(&error))?;
        }
        self.out.flush().map_err(|error| output_failed(&error))
    }

    fn show(&mut self, line: &LogLine) -> io::Result<()> {
        let within = std::mem::replace(&mut self.within[line.stream.index()], line.partial);
        let mut text = Vec::new();
        if !(within && line.continues) {
            if self.stamps {
                text = when::rfc3339(line.time_ns).into_bytes();
                text.push(b' ');
            }
            if self.details {
                text.push(b' ');
            }
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
