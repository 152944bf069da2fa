//! What is done with a container's files from inside it: copying in and out, export, its changes.
//!
//! Both walls run this in a process of its own that has the container's root and no more: the
//! guest agent in the guest, container mode in the container's mounts. So archives are read
//! and written where a mistake in doing so stays inside.
//!
//! ```text
//! Job::prepare ──► Err(Failure)       nothing was written: the session's `Failed`
//!      │
//!      ▼
//! Job::run     ──► Err(Error)         one line on standard error, exit code 1
//! ```
#![forbid(unsafe_code)]

mod attributes;
mod changes;
mod copy_up;
mod error;
mod pack;
mod root;
mod sparse;
mod stat;
mod unpack;

pub use changes::Layers;
pub use copy_up::copy_up;
pub use error::Error;
pub use root::open_in;
pub use sparse::{Receiving, map as sparse_map, receive as receive_file};

use hullbox_protocol::{Builtin, Failure, FailureKind};
use pack::Packer;
use root::Place;
use rustix::fd::BorrowedFd;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use unpack::Unpacker;

/// Bytes that are gathered before they are written out.
const BUFFER: usize = 64 * 1024;

/// Whether a builtin looks at the writable layer itself instead of the container's root.
#[must_use]
pub const fn needs_layers(builtin: &Builtin) -> bool {
    matches!(builtin, Builtin::Layer | Builtin::Changes)
}

/// Where a job is done.
#[derive(Debug, Clone, Copy)]
pub enum Scene<'a> {
    /// A container's root directory.
    Root(BorrowedFd<'a>),
    /// Its writable layer, for what [`needs_layers`].
    Layers(&'a Layers),
}

/// A builtin that can be done.
#[derive(Debug)]
pub struct Job<'a>(Step<'a>);

#[derive(Debug)]
enum Step<'a> {
    Stat(Place, BorrowedFd<'a>, &'a [u8]),
    Out(Place),
    In(Unpacker<'a>),
    Export(Place),
    Layer(&'a Layers),
    Changes(&'a Layers),
}

impl<'a> Job<'a> {
    /// Looks whether it can be done.
    ///
    /// # Errors
    /// Nothing is at the path, or not what is needed there. [`Builtin::Pause`] is no job.
    pub fn prepare(builtin: &'a Builtin, scene: Scene<'a>) -> Result<Self, Failure> {
        Ok(Self(match (builtin, scene) {
            (Builtin::Stat { path }, Scene::Root(root)) => {
                Step::Stat(find(root, path, false)?, root, path)
            }
            (Builtin::ArchiveOut { path, follow }, Scene::Root(root)) => {
                Step::Out(find(root, path, *follow)?)
            }
            (Builtin::ArchiveIn { path, keep_owner }, Scene::Root(root)) => {
                let opened = root::open_in(root, path, OFlags::PATH);
                let stat = opened.and_then(rustix::fs::fstat);
                let stat = stat.map_err(|errno| cannot(path, errno))?;
                if root::kind(&stat) != FileType::Directory {
                    return Err(failure(format!(
                        "extraction point is not a directory: {}",
                        shown(path)
                    )));
                }
                Step::In(Unpacker::new(root, path, *keep_owner))
            }
            (Builtin::Export, Scene::Root(root)) => Step::Export(find(root, b"/", false)?),
            (Builtin::Layer, Scene::Layers(layers)) => Step::Layer(layers),
            (Builtin::Changes, Scene::Layers(layers)) => Step::Changes(layers),
            _ => return Err(failure("this cannot be done here".to_owned())),
        }))
    }

    /// Does it on this process's standard streams, an error among them; gives the exit code.
    #[must_use]
    pub fn run_on_standard_streams(self) -> i32 {
        let standard = || {
            let input = rustix::io::dup(rustix::stdio::stdin());
            let output = rustix::io::dup(rustix::stdio::stdout());
            Some((File::from(input.ok()?), File::from(output.ok()?)))
        };
        let Some((input, output)) = standard() else {
            return 1;
        };
        match self.run(input, output) {
            Ok(()) => 0,
            // Who stopped reading knows why. As if by SIGPIPE, which a guest's agent ignores.
            Err(Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => 141,
            Err(error) => {
                let text = format!("{error}\n");
                // Nobody else to tell.
                let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
                1
            }
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// See [`Error`]; something may have been written already.
    pub fn run(self, input: impl Read, output: impl Write) -> Result<(), Error> {
        let _limit = DescriptorLimit::raise();
        let mut out = BufWriter::with_capacity(BUFFER, output);
        match self.0 {
            Step::Stat(place, root, path) => {
                let text = stat::json(&place, root, path);
                out.write_all(text.as_bytes()).map_err(Error::Write)?;
                out.flush().map_err(Error::Write)
            }
            Step::Out(place) => {
                let mut packer = Packer::new(out);
                packer.tree(&place)?;
                packer.finish()
            }
            Step::In(unpacker) => unpacker.unpack(input),
            Step::Export(place) => {
                let mut packer = Packer::new(out).within_mount();
                let root = root::open_dir(&place.parent, b".").map_err(error::at(b"/"))?;
                packer.contents(&root)?;
                packer.finish()
            }
            Step::Layer(layers) => changes::layer(layers, out),
            Step::Changes(layers) => changes::list(layers, out),
        }
    }
}

fn find(root: BorrowedFd<'_>, path: &[u8], follow: bool) -> Result<Place, Failure> {
    root::find(root, path, follow).map_err(|errno| cannot(path, errno))
}

fn cannot(path: &[u8], errno: Errno) -> Failure {
    let path = shown(path);
    match errno {
        Errno::NOENT | Errno::NOTDIR => Failure {
            kind: FailureKind::NotFound,
            message: format!("Could not find the file {path} in container"),
        },
        errno => failure(format!("{path}: {}", error::words(&errno.into()))),
    }
}

fn failure(message: String) -> Failure {
    Failure {
        kind: FailureKind::Setup,
        message,
    }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// Every level of a tree that is walked is open: the limit is as high as it may be, and what it was
/// again when this is dropped.
struct DescriptorLimit(Rlimit);

impl DescriptorLimit {
    fn raise() -> Self {
        let before = getrlimit(Resource::Nofile);
        let all = Rlimit {
            current: before.maximum,
            ..before
        };
        let _ = setrlimit(Resource::Nofile, all);
        Self(before)
    }
}

impl Drop for DescriptorLimit {
    fn drop(&mut self) {
        let _ = setrlimit(Resource::Nofile, self.0);
    }
}
