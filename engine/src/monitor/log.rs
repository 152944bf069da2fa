//! The workload's output on disk: one JSON object a line, as Docker's `json-file` driver writes
//! it, in a bounded number of files of bounded size.
//!
//! ```text
//! {"log":"hello\n","stream":"stdout","time":"2026-11-21T12:00:00.123456789Z"}
//! ```
//!
//! The newest file is `container.log`; `container.log.1` and so on are older. A line of output that
//! is longer than 16 KiB is cut into several objects, of which only the last one's `log` ends with
//! a newline.

use super::streams::{OUTPUTS, index};
use crate::plan::life::LogOptions;
use hullbox_protocol::Stream;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Longest piece of a line in one object, in bytes.
const MAX_LINE: usize = 16 * 1024;

/// The newest log file of a container.
#[must_use]
pub fn path(container_dir: &Path) -> PathBuf {
    container_dir.join("container.log")
}

/// An older one: 1 is the last before the newest.
#[must_use]
pub fn older(container_dir: &Path, number: u32) -> PathBuf {
    container_dir.join(format!("container.log.{number}"))
}

/// Writes it.
#[derive(Debug)]
pub(super) struct Log {
    dir: PathBuf,
    options: LogOptions,
    /// Opened with the first line.
    file: Option<File>,
    size: u64,
    /// A beginning of a line, of each stream.
    partial: [Vec<u8>; 2],
    scratch: Vec<u8>,
}

impl Log {
    pub(super) fn new(dir: &Path, options: LogOptions) -> Self {
        Self {
            dir: dir.to_owned(),
            options,
            file: None,
            size: 0,
            partial: [Vec::new(), Vec::new()],
            scratch: Vec::new(),
        }
    }

