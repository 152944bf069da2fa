//! A log as it grows.

use super::{LogError, LogReader};
use hullbox_host::watch::{Watch, Woken};
use hullbox_model::log::{LogLine, LogQuery};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// Gives a log's lines in their order, and those that are written meanwhile.
pub struct LogFollower {
    reader: LogReader,
    until_ns: Option<i64>,
    /// While more may come: what tells of it, and what closes when the container has ended.
    following: Option<(Watch, OwnedFd)>,
}

impl LogFollower {
    /// Opens the log of the container with this directory. Given `ended`, which closes when the
    /// container has ended, it waits for more until then, or until the query's end.
    ///
    /// # Errors
    /// A file that is there cannot be read, or the directory cannot be watched.
    pub fn open(dir: &Path, query: LogQuery, ended: Option<OwnedFd>) -> Result<Self, LogError> {
        // Watched before it is read, so that nothing is missed in between.
        let following = ended.map(|ended| {
            let watch = Watch::new()?;
            watch.add_dir(dir)?;
            Ok((watch, ended))
        });
        let following = following.transpose();
        Ok(Self {
            following: following.map_err(|source: io::Error| LogError::new(dir, source))?,
            reader: LogReader::open(dir, query)?,
            until_ns: query.until_ns,
        })
    }

    /// The next line or piece of one that is written already.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn try_next(&mut self) -> Result<Option<LogLine>, LogError> {
        self.reader.next_line()
    }

    /// Waits until there may be more: true. False means that there will be no more, or that the pipe
    /// that its reader reads from is closed at the other end.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn wait_for(&mut self, pipe: Option<BorrowedFd<'_>>) -> Result<bool, LogError> {
        let Some((watch, ended)) = &self.following else {
            return Ok(false);
        };
        let left = self.until_ns.map(time_left);
        let others: Vec<_> = pipe.into_iter().chain([ended.as_fd()]).collect();
        let woken = watch.wait(&others, left);
        let woken = woken.map_err(|source| self.reader.failed(source))?;
        if woken != Woken::Changed || left.is_some_and(|left| left.is_zero()) {
            // What was written before the end is still to be read.
            self.following = None;
        }
        Ok(true)
    }
}

/// From now until then; nothing if that is over.
fn time_left(until_ns: i64) -> Duration {
    let left = until_ns.saturating_sub(crate::time::now_ns());
    Duration::from_nanos(u64::try_from(left).unwrap_or(0))
}
