//! Reads a container's log, and goes on reading as it grows and its files are rotated.

use super::backward::Backward;
use super::{decode, older, path};
use hullbox_model::log::{LogLine, LogQuery};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Older files that are looked for: more than anybody may keep.
const MAX_FILES: u32 = 1001;

/// A log that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the log in {dir}", dir = dir.display())]
pub struct LogError {
    dir: PathBuf,
    #[source]
    source: io::Error,
}

impl LogError {
    pub(super) fn new(dir: &Path, source: io::Error) -> Self {
        Self {
            dir: dir.to_owned(),
            source,
        }
    }
}

/// A file of the log, open: it can be read to its end whatever becomes of its name.
struct Opened {
    file: BufReader<File>,
    inode: u64,
}

/// Where a stream's wanted lines begin: a file's place in the order of age, and an offset.
type Place = (usize, u64);

/// Gives a log's lines in their order.
pub struct LogReader {
    dir: PathBuf,
    query: LogQuery,
    /// What is to be read, oldest first. The first one is being read; the last one may grow.
    files: VecDeque<Opened>,
    /// The first one's number, counted from the first of all.
    number: usize,
    /// Where the next object begins in the first one.
    offset: u64,
    /// Where each stream begins.
    begin: [Place; 2],
    /// An object whose end is not written yet.
    unfinished: Vec<u8>,
}

impl LogReader {
    /// Opens the log of the container with this directory. One that is not there is empty.
    ///
    /// # Errors
    /// A file that is there cannot be read.
    pub fn open(container_dir: &Path, query: LogQuery) -> Result<Self, LogError> {
        let mut reader = Self {
            dir: container_dir.to_owned(),
            query,
            files: VecDeque::new(),
            number: 0,
            offset: 0,
            begin: [(0, 0); 2],
            unfinished: Vec::new(),
        };
        reader.files = reader.newer_than(None)?;
        if let Some(tail) = query.tail {
            reader.begin = reader.last_lines(tail)?;
            let first = reader.begin[0].min(reader.begin[1]);
            for _ in 0..first.0.min(reader.files.len().saturating_sub(1)) {
                reader.next_file();
            }
            if let Some(opened) = reader
                .files
                .front_mut()
                .filter(|_| first.0 == reader.number)
            {
                let sought = opened.file.seek(SeekFrom::Start(first.1));
                reader.offset = sought.map_err(|error| reader.failed(error))?;
            }
        }
        Ok(reader)
    }

    /// The next wanted line or piece of one; `None` if there is none now. Later there may be.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn next_line(&mut self) -> Result<Option<LogLine>, LogError> {
        loop {
            let Some((place, line)) = self.next_object()? else {
                return Ok(None);
            };
            let Some(line) = decode(&line) else {
                continue;
            };
            let at = line.stream.index();
            if place < self.begin[at] || !self.query.fits(line.time_ns) {
                continue;
            }
            return Ok(Some(line));
        }
    }

    fn next_object(&mut self) -> Result<Option<(Place, Vec<u8>)>, LogError> {
        loop {
            if self.files.is_empty() {
                self.files = self.newer_than(None)?;
            }
            let Some(opened) = self.files.front_mut() else {
                return Ok(None);
            };
            let inode = opened.inode;
            let read = opened.file.read_until(b'\n', &mut self.unfinished);
            let read = read.map_err(|source| LogError {
                dir: self.dir.clone(),
                source,
            })?;
            if self.unfinished.ends_with(b"\n") {
                let place = (self.number, self.offset);
                let line = std::mem::take(&mut self.unfinished);
                self.offset += line.len() as u64;
                return Ok(Some((place, line)));
            }
            if read > 0 {
                continue;
            }
            if self.files.len() == 1 {
                // Its name says whether it may still grow. Looked at before its end is read
                // for the last time, for it was renamed after the last write.
                let newer = self.newer_than(Some(inode))?;
                if newer.is_empty() {
                    return Ok(None);
                }
                self.files.extend(newer);
                continue;
            }
            self.next_file();
        }
    }

    fn next_file(&mut self) {
        let _ = self.files.pop_front();
        self.number += 1;
        self.offset = 0;
        self.unfinished.clear();
    }

    /// The files that are newer than the one with this inode, oldest first; all if it is gone.
    ///
    /// They are opened newest first. A rotation in between makes one of them appear twice, or
    /// leaves one name without a file for a moment; it hides none.
    fn newer_than(&self, inode: Option<u64>) -> Result<VecDeque<Opened>, LogError> {
        let mut found = VecDeque::<Opened>::new();
        let mut missing = 0;
        for number in 0..=MAX_FILES {
            let path = match number {
                0 => path(&self.dir),
                number => older(&self.dir, number),
            };
            let file = match File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    missing += 1;
                    if missing > 1 {
                        break;
                    }
                    continue;
                }
                Err(error) => return Err(self.failed(error)),
            };
            missing = 0;
            let metadata = file.metadata().map_err(|error| self.failed(error))?;
            if Some(metadata.ino()) == inode {
                break;
            }
            if found.iter().any(|opened| opened.inode == metadata.ino()) {
                continue;
            }
            found.push_front(Opened {
                inode: metadata.ino(),
                file: BufReader::new(file),
            });
        }
        Ok(found)
    }

    /// Where each stream's part of the last lines begins. A stream of which nothing is wanted
    /// begins with what will be written.
    fn last_lines(&self, tail: usize) -> Result<[Place; 2], LogError> {
        let failed = |source| self.failed(source);
        let newest = self.files.len().saturating_sub(1);
        let mut begin = [(newest, 0); 2];
        let mut left = tail;
        // Within a line, and whether that one is wanted.
        let mut open = [None::<bool>; 2];
        for (number, opened) in self.files.iter().enumerate().rev() {
            let file = opened.file.get_ref();
            let len = file.metadata().map_err(failed)?.len();
            let mut lines = Backward::new(file, len);
            let mut first = number == newest;
            if first {
                begin = [(number, len); 2];
            }
            while left > 0 || open.contains(&Some(true)) || first {
                let Some((offset, line)) = lines.next().map_err(failed)? else {
                    break;
                };
                if std::mem::take(&mut first) && !line.ends_with(b"\n") {
                    // It is being written.
                    begin = [(number, offset); 2];
                    continue;
                }
                let Some(line) = decode(&line).filter(|line| self.query.fits(line.time_ns)) else {
                    continue;
                };
                let at = line.stream.index();
                if open[at].is_none() || !line.partial {
                    open[at] = Some(left > 0);
                    left = left.saturating_sub(1);
                }
                if open[at] == Some(true) {
                    begin[at] = (number, offset);
                }
                if !line.continues {
                    open[at] = None;
                }
            }
        }
        Ok(begin)
    }

    pub(super) fn failed(&self, source: io::Error) -> LogError {
        LogError::new(&self.dir, source)
    }
}
