//! Archives: one pass over a tar whose entries may come in any order.

use super::error::LoadError;
use super::parts::{Blobs, PlannedImage};
use super::plan::{self, Choice};
use super::session::{Session, is_fatal};
use crate::compress::{Compression, Stream};
use crate::limits::Limits;
use hullbox_tar::{BLOCK, Entry, Kind, TarError, TarReader, looks_like_tar};
use std::collections::HashMap;
use std::io::{self, BufRead, Cursor, Read};

/// Links within an archive: `docker save` of old shares layers so.
const MAX_LINK_BYTES: usize = 1024 * 1024;
/// Links behind one name.
const MAX_LINKS: usize = 16;

/// What became of an entry.
enum Part {
    Small(Vec<u8>),
    Layer(usize),
    /// It looked like a layer but is none. That matters only if the manifest speaks of it.
    Failed(LoadError),
    /// The name of the same thing.
    Link(String),
    Other,
}

/// Reads an archive to its end and finds out what images it has.
pub(super) fn read(
    session: &mut Session<'_>,
    source: impl Read,
    choice: Choice<'_>,
) -> Result<Vec<PlannedImage>, LoadError> {
    let limits = session.limits();
    let stream = Stream::new(source, false, limits.max_total_layer_bytes, limits)
        .map_err(|error| LoadError::from_read("the archive", error))?;
    let mut tar = TarReader::new(stream, limits.max_header_bytes);
    let mut archive = Archive::new(limits);
    while let Some(entry) = next_entry(&mut tar, archive.entries == 0)? {
        archive.take(session, &mut tar, &entry)?;
    }
    tar.drain().map_err(LoadError::from_archive)?;
    plan::plan(&mut archive, choice)
}

/// A first block that is no header means that this is something else altogether.
fn next_entry<R: BufRead>(tar: &mut TarReader<R>, first: bool) -> Result<Option<Entry>, LoadError> {
    match tar.next_entry() {
        Err(TarError::Checksum | TarError::Truncated) if first => Err(LoadError::NotAnImage),
        other => other.map_err(LoadError::from_archive),
    }
}

struct Archive<'a> {
    limits: &'a Limits,
    parts: HashMap<String, Part>,
    entries: u64,
    small_bytes: u64,
    link_bytes: usize,
}

impl<'a> Archive<'a> {
    fn new(limits: &'a Limits) -> Self {
        Self {
            limits,
            parts: HashMap::new(),
            entries: 0,
            small_bytes: 0,
            link_bytes: 0,
        }
    }

    fn take<R: BufRead>(
        &mut self,
        session: &mut Session<'_>,
        tar: &mut TarReader<R>,
        entry: &Entry,
    ) -> Result<(), LoadError> {
        self.entries += 1;
        if self.entries > self.limits.max_archive_entries {
            return Err(LoadError::TooMany {
                what: "entries",
                limit: self.limits.max_archive_entries,
            });
        }
        let text = String::from_utf8_lossy(&entry.path).into_owned();
        let name = normal(&text, "").ok_or_else(|| bad_entry(&text, "has a bad name"))?;
        let part = match entry.kind {
            Kind::File => self.file(session, tar, entry, &name)?,
            Kind::Symlink => {
                let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                self.link(&entry.link, parent)?
            }
            Kind::HardLink => self.link(&entry.link, "")?,
            Kind::Dir | Kind::Char | Kind::Block | Kind::Fifo => return Ok(()),
        };
        if matches!(part, Part::Other) {
            return Ok(());
        }
        // Two parts of one name would let two readers see two images.
        if self.parts.insert(name, part).is_some() {
            return Err(bad_entry(&text, "appears twice"));
        }
        Ok(())
    }

