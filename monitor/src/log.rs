//! Writes the workload's output to its log: see [`hullbox_state::logs`] for the form.

use super::streams::{OUTPUTS, index};
use hullbox_model::log::LogStream;
use hullbox_plan::life::LogOptions;
use hullbox_protocol::Stream;
use hullbox_state::logs::{encode, older, path};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest piece of a line in one object, in bytes.
const MAX_LINE: usize = 16 * 1024;

/// How long the beginning of a line waits for its end: a prompt is seen, and a program that
/// writes letter by letter does not fill the log with objects.
const PATIENCE: Duration = Duration::from_millis(100);

/// What a stream has begun.
#[derive(Debug, Default)]
struct Begun {
    /// Not written yet.
    bytes: Vec<u8>,
    /// Its line's beginning was written.
    continues: bool,
}

/// Writes it.
#[derive(Debug)]
pub(super) struct Log {
    dir: PathBuf,
    options: LogOptions,
    /// Opened with the first line.
    file: Option<File>,
    /// Of the file, with what is in `buffer`.
    size: u64,
    begun: [Begun; 2],
    /// When beginnings of lines are written without their ends.
    due: Option<Instant>,
    /// Whole objects that go to the file next.
    buffer: Vec<u8>,
}

impl Log {
    pub(super) fn new(dir: &Path, options: LogOptions) -> Self {
        Self {
            dir: dir.to_owned(),
            options,
            file: None,
            size: 0,
            begun: Default::default(),
            due: None,
            buffer: Vec::new(),
        }
    }

