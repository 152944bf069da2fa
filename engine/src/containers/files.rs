//! A container's files, from inside its walls: what is at a path, archives in and out, what was
//! changed, and an image of that.

use super::list::{Quoting, command_line};
use super::{ContainerError, Engine, Errand};
use crate::cp::rules::Kind;
use crate::state::{Phase, Record};
use hullbox_image::{
    ConfigPatch, DeriveError, DeriveOptions, ImageId, Reference, ResolveError, Store, StoreError,
};
use hullbox_protocol::{Builtin, PathStat, UserSpec};
use hullbox_session::client::{AttachError, AttachOptions, Outcome, Streams, attach_streams};
use serde::{Deserialize, Serialize};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::process::Child;
use std::thread::JoinHandle;

/// Longest list of changes, in bytes: a hostile guest makes it.
const MAX_CHANGES: u64 = 64 << 20;
/// Most changes: short lines are small in the list and large in memory.
const MAX_CHANGE_COUNT: usize = 2 << 20;
/// Longest answer to what is at a path, in bytes.
const MAX_STAT: u64 = 64 * 1024;

/// Why something was not done with a container's files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// The container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The connection to it.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// What it sends cannot be read.
    #[error("cannot read from the container")]
    Read(#[source] io::Error),
    /// What it sends cannot be written.
    #[error("cannot write the output")]
    Write(#[source] io::Error),
    /// The other side could not begin.
    #[error("{0}")]
    Refused(String),
    /// The other side failed, and has said why on standard error.
    #[error("it failed inside the container")]
    Failed,
    /// The other side ended without a word.
    #[error("the container's side broke off")]
    BrokeOff,
    /// An answer that no honest container gives.
    #[error("the container's answer cannot be understood")]
    Answer(#[source] serde_json::Error),
    /// Links in a circle.
    #[error("{0}: too many levels of symbolic links")]
    Circle(String),
    /// More than is kept in memory.
    #[error("the container lists more changes than can be shown")]
    TooManyChanges,
    /// The container's image.
    #[error(transparent)]
    Image(#[from] ResolveError),
    /// The new image.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// The image store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is at a path in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// The path: as it was asked for, or where a link at its end leads.
    pub path: Vec<u8>,
    /// What is there, if anything.
    pub stat: Option<PathStat>,
}

impl Look {
    /// For the rules of `cp`.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match &self.stat {
            None => Kind::Missing,
            Some(stat) if stat.mode & FORMAT == DIRECTORY => Kind::Dir,
            Some(_) => Kind::File,
        }
    }
}

/// `st_mode`'s type, as in `sys/stat.h`.
const FORMAT: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;

/// What became of a file of the image's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "they say it themselves")]
pub enum ChangeKind {
    Modified,
    Added,
    Deleted,
}

/// A difference between a container and its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Of which kind.
    pub kind: ChangeKind,
    /// Absolute.
    pub path: Vec<u8>,
}

/// How an image is made of a container.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Freeze the container meanwhile.
    pub pause: bool,
    /// Name of the new image.
    pub name: Option<Reference>,
    /// Dockerfile instructions (`CMD ["/bin/sh"]`, `ENV A=b`, …), one each: `--change`.
    pub changes: Vec<String>,
    /// Who made it.
    pub author: String,
    /// Commit message.
    pub message: String,
    /// When the image is made, in seconds since 1970.
    pub created: i64,
}

