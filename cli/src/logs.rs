//! `logs`: what the workload has said.

use crate::container_args::LogsArgs;
use crate::failure::{Failure, output_failed};
use crate::follow::{Watch, Woken};
use crate::system;
use hullbox_engine::monitor::log;
use hullbox_model::time as when;
use serde::Deserialize;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Older files that are looked for: more than anybody keeps.
const MAX_FILES: u32 = 1000;

/// One object of the log.
#[derive(Debug, Deserialize)]
struct Line {
    log: String,
    stream: String,
    time: String,
}

/// Which lines are wanted, and how.
struct Wanted {
    since_ns: Option<i64>,
    until_ns: Option<i64>,
    timestamps: bool,
}

impl Wanted {
    fn fits(&self, line: &Line) -> bool {
        if self.since_ns.is_none() && self.until_ns.is_none() {
            return true;
        }
        let Ok(time) = when::parse(&line.time) else {
            return true;
        };
        self.since_ns.is_none_or(|since| time >= since)
            && self.until_ns.is_none_or(|until| time < until)
    }

    fn print(&self, line: &Line) -> Result<(), Failure> {
        let stamp = if self.timestamps {
            format!("{} ", line.time)
        } else {
            String::new()
        };
        let text = format!("{stamp}{}", line.log);
        let written = if line.stream == "stderr" {
            io::stderr().write_all(text.as_bytes())
        } else {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        };
        written.map_err(|error| output_failed(&error))
    }
}

pub(crate) fn logs(args: &LogsArgs) -> Result<(), Failure> {
    let engine = system::engine()?;
    let record = engine.find(&args.name)?;
    let life = &record.spec.life;
    if !life.log.keep {
        return Err(Failure::new(format!(
            "nothing is kept of the output of container {}: it was made with --log-driver=none",
            record.name
        )));
    }
    let wanted = Wanted {
        since_ns: args.since.as_deref().map(when::parse).transpose()?,
        until_ns: args.until.as_deref().map(when::parse).transpose()?,
        timestamps: args.timestamps,
    };
    let tail = match args.tail.as_str() {
        "all" => None,
        // Docker takes whatever is no number for "all".
        number => number.parse::<usize>().ok(),
    };
    let dir = engine.roots().container_dir(&record.id);
    // Watched before it is read, so that nothing is missed in between.
    let follow = if args.follow && record.is_active() {
        let ended = engine.watch(&record).ok();
        Some((Watch::new(&dir)?, ended))
    } else {
        None
    };
    let mut newest = show_kept(&dir, tail, &wanted)?;
    if let Some((watch, ended)) = follow {
        loop {
            let other = ended.as_ref().map(AsFd::as_fd);
            let woken = watch.wait(other, None)?;
            newest.show(&dir, &wanted)?;
            if woken == Woken::Other || ended.is_none() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Shows what there is, oldest first; gives the newest file, read to its end.
fn show_kept(dir: &Path, tail: Option<usize>, wanted: &Wanted) -> Result<Reader, Failure> {
    let mut older = Vec::new();
    for number in 1..MAX_FILES {
        let path = log::older(dir, number);
        if !path.exists() {
            break;
        }
        older.push(path);
    }
    let mut last = VecDeque::new();
    let mut take = |line: Line| -> Result<(), Failure> {
        if !wanted.fits(&line) {
            return Ok(());
        }
        match tail {
            None => wanted.print(&line),
            Some(tail) => {
                last.push_back(line);
                if last.len() > tail {
                    last.pop_front();
                }
                Ok(())
            }
        }
    };
    for path in older.iter().rev() {
        let mut reader = Reader::open(path);
        reader.read(&mut take)?;
    }
    let mut newest = Reader::open(&log::path(dir));
    newest.read(&mut take)?;
    for line in &last {
        wanted.print(line)?;
    }
    Ok(newest)
}

/// A log file and how far it was read.
struct Reader {
    path: PathBuf,
    file: Option<BufReader<File>>,
    inode: u64,
    /// A line whose end is not written yet.
    partial: Vec<u8>,
}

impl Reader {
    /// One that is not there is empty.
    fn open(path: &Path) -> Self {
        let file = File::open(path).ok();
        let inode = file.as_ref().and_then(|file| file.metadata().ok());
        Self {
            path: path.to_owned(),
            inode: inode.map_or(0, |metadata| metadata.ino()),
            file: file.map(BufReader::new),
            partial: Vec::new(),
        }
    }

    /// Gives what is new.
    fn read(&mut self, take: &mut dyn FnMut(Line) -> Result<(), Failure>) -> Result<(), Failure> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        loop {
            let read = file.read_until(b'\n', &mut self.partial);
            let read = read.map_err(|error| {
                Failure::of(format!("cannot read {}", self.path.display()), &error)
            })?;
            if !self.partial.ends_with(b"\n") {
                if read == 0 {
                    return Ok(());
                }
                continue;
            }
            // What is no object was cut off by a full disk or a killed monitor.
            if let Ok(line) = serde_json::from_slice(&self.partial) {
                take(line)?;
            }
            self.partial.clear();
        }
    }

    /// Shows what is new, in this file and in one that has taken its place.
    fn show(&mut self, dir: &Path, wanted: &Wanted) -> Result<(), Failure> {
        let mut take = |line: Line| {
            if wanted.fits(&line) {
                wanted.print(&line)
            } else {
                Ok(())
            }
        };
        self.read(&mut take)?;
        let path = log::path(dir);
        let now = std::fs::metadata(&path);
        let (inode, len) = now.map_or((0, 0), |now| (now.ino(), now.len()));
        let position = match &mut self.file {
            Some(file) => io::Seek::stream_position(file).unwrap_or(0),
            None => 0,
        };
        // Another file, or this one from its beginning.
        if inode != self.inode || len < position {
            *self = Self::open(&path);
            self.read(&mut take)?;
        }
        Ok(())
    }
}
