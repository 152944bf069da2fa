//! Snapshots: a VM that stands still, as two files of a directory.
//!
//! `memory` is the guest's memory, sparse, each byte at its place; `state` is everything else in
//! an envelope (see [`seal`]) that is authenticated with the data directory's key. The state
//! names the memory file, and those that the caller keeps beside it, by inode, size, times of
//! change and a digest of their contents: who writes to them, by whatever means, makes the snapshot
//! one that is refused. A copy is digested once and named anew. The files are readable by their
//! owner alone.
//!
//! A snapshot is refused on another kernel, another kind of processor and by another version of
//! this program; [`Origin`] is for what else the caller wants to be the same.

mod contents;
mod growth;
mod host;
mod memory_file;
mod seal;
mod touched;

pub use host::host_identity;
pub use seal::{SealError, SnapshotKey};

pub(crate) use growth::descriptors;
pub(crate) use touched::Lesson;

use crate::arch::{MachineState, VcpuState};
use crate::config::{ConfigError, MemorySize, VcpuCount};
use crate::devices::DevicesState;
use crate::memory::{Extent, GuestMemory, Touched};
use contents::{Contents, Verdict};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const STATE: &str = "state";
const MEMORY: &str = "memory";

/// What a snapshot was made from, in the caller's own terms: a digest of them.
pub type Origin = [u8; 32];

/// Why there is no snapshot, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file cannot be made, written, read or opened.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It belongs to somebody else, or others may read it.
    #[error("{} is not private to this user", .0.display())]
    NotPrivate(PathBuf),
    /// The state file's envelope is broken.
    #[error("the state file is refused")]
    Seal(#[source] SealError),
    /// The state file's contents make no sense, although they are what was written.
    #[error("the state file cannot be understood")]
    Body(#[source] postcard::Error),
    /// It was made on another kernel or processor, or by another version of this program.
    #[error("it was made on another kernel or processor, or by another version")]
    OtherHost,
    /// It was made from something else.
    #[error("it was made from something else")]
    OtherOrigin,
    /// A file is not what was saved.
    #[error("{} was changed since it was saved", .0.display())]
    Changed(PathBuf),
    /// The numbers in it are no VM's.
    #[error("it is of an impossible virtual machine")]
    Shape(#[source] ConfigError),
}

/// A VM that stands still, without its memory.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct VmState {
    pub(crate) memory_mib: u32,
    pub(crate) vcpus: Vec<VcpuState>,
    pub(crate) machine: MachineState,
    pub(crate) devices: DevicesState,
}

#[derive(Debug, Serialize, Deserialize)]
struct Body {
    host: String,
    origin: Origin,
    memory: Contents,
    /// Files beside it that the caller named, if they were there.
    beside: Vec<(String, Option<Contents>)>,
    extents: Vec<Extent>,
    state: VmState,
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::File {
        path: path.clone(),
        source,
    }
}

fn create(path: &Path) -> Result<File, SnapshotError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(file_error(path))
}

/// What of a snapshot has to be written while its VM stands still, and is. It is none before it is
/// sealed, which takes longer and needs no VM.
#[derive(Debug)]
pub struct Unsealed {
    dir: PathBuf,
    memory: File,
    extents: Vec<Extent>,
    state: VmState,
}