impl Engine {
    /// What is at a path, behind a link at its end if asked to.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn look(&mut self, record: &Record, path: &[u8], follow: bool) -> Result<Look, FilesError> {
        let stat = self.path_stat(record, path)?;
        let is_link = |stat: &PathStat| stat.mode & FORMAT == SYMLINK;
        let Some(link) = stat.as_ref().filter(|stat| follow && is_link(stat)) else {
            let path = path.to_vec();
            return Ok(Look { path, stat });
        };
        // One step is enough: the other side has resolved the link to its end.
        let path = link.link_target.clone();
        let stat = match path.is_empty() {
            true => None,
            false => self.path_stat(record, &path)?,
        };
        if path.is_empty() || stat.as_ref().is_some_and(is_link) {
            let path = String::from_utf8_lossy(&path).into_owned();
            return Err(FilesError::Circle(path));
        }
        Ok(Look { path, stat })
    }

    fn path_stat(&mut self, record: &Record, path: &[u8]) -> Result<Option<PathStat>, FilesError> {
        let path = path.to_vec();
        let mut output = Output::of(self.errand(record, Builtin::Stat { path }, false)?)?;
        let mut text = Vec::new();
        let read = output.reader.by_ref().take(MAX_STAT).read_to_end(&mut text);
        match output.end()? {
            Outcome::Failed(failure) if failure.exit_code() == 127 => Ok(None),
            outcome => {
                check(outcome)?;
                read.map_err(FilesError::Read)?;
                serde_json::from_slice(&text)
                    .map(Some)
                    .map_err(FilesError::Answer)
            }
        }
    }

    /// Begins to write what is at a path as a tar to the errand's standard output.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn archive_out(
        &mut self,
        record: &Record,
        path: Vec<u8>,
        follow: bool,
    ) -> Result<Errand, ContainerError> {
        self.errand(record, Builtin::ArchiveOut { path, follow }, false)
    }

    /// Begins to unpack a tar from the errand's standard input into a directory.
    ///
    /// # Errors
    /// [`ContainerError`]; a container with a read-only root takes none, as in Docker.
    pub fn archive_in(
        &mut self,
        record: &Record,
        path: Vec<u8>,
        keep_owner: bool,
    ) -> Result<Errand, ContainerError> {
        if record.spec.setup.rootfs.read_only {
            let why = "container rootfs is marked read-only".to_owned();
            return Err(ContainerError::Refused(why));
        }
        self.errand(record, Builtin::ArchiveIn { path, keep_owner }, true)
    }

    /// What a container has made of its image's files.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn changes(&mut self, record: &Record) -> Result<Vec<Change>, FilesError> {
        let mut output = Output::of(self.errand(record, Builtin::Changes, false)?)?;
        let mut text = Vec::new();
        let limited = &mut output.reader.by_ref().take(MAX_CHANGES + 1);
        let read = limited.read_to_end(&mut text);
        let outcome = output.end();
        if text.len() as u64 > MAX_CHANGES {
            return Err(FilesError::TooManyChanges);
        }
        check(outcome?)?;
        read.map_err(FilesError::Read)?;
        let lines = text.split(|byte| *byte == 0);
        let most = MAX_CHANGE_COUNT.saturating_add(1);
        let changes: Vec<_> = lines.filter_map(change).take(most).collect();
        if changes.len() > MAX_CHANGE_COUNT {
            return Err(FilesError::TooManyChanges);
        }
        Ok(changes)
    }

    /// Writes all of a container's files as a tar.
    ///
    /// # Errors
    /// [`FilesError`]; half an archive may have been written.
    pub fn export(&mut self, record: &Record, out: &mut dyn Write) -> Result<(), FilesError> {
        let mut output = Output::of(self.errand(record, Builtin::Export, false)?)?;
        let mut buffer = vec![0; 256 * 1024];
        let mut copy = || loop {
            match output.reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(len) => out.write_all(&buffer[..len]).map_err(FilesError::Write)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(FilesError::Read(error)),
            }
        };
        let copied = copy();
        let outcome = output.end()?;
        copied?;
        check(outcome)
    }

    /// Makes an image of a container's changes. It gets its name when the container's side has
    /// ended well, and not before: a commit that fails leaves the store as it was.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn commit(&mut self, record: &Record, commit: &Commit) -> Result<ImageId, FilesError> {
        let mut store = self.images()?;
        let pauses = commit.pause && record.phase == Phase::Running;
        let held = pauses.then(|| self.hold(record)).transpose()?;
        let options = DeriveOptions {
            name: commit.name.clone(),
            config: patch(record),
            changes: commit.changes.clone(),
            author: commit.author.clone(),
            message: commit.message.clone(),
            created_by: command_line(record, Quoting::None),
            created: commit.created,
        };
        let committed = self.commit_layer(&mut store, record, &options);
        if held.is_some() {
            // Answered when it is done, which letting go of it is not.
            self.pause(record, false)?;
        }
        let id = committed?;
        let name = commit.name.as_ref().map(Reference::familiar);
        self.note_commit(record, &id.to_string(), name.as_deref(), &commit.message);
        Ok(id)
    }

    fn commit_layer(
        &mut self,
        store: &mut Store,
        record: &Record,
        options: &DeriveOptions,
    ) -> Result<ImageId, FilesError> {
        let parent = store.resolve(&record.image_id)?.id;
        let mut output = Output::of(self.errand(record, Builtin::Layer, false)?)?;
        let derived = store.prepare(&parent, &mut output.reader, options, &mut |_| {});
        let outcome = output.end();
        match derived {
            Ok(derived) => {
                // Half a layer must not become an image.
                check(outcome?)?;
                Ok(store.keep(derived)?)
            }
            // Half a stream is the fault of whoever wrote it.
            Err(DeriveError::CutOff) => {
                check(outcome?)?;
                Err(DeriveError::CutOff.into())
            }
            // A store that refused the layer explains more than a container whose reader was gone.
            Err(error) => Err(error.into()),
        }
    }
}

