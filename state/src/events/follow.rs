//! Reading the log: what there is, and then what comes, each event once.

use super::log;
use crate::time::now_ns;
use hullbox_host::paths::Roots;
use hullbox_host::watch::Watch;
pub use hullbox_host::watch::Woken;
use hullbox_model::event::{Event, EventFilter};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// How an event's line begins. Text inside of one has its quotation marks escaped.
const BEGINNING: &[u8] = b"{\"Type\":\"";
/// What is read at once, in bytes.
const CHUNK: usize = 64 * 1024;
/// Longest line that is taken for one, in bytes: somebody else wrote what is longer.
const MAX_LINE: usize = 1 << 20;

/// Why events cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the events")]
pub struct EventsError {
    /// What was tried.
    action: &'static str,
    /// Why not.
    #[source]
    source: io::Error,
}

fn failed<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> EventsError {
    move |source| EventsError {
        action,
        source: source.into(),
    }
}

/// Which events are wanted.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// From this time, in nanoseconds since 1970, as far back as the log goes; `None` is from now.
    pub since_ns: Option<i64>,
    /// Until before this time; `None` is for ever.
    pub until_ns: Option<i64>,
    /// Of those, which.
    pub filter: EventFilter,
}

/// Events as they are written. Everything that is appended after [`Self::open`] is seen, once.
#[derive(Debug)]
pub struct Subscription {
    roots: Roots,
    query: Query,
    watch: Watch,
    /// What is read now.
    tail: Tail,
    /// What follows it: open, so that no later renaming takes them away.
    newer: VecDeque<File>,
}

impl Subscription {
    /// Begins at the time that the query names, or now.
    ///
    /// # Errors
    /// The log cannot be opened or watched.
    pub fn open(roots: &Roots, query: Query) -> Result<Self, EventsError> {
        let watch = Watch::new().map_err(failed("watch"))?;
        let mut files: VecDeque<_> = log::files(roots).map_err(failed("open"))?.into();
        if query.since_ns.is_none() {
            files.drain(..files.len().saturating_sub(1));
        }
        let Some(mut first) = files.pop_front() else {
            return Err(failed("open")(io::Error::from(io::ErrorKind::NotFound)));
        };
        if query.since_ns.is_none() {
            first.seek(SeekFrom::End(0)).map_err(failed("read"))?;
        }
        let subscription = Self {
            roots: roots.clone(),
            query,
            watch,
            tail: Tail::new(first),
            newer: files,
        };
        subscription.watch()?;
        Ok(subscription)
    }

    /// Asks to be woken when what is read now grows or is renamed.
    fn watch(&self) -> Result<(), EventsError> {
        let file = &self.tail.file;
        self.watch.add_file(file).map_err(failed("watch"))
    }

    /// The next event, if it has been written already.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn try_next(&mut self) -> Result<Option<Event>, EventsError> {
        loop {
            while let Some(event) = self.tail.next().map_err(failed("read"))? {
                let since = self.query.since_ns.is_none_or(|at| event.time_ns >= at);
                let until = self.query.until_ns.is_none_or(|at| event.time_ns < at);
                if since && until && self.query.filter.matches(&event) {
                    return Ok(Some(event));
                }
            }
            if let Some(next) = self.newer.pop_front() {
                self.tail = Tail::new(next);
                self.watch()?;
            } else if log::is_newest(&self.roots, &self.tail.file).map_err(failed("read"))? {
                return Ok(None);
            } else {
                // Nothing is appended to it any more, but it may have grown since it was read.
                self.find_newer().map_err(failed("open"))?;
            }
        }
    }

    /// Opens the files that came after the one that is read now.
    fn find_newer(&mut self) -> io::Result<()> {
        let mut files = log::files(&self.roots)?;
        let ours = self.tail.file.metadata()?;
        let mut at = None;
        for (index, file) in files.iter().enumerate() {
            if log::is_same(&file.metadata()?, &ours) {
                at = Some(index);
            }
        }
        // One that is gone was older than all there are.
        self.newer = files.split_off(at.map_or(0, |at| at + 1)).into();
        Ok(())
    }

    /// The next event, when it happens; `None` once the query's end has come.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn next_event(&mut self) -> Result<Option<Event>, EventsError> {
        self.next_event_for(None)
    }

    /// The same, until the pipe that its reader reads from is closed at the other end.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn next_event_for(
        &mut self,
        pipe: Option<BorrowedFd<'_>>,
    ) -> Result<Option<Event>, EventsError> {
        loop {
            // The time first: what is written before it is up must be read.
            let left = self.query.until_ns.map(|until| until - now_ns());
            if let Some(event) = self.try_next()? {
                return Ok(Some(event));
            }
            let left = match left {
                Some(..=0) => return Ok(None),
                left => left.map(|left| Duration::from_nanos(left.unsigned_abs())),
            };
            if self.wait(pipe, left)? == Woken::Other {
                return Ok(None);
            }
        }
    }

    /// Waits until there may be more, for `other`, or so long.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn wait(
        &self,
        other: Option<BorrowedFd<'_>>,
        limit: Option<Duration>,
    ) -> Result<Woken, EventsError> {
        let others = other.as_slice();
        self.watch.wait(others, limit).map_err(failed("wait for"))
    }
}

/// A file of lines that grows.
#[derive(Debug)]
struct Tail {
    file: File,
    /// Read, and not given yet; from `at`.
    buffer: Vec<u8>,
    at: usize,
}

impl Tail {
    const fn new(file: File) -> Self {
        Self {
            file,
            buffer: Vec::new(),
            at: 0,
        }
    }

    /// The next event whose line is whole.
    fn next(&mut self) -> io::Result<Option<Event>> {
        let mut seen = self.at;
        loop {
            let end = self.buffer[seen..].iter().position(|&byte| byte == b'\n');
            if let Some(end) = end {
                let line = &self.buffer[self.at..seen + end];
                let event = parse(line);
                self.at = seen + end + 1;
                seen = self.at;
                if event.is_some() {
                    return Ok(event);
                }
                continue;
            }
            self.buffer.drain(..self.at);
            self.at = 0;
            if self.buffer.len() > MAX_LINE {
                self.buffer.clear();
            }
            seen = self.buffer.len();
            let mut chunk = [0; CHUNK];
            match self.file.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(read) => self.buffer.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The event of a line; of one that begins with what is left of another, the one behind that.
fn parse(line: &[u8]) -> Option<Event> {
    serde_json::from_slice(line).ok().or_else(|| {
        let mut beginnings = line.windows(BEGINNING.len());
        let last = beginnings.rposition(|bytes| bytes == BEGINNING)?;
        serde_json::from_slice(line.get(last..)?).ok()
    })
}