impl Unsealed {
    /// Write a VM's memory into an empty directory.
    pub(crate) fn write(
        dir: &Path,
        state: VmState,
        memory: &GuestMemory,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, SnapshotError> {
        let path = dir.join(MEMORY);
        let file = create(&path)?;
        let extents = memory_file::write(&file, memory, cancelled).map_err(file_error(&path))?;
        Ok(Self {
            dir: dir.to_owned(),
            memory: file,
            extents,
            state,
        })
    }

    /// Have all of it on the disk, name the files by what is in them, and seal that. See
    /// [`crate::RunningVm::save`].
    ///
    /// # Errors
    /// [`SnapshotError`]; what was written by then is of no use.
    pub fn seal(
        self,
        key: &SnapshotKey,
        origin: Origin,
        beside: &[&str],
    ) -> Result<(), SnapshotError> {
        let dir = &self.dir;
        let named = |file: &File, path: &Path| {
            file.sync_all().map_err(file_error(path))?;
            Contents::of(file).map_err(file_error(path))
        };
        let memory = named(&self.memory, &dir.join(MEMORY))?;
        let beside = beside.iter().map(|name| {
            let path = dir.join(name);
            let contents = match open_private(&path) {
                Ok(file) => Some(named(&file, &path)?),
                Err(error) if error.is_absence() => None,
                Err(error) => return Err(error),
            };
            Ok(((*name).to_owned(), contents))
        });
        let beside = beside.collect::<Result<_, _>>()?;
        let path = dir.join(STATE);
        let host = host_identity().map_err(file_error(&path))?.to_owned();
        let body = Body {
            host,
            origin,
            memory,
            beside,
            extents: self.extents,
            state: self.state,
        };
        write_state(&path, &body, key)
    }
}

/// Write a whole snapshot into an empty directory, and have it on the disk.
pub(crate) fn write(
    dir: &Path,
    state: VmState,
    memory: &GuestMemory,
    key: &SnapshotKey,
    origin: Origin,
    beside: &[&str],
) -> Result<(), SnapshotError> {
    Unsealed::write(dir, state, memory, &|| false)?.seal(key, origin, beside)
}

fn write_state(path: &Path, body: &Body, key: &SnapshotKey) -> Result<(), SnapshotError> {
    let body = postcard::to_allocvec(body).map_err(SnapshotError::Body)?;
    let sealed = seal::seal(&body, key).map_err(SnapshotError::Seal)?;
    let mut file = create(path)?;
    file.write_all(&sealed).map_err(file_error(path))?;
    file.sync_all().map_err(file_error(path))
}

/// Name the files as they are now. Others may be at the same.
fn restate(dir: &Path, body: &Body, key: &SnapshotKey) -> Result<(), SnapshotError> {
    let staged = dir.join(format!("{STATE}.{}", std::process::id()));
    let written = write_state(&staged, body, key).and_then(|()| {
        let path = dir.join(STATE);
        std::fs::rename(&staged, &path).map_err(file_error(&path))
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&staged);
    }
    written
}

impl Body {
    /// Compare the files with what was saved; whether any of them is to be named anew.
    fn check(&mut self, dir: &Path, memory: &File, names: &[&str]) -> Result<bool, SnapshotError> {
        let path = dir.join(MEMORY);
        let mut anew = check(&mut self.memory, memory, &path)?;
        let known = self.beside.iter().map(|(name, _)| name.as_str());
        if !known.eq(names.iter().copied()) {
            return Err(SnapshotError::OtherOrigin);
        }
        for (name, contents) in &mut self.beside {
            let path = dir.join(&*name);
            match (open_private(&path), contents) {
                (Ok(file), Some(contents)) => anew |= check(contents, &file, &path)?,
                (Err(error), None) if error.is_absence() => {}
                (Ok(_), None) => return Err(SnapshotError::Changed(path)),
                (Err(error), _) => return Err(error),
            }
        }
        Ok(anew)
    }
}

fn check(contents: &mut Contents, file: &File, path: &Path) -> Result<bool, SnapshotError> {
    match contents.compare(file).map_err(file_error(path))? {
        Verdict::Same => Ok(false),
        Verdict::Equal(now) => {
            *contents = now;
            Ok(true)
        }
        Verdict::Changed => Err(SnapshotError::Changed(path.to_owned())),
    }
}

impl SnapshotError {
    fn is_absence(&self) -> bool {
        matches!(self, Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A snapshot that was opened and found to be whole, ours and of this host.
#[derive(Debug)]
pub struct Snapshot {
    vcpus: VcpuCount,
    memory_size: MemorySize,
    pub(crate) state: VmState,
    pub(crate) memory: File,
    pub(crate) extents: Vec<Extent>,
    /// Pages that its guests soon touch, if any guest has told.
    pub(crate) touched: Option<Vec<Touched>>,
    pub(crate) dir: PathBuf,
}

impl Snapshot {
    /// Open the snapshot in a directory, with the files beside it that were named when it was
    /// saved.
    ///
    /// # Errors
    /// [`SnapshotError`]: it is not used then.
    pub fn open(
        dir: &Path,
        key: &SnapshotKey,
        origin: &Origin,
        beside: &[&str],
    ) -> Result<Self, SnapshotError> {
        let path = dir.join(STATE);
        let mut file = open_private(&path)?;
        let mut sealed = Vec::new();
        let limit = seal::MAX_LEN as u64 + 1;
        Read::by_ref(&mut file)
            .take(limit)
            .read_to_end(&mut sealed)
            .map_err(file_error(&path))?;
        let body = seal::unseal(&sealed, key).map_err(SnapshotError::Seal)?;
        let mut body: Body = postcard::from_bytes(body).map_err(SnapshotError::Body)?;
        if body.host != host_identity().map_err(file_error(&path))? {
            return Err(SnapshotError::OtherHost);
        }
        if body.origin != *origin {
            return Err(SnapshotError::OtherOrigin);
        }
        let vcpus = u8::try_from(body.state.vcpus.len()).unwrap_or(u8::MAX);
        let vcpus = VcpuCount::new(vcpus).map_err(SnapshotError::Shape)?;
        let memory_size =
            MemorySize::from_mib(body.state.memory_mib).map_err(SnapshotError::Shape)?;
        let path = dir.join(MEMORY);
        let memory = open_private(&path)?;
        if body.check(dir, &memory, beside)? {
            // Where it cannot be written, the next one digests once more.
            let _ = restate(dir, &body, key);
        }
        Ok(Self {
            vcpus,
            memory_size,
            state: body.state,
            memory,
            extents: body.extents,
            touched: touched::read(dir),
            dir: dir.to_owned(),
        })
    }

    /// Its number of virtual CPUs.
    #[must_use]
    pub const fn vcpus(&self) -> VcpuCount {
        self.vcpus
    }

    /// Its memory's size.
    #[must_use]
    pub const fn memory(&self) -> MemorySize {
        self.memory_size
    }
}

/// Open a file that nobody else could have written or read.
fn open_private(path: &Path) -> Result<File, SnapshotError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map_err(file_error(path))?;
    let metadata = file.metadata().map_err(file_error(path))?;
    let own = metadata.uid() == rustix::process::geteuid().as_raw();
    if !metadata.is_file() || metadata.mode() & 0o077 != 0 || !own {
        return Err(SnapshotError::NotPrivate(path.to_owned()));
    }
    Ok(file)
}

#[cfg(test)]
mod tests;