/// An errand at work whose output is read here.
struct Output {
    reader: PipeReader,
    ended: JoinHandle<Result<Outcome, AttachError>>,
    process: Option<Child>,
}

impl Output {
    fn of(errand: Errand) -> Result<Self, FilesError> {
        let (reader, writer) = io::pipe().map_err(FilesError::Read)?;
        let connection = errand.connection;
        let attach = move || {
            let options = AttachOptions::default();
            let (stdin, stderr) = (io::stdin(), io::stderr());
            let streams = Streams {
                stdin: stdin.as_fd(),
                stdout: writer.as_fd(),
                stderr: stderr.as_fd(),
            };
            attach_streams(connection, &[], options, streams, &mut |_| {})
        };
        let thread = std::thread::Builder::new().name("errand".to_owned());
        Ok(Self {
            reader,
            ended: thread.spawn(attach).map_err(FilesError::Read)?,
            process: errand.process,
        })
    }

    /// How it ended. What was not read by now is not wanted.
    fn end(self) -> Result<Outcome, FilesError> {
        // A reader that gave up must not hold the other side up.
        drop(self.reader);
        let outcome = self.ended.join();
        if let Some(mut process) = self.process {
            // The next command must find the container free.
            let _ = process.wait();
        }
        match outcome {
            Ok(Ok(outcome)) => Ok(outcome),
            // It was our choice to read no more.
            Ok(Err(AttachError::Output { outcome, .. })) => Ok(*outcome),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(FilesError::BrokeOff),
        }
    }
}

/// Whether an errand has done what it was to do.
fn check(outcome: Outcome) -> Result<(), FilesError> {
    match outcome {
        Outcome::Exited(status) if status.exit_code() == 0 => Ok(()),
        Outcome::Exited(_) => Err(FilesError::Failed),
        Outcome::Failed(failure) => Err(FilesError::Refused(failure.message)),
        _ => Err(FilesError::BrokeOff),
    }
}

/// The container's configuration, where it may differ from its image's.
fn patch(record: &Record) -> ConfigPatch {
    let spec = &record.spec;
    let configured = spec.configured();
    let strings = |list: &[Vec<u8>]| {
        list.iter()
            .map(|item| String::from_utf8_lossy(item).into_owned())
            .collect::<Vec<_>>()
    };
    ConfigPatch {
        user: match &spec.process.user {
            UserSpec::Named { user, .. } => Some(user.clone()),
            UserSpec::Ids { .. } => None,
        },
        working_dir: Some(configured.workdir.clone()),
        stop_signal: configured.stop_signal.clone(),
        env: Some(strings(&configured.env)),
        entrypoint: Some(strings(&spec.entrypoint)),
        cmd: Some(strings(&spec.cmd)),
        labels: Some(spec.labels.clone()),
        // A record without any may be of a program that did not keep them.
        exposed_ports: (!spec.exposed.is_empty())
            .then(|| spec.exposed.iter().map(|port| port.to_string()).collect()),
        health: spec.life.check(),
        ..ConfigPatch::default()
    }
}

/// A line of the list: a letter, a blank, a path.
fn change(line: &[u8]) -> Option<Change> {
    let (letter, path) = line.split_first()?;
    let kind = match letter {
        b'A' => ChangeKind::Added,
        b'C' => ChangeKind::Modified,
        b'D' => ChangeKind::Deleted,
        _ => return None,
    };
    Some(Change {
        kind,
        path: path.strip_prefix(b" ")?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read() {
        let read = change(b"A /a b").unwrap();
        assert_eq!(
            (read.kind, &read.path[..]),
            (ChangeKind::Added, &b"/a b"[..])
        );
        assert_eq!(change(b""), None);
        assert_eq!(change(b"X /a"), None);
        assert_eq!(change(b"A/a"), None);
    }
}
