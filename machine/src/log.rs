//! The machine's log: what the console and the helpers say, bounded.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A log file is set aside when it has this many bytes; one older is kept.
const MAX_BYTES: u64 = 1024 * 1024;
/// Last bytes kept in memory, to say why a start failed.
const TAIL_BYTES: usize = 4096;

/// A log of at most two files of [`MAX_BYTES`].
#[derive(Debug)]
pub struct BoundedLog {
    path: PathBuf,
    file: File,
    written: u64,
    tail: VecDeque<u8>,
}

impl BoundedLog {
    /// Starts a new log; the one before it is kept beside it.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: fresh(path)?,
            written: 0,
            tail: VecDeque::new(),
        })
    }

    /// Adds bytes. A log that cannot be written must not stop the machine, so errors are dropped.
    pub fn write(&mut self, bytes: &[u8]) {
        self.tail.extend(bytes);
        let excess = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..excess);
        if self.written >= MAX_BYTES
            && let Ok(file) = fresh(&self.path)
        {
            self.file = file;
            self.written = 0;
        }
        let _ = self.file.write_all(bytes);
        self.written = self
            .written
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }

    /// Adds a line of our own.
    pub fn note(&mut self, line: &str) {
        self.write(format!("machine: {line}\n").as_bytes());
    }

    /// The last lines, oldest first.
    #[must_use]
    pub fn tail(&self) -> Vec<String> {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        String::from_utf8_lossy(&bytes)
            .lines()
            .map(|line| line.trim_end().to_owned())
            .filter(|line| !line.is_empty())
            .collect()
    }
}

fn fresh(path: &Path) -> io::Result<File> {
    let mut older = path.as_os_str().to_owned();
    older.push(".1");
    match fs::rename(path, older) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_is_bounded_and_the_tail_is_kept() {
        let dir = std::env::temp_dir().join(format!("hullbox-log-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut log = BoundedLog::create(&dir.join("log")).unwrap();
        for _ in 0..100 {
            log.write(&[b'x'; 64 * 1024]);
        }
        log.note("end");
        let size = |name: &str| fs::metadata(dir.join(name)).unwrap().len();
        assert!(size("log") <= MAX_BYTES + 64 * 1024);
        assert!(size("log.1") <= MAX_BYTES + 64 * 1024);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        assert!(log.tail().concat().ends_with("machine: end"));
        fs::remove_dir_all(dir).unwrap();
    }
}