    /// Adds output. A log that cannot be written is no reason to disturb the workload: what does
    /// not fit is lost.
    pub(super) fn add(&mut self, stream: Stream, bytes: &[u8]) {
        let Some(at) = index(stream) else { return };
        let time = now();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun[at].bytes.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.begun[at].bytes.len() >= MAX_LINE {
                self.put_begun(stream, at, false, &time);
            }
        }
        self.flush();
        let waiting = self.begun.iter().any(|begun| !begun.bytes.is_empty());
        let due = || Instant::now() + PATIENCE;
        self.due = waiting.then(|| self.due.unwrap_or_else(due));
    }

    /// When [`Self::write_begun`] is to be called.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Writes beginnings of lines, without the beginning of a character at their ends.
    pub(super) fn write_begun(&mut self, now: Instant) {
        if self.due.is_some_and(|due| now >= due) {
            self.put_all(false);
        }
    }

    /// Writes what has no newline, at the workload's end.
    pub(super) fn finish(&mut self) {
        self.put_all(true);
        for begun in &mut self.begun {
            begun.continues = false;
        }
    }

    fn put_all(&mut self, last: bool) {
        self.due = None;
        let time = now();
        for stream in OUTPUTS {
            if let Some(at) = index(stream) {
                self.put_begun(stream, at, true, &time);
                if last && !self.begun[at].bytes.is_empty() {
                    let rest = std::mem::take(&mut self.begun[at].bytes);
                    self.put(&rest, stream, at, &time);
                }
            }
        }
        self.flush();
    }

    /// Makes objects of what a stream has begun: of whole pieces, and if `all` of a short one too.
    fn put_begun(&mut self, stream: Stream, at: usize, all: bool, time: &str) {
        let mut bytes = std::mem::take(&mut self.begun[at].bytes);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let whole = rest.len() <= MAX_LINE && rest.ends_with(b"\n");
            let take = match (whole, rest.len() >= MAX_LINE || all) {
                (true, _) => rest.len(),
                (false, true) => characters(&rest[..rest.len().min(MAX_LINE)]),
                (false, false) => break,
            };
            if take == 0 {
                break;
            }
            let (piece, after) = rest.split_at(take);
            self.put(piece, stream, at, time);
            rest = after;
        }
        let done = bytes.len() - rest.len();
        drop(bytes.drain(..done));
        self.begun[at].bytes = bytes;
    }

    /// Makes an object, which begins a new file where it does not fit into this one.
    fn put(&mut self, piece: &[u8], stream: Stream, at: usize, time: &str) {
        let ends = piece.ends_with(b"\n");
        let continues = std::mem::replace(&mut self.begun[at].continues, !ends);
        let stream = match stream {
            Stream::Stderr => LogStream::Stderr,
            _ => LogStream::Stdout,
        };
        if self.open().is_err() {
            // There is nobody to report this to; the next piece tries again.
            return;
        }
        let before = self.buffer.len();
        encode(&mut self.buffer, piece, stream, continues, time);
        let len = (self.buffer.len() - before) as u64;
        if self.size > 0 && self.size.saturating_add(len) > self.options.max_size_bytes {
            let object = self.buffer.split_off(before);
            self.flush();
            if self.rotate().is_err() {
                return;
            }
            self.buffer = object;
        }
        self.size += len;
    }

    fn open(&mut self) -> io::Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        let file = File::options()
            .append(true)
            .read(true)
            .create(true)
            .mode(0o600)
            .open(path(&self.dir))?;
        self.size = file.metadata()?.len();
        let mut last = [b'\n'];
        if self.size > 0 {
            file.read_exact_at(&mut last, self.size - 1)?;
        }
        if last != [b'\n'] {
            // A monitor was killed while it wrote.
            (&file).write_all(b"\n")?;
            self.size += 1;
        }
        self.file = Some(file);
        Ok(())
    }

    fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let before = self.size - self.buffer.len() as u64;
        if let Some(file) = &mut self.file
            && file.write_all(&self.buffer).is_err()
        {
            // Half an object would spoil the next one.
            let _ = file.set_len(before);
            self.size = before;
        }
        self.buffer.clear();
    }

    /// Begins a new file. What was written stays as it is under another name or none, so that
    /// whoever reads it can read it to its end.
    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        let newest = path(&self.dir);
        for number in (1..self.options.max_files.saturating_sub(1)).rev() {
            match fs::rename(older(&self.dir, number), older(&self.dir, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.options.max_files <= 1 {
            fs::remove_file(&newest)?;
        } else {
            fs::rename(&newest, older(&self.dir, 1))?;
        }
        self.open()
    }
}

/// How much of this is whole characters; all of it if it is no UTF-8 anyway.
fn characters(bytes: &[u8]) -> usize {
    let end = &bytes[bytes.len().saturating_sub(3)..];
    for (at, byte) in end.iter().enumerate() {
        let len = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        let continued = end[at + 1..]
            .iter()
            .all(|byte| (0x80..=0xbf).contains(byte));
        if len > end.len() - at && continued {
            return bytes.len() - end.len() + at;
        }
    }
    bytes.len()
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
    fn a_line_without_end_is_cut_and_one_file_is_replaced() {
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

    #[test]
    fn beginnings_of_lines_are_written_after_a_while_and_characters_are_whole() {
        let dir = scratch("begun");
        let mut log = Log::new(&dir, LogOptions::default());
        log.add(Stream::Stdout, "name? é".as_bytes());
        log.add(Stream::Stdout, &"é".as_bytes()[..1]);
        let due = log.due().unwrap();
        log.write_begun(due - Duration::from_nanos(1));
        assert!(!path(&dir).exists());
        log.write_begun(due);
        assert_eq!(lines(&path(&dir))[0].1, "name? é");
        assert_eq!(log.due(), None);
        log.add(Stream::Stdout, &"é".as_bytes()[1..]);
        log.add(Stream::Stdout, b"!\n");
        let long = "x".to_owned() + &"é".repeat(20_000) + "\n";
        log.add(Stream::Stdout, long.as_bytes());
        let read: Vec<_> = lines(&path(&dir)).into_iter().map(|line| line.1).collect();
        assert_eq!(read.concat(), format!("name? éé!\n{long}"));
        assert!(read.iter().all(|line| line.len() <= MAX_LINE));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn characters_are_not_cut() {
        assert_eq!(characters("aé".as_bytes()), 3);
        assert_eq!(characters(b"a\xc3"), 1);
        assert_eq!(characters(b"a\xe2\x82"), 1);
        assert_eq!(characters(b"a\xf0\x9f\x98"), 1);
        assert_eq!(characters(b"\xff\xff"), 2);
        assert_eq!(characters(b"\x80\x80\x80\x80"), 4);
        assert_eq!(characters(b""), 0);
    }
}