    /// Adds output. A log that cannot be written is no reason to disturb the workload: what does
    /// not fit is lost.
    pub(super) fn add(&mut self, stream: Stream, mut bytes: &[u8]) {
        let Some(at) = index(stream) else { return };
        let time = now();
        let mut lines = std::mem::take(&mut self.scratch);
        lines.clear();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end + 1);
            bytes = rest;
            let whole = self.joined(at, line);
            write_line(&mut lines, &whole, stream, &time);
        }
        if !bytes.is_empty() {
            self.partial[at].extend_from_slice(bytes);
            while self.partial[at].len() >= MAX_LINE {
                let rest = self.partial[at].split_off(MAX_LINE);
                let piece = std::mem::replace(&mut self.partial[at], rest);
                write_line(&mut lines, &piece, stream, &time);
            }
        }
        self.write(&lines);
        self.scratch = lines;
    }

    /// Writes what has no newline, at the workload's end.
    pub(super) fn finish(&mut self) {
        let time = now();
        let mut lines = Vec::new();
        for stream in OUTPUTS {
            let Some(at) = index(stream) else { continue };
            let rest = std::mem::take(&mut self.partial[at]);
            if !rest.is_empty() {
                write_line(&mut lines, &rest, stream, &time);
            }
        }
        self.write(&lines);
    }

    fn joined<'a>(&mut self, at: usize, line: &'a [u8]) -> std::borrow::Cow<'a, [u8]> {
        if self.partial[at].is_empty() {
            return line.into();
        }
        let mut whole = std::mem::take(&mut self.partial[at]);
        whole.extend_from_slice(line);
        whole.into()
    }

    fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        // Nobody to tell; the next piece tries again.
        let _ = self.try_write(lines);
    }

    fn try_write(&mut self, lines: &[u8]) -> io::Result<()> {
        let len = lines.len() as u64;
        if self.file.is_none() {
            let path = path(&self.dir);
            let file = File::options()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(path)?;
            self.size = file.metadata()?.len();
            self.file = Some(file);
        }
        if self.size > 0 && self.size + len > self.options.max_size_bytes {
            self.rotate()?;
        }
        if let Some(file) = &mut self.file {
            file.write_all(lines)?;
            self.size += len;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        let newest = path(&self.dir);
        if self.options.max_files <= 1 {
            // A reader that follows sees the file shrink.
            self.file = Some(File::options().append(true).open(&newest)?);
            self.size = 0;
            return fs::OpenOptions::new()
                .write(true)
                .truncate(true)
                .open(newest)
                .map(drop);
        }
        for number in (1..self.options.max_files - 1).rev() {
            match fs::rename(older(&self.dir, number), older(&self.dir, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&newest, older(&self.dir, 1))?;
        let file = File::options()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(newest)?;
        self.size = 0;
        self.file = Some(file);
        Ok(())
    }
}

fn write_line(to: &mut Vec<u8>, mut line: &[u8], stream: Stream, time: &str) {
    let name = match stream {
        Stream::Stderr => "stderr",
        _ => "stdout",
    };
    // A line that came in one piece may be long too.
    while !line.is_empty() {
        let (piece, rest) = line.split_at(line.len().min(MAX_LINE));
        line = rest;
        let text = String::from_utf8_lossy(piece);
        to.extend_from_slice(b"{\"log\":");
        // Writing a string to a vector cannot fail.
        let _ = serde_json::to_writer(&mut *to, &text);
        to.extend_from_slice(format!(",\"stream\":\"{name}\",\"time\":\"{time}\"}}\n").as_bytes());
    }
}

fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("hullbox-log-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn lines(path: &Path) -> Vec<(String, String)> {
        fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| {
                let value: Value = serde_json::from_str(line).unwrap();
                let field = |name: &str| value[name].as_str().unwrap().to_owned();
                (field("stream"), field("log"))
            })
            .collect()
    }

    #[test]
    fn lines_of_two_streams_are_kept_apart_and_whole() {
        let dir = scratch("lines");
        let mut log = Log::new(&dir, LogOptions::default());
        log.add(Stream::Stdout, b"one\ntw");
        log.add(Stream::Stderr, b"err\n");
        log.add(Stream::Stdout, b"o\n\xff\"end");
        log.finish();
        let said = |stream: &str, text: &str| (stream.to_owned(), text.to_owned());
        assert_eq!(
            lines(&path(&dir)),
            [
                said("stdout", "one\n"),
                said("stderr", "err\n"),
                said("stdout", "two\n"),
                said("stdout", "\u{fffd}\"end"),
            ]
        );
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn files_stay_within_their_bound() {
        let dir = scratch("bound");
        let options = LogOptions {
            keep: true,
            max_size_bytes: 10_000,
            max_files: 3,
        };
        let mut log = Log::new(&dir, options);
        for i in 0..2000 {
            log.add(Stream::Stdout, format!("line {i}\n").as_bytes());
        }
        let mut total = 0;
        let mut count = 0;
        for entry in fs::read_dir(&dir).unwrap() {
            total += entry.unwrap().metadata().unwrap().len();
            count += 1;
        }
        assert_eq!(count, 3);
        assert!(total <= 30_000, "{total}");
        let newest = lines(&path(&dir));
        assert_eq!(newest.last().unwrap().1, "line 1999\n");
        let before = lines(&older(&dir, 1));
        let number = |line: &str| line.trim()[5..].parse::<u32>().unwrap();
        assert_eq!(
            number(&before.last().unwrap().1) + 1,
            number(&newest[0].1),
            "nothing is lost between two files"
        );
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_line_without_end_is_cut_and_one_file_is_truncated() {
        let dir = scratch("cut");
        let options = LogOptions {
            keep: true,
            max_size_bytes: 100_000,
            max_files: 1,
        };
        let mut log = Log::new(&dir, options);
        for _ in 0..100 {
            log.add(Stream::Stdout, &[b'x'; 5000]);
        }
        assert!(fs::metadata(path(&dir)).unwrap().len() <= 100_000);
        assert!(
            lines(&path(&dir))
                .iter()
                .all(|line| line.1.len() <= MAX_LINE)
        );
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(dir).unwrap();
    }
}