    fn file<R: BufRead>(
        &mut self,
        session: &mut Session<'_>,
        tar: &mut TarReader<R>,
        entry: &Entry,
        name: &str,
    ) -> Result<Part, LoadError> {
        if entry.sparse.is_some() {
            return Err(bad_entry(name, "is sparse"));
        }
        let mut data = EntryData(tar);
        let mut start = Vec::new();
        let read = |error| LoadError::from_archive(unwrap_tar(error));
        data.by_ref()
            .take(BLOCK as u64)
            .read_to_end(&mut start)
            .map_err(read)?;
        let is_layer = Compression::of(&start) != Compression::None || looks_like_tar(&start);
        if is_layer {
            let blob = Cursor::new(start).chain(data);
            return match session.add_layer(name, blob) {
                Ok(index) => Ok(Part::Layer(index)),
                Err(error) if is_fatal(&error) => Err(error),
                Err(error) => Ok(Part::Failed(error)),
            };
        }
        let is_json = matches!(start.trim_ascii_start().first(), Some(b'{' | b'['));
        if !is_json {
            return Ok(Part::Other);
        }
        if entry.size > self.limits.max_json_bytes {
            return Ok(Part::Failed(LoadError::TooMany {
                what: "bytes in one manifest or configuration",
                limit: self.limits.max_json_bytes,
            }));
        }
        self.small_bytes += entry.size;
        if self.small_bytes > self.limits.max_total_json_bytes {
            return Err(LoadError::TooMany {
                what: "bytes of manifests and configurations",
                limit: self.limits.max_total_json_bytes,
            });
        }
        data.read_to_end(&mut start).map_err(read)?;
        Ok(Part::Small(start))
    }

    fn link(&mut self, target: &[u8], parent: &str) -> Result<Part, LoadError> {
        self.link_bytes += target.len() + parent.len();
        if self.link_bytes > MAX_LINK_BYTES {
            return Err(LoadError::TooMany {
                what: "bytes of link targets",
                limit: MAX_LINK_BYTES as u64,
            });
        }
        let text = String::from_utf8_lossy(target);
        Ok(normal(&text, parent).map_or(Part::Other, Part::Link))
    }

    fn find(&mut self, name: &str) -> Option<&mut Part> {
        let mut name = normal(name, "")?;
        for _ in 0..MAX_LINKS {
            match self.parts.get(&name) {
                Some(Part::Link(target)) => name = target.clone(),
                _ => return self.parts.get_mut(&name),
            }
        }
        None
    }
}

impl Blobs for Archive<'_> {
    fn small(&mut self, name: &str) -> Result<Option<Vec<u8>>, LoadError> {
        match self.find(name) {
            None => Ok(None),
            Some(Part::Small(bytes)) => Ok(Some(bytes.clone())),
            Some(other) => Err(failure(other).unwrap_or_else(|| LoadError::Unexpected {
                name: name.to_owned(),
                expected: "a JSON document",
            })),
        }
    }

    fn layer(&mut self, name: &str) -> Result<usize, LoadError> {
        match self.find(name) {
            None => Err(LoadError::Missing(name.to_owned())),
            Some(Part::Layer(index)) => Ok(*index),
            Some(other) => Err(failure(other).unwrap_or_else(|| LoadError::Unexpected {
                name: name.to_owned(),
                expected: "a layer",
            })),
        }
    }

    fn limits(&self) -> &Limits {
        self.limits
    }
}

/// Takes the error out of a part: it is about to end the load.
fn failure(part: &mut Part) -> Option<LoadError> {
    match std::mem::replace(part, Part::Other) {
        Part::Failed(error) => Some(error),
        _ => None,
    }
}

pub(crate) fn bad_entry(name: &str, problem: &'static str) -> LoadError {
    LoadError::ArchiveEntry(name.chars().take(120).collect(), problem)
}

/// A name without `.`, `..` and doubled slashes, as seen from `parent`; `None` when it is empty
/// or leads out of the archive.
pub(crate) fn normal(name: &str, parent: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    let parent = if name.starts_with('/') { "" } else { parent };
    for part in parent.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (name.len() <= 4096).then(|| parts.join("/"))
}

/// The data of the entry a tar is at.
struct EntryData<'a, R>(&'a mut TarReader<R>);

impl<R: BufRead> Read for EntryData<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.0.fill_data().map_err(io::Error::other)?;
        let len = available.len().min(buffer.len());
        buffer[..len].copy_from_slice(&available[..len]);
        self.0.consume_data(len);
        Ok(len)
    }
}

/// The tar error that [`EntryData`] wrapped.
fn unwrap_tar(error: io::Error) -> TarError {
    match error.downcast::<TarError>() {
        Ok(error) => error,
        Err(error) => TarError::Read(error),
    }
}
