//! What a container changed: overlayfs's upper directory, seen against what lies below.

mod moved;
mod overlay;

use crate::attributes;
use crate::error::{Error, at};
use crate::pack::{MAX_DEPTH, Packer};
use crate::root;
use overlay::{below_at, is_opaque, is_whiteout, redirect, stat};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;
use std::collections::HashSet;
use std::io::Write;

/// A writable layer and what it lies upon.
#[derive(Debug)]
pub struct Layers {
    /// Overlayfs's upper directory, open for reading.
    pub upper: OwnedFd,
    /// All layers below, as one tree, open for reading.
    pub lower: OwnedFd,
}

/// Prefix of a name that says that something below is deleted, in an OCI layer.
const WHITEOUT: &[u8] = b".wh.";
/// Name that says the same of everything below a directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What is made in every container for something to be mounted there. Docker has these in a layer
/// of its own below the container's: they count as if the image had them.
const PLACEHOLDERS: [&[u8]; 12] = [
    b"dev",
    b"dev/console",
    b"dev/mqueue",
    b"dev/pts",
    b"dev/shm",
    b"etc",
    b"etc/hostname",
    b"etc/hosts",
    b"etc/resolv.conf",
    b"proc",
    b"sys",
    b"sys/fs/cgroup",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Added,
    Modified,
    Deleted,
    /// What is below this directory is hidden.
    Opaque,
    /// A directory that may have changes in it.
    Passage,
}

/// Where what is new is to be read.
#[derive(Debug)]
enum Source {
    /// Under its own path in the upper directory.
    Upper,
    /// Under this one in the layers below, because a directory there was renamed.
    Lower(Vec<u8>),
}

#[derive(Debug)]
struct Change {
    what: What,
    /// Without a slash in front.
    path: Vec<u8>,
    source: Source,
}

/// A directory of the layers below, and its path there.
#[derive(Debug)]
struct Below {
    fd: OwnedFd,
    path: Vec<u8>,
}

/// Writes the changes as lines `A|C|D path NUL`.
pub(crate) fn list(layers: &Layers, mut out: impl Write) -> Result<(), Error> {
    let mut walk = Walk::new(layers, false);
    walk.top(layers)?;
    walk.found.sort_by(|a, b| a.path.cmp(&b.path));
    for change in &walk.found {
        let letter = match change.what {
            What::Added => b"A /",
            What::Deleted => b"D /",
            What::Modified | What::Passage | What::Opaque => b"C /",
        };
        for part in [letter, &change.path[..], b"\0"] {
            out.write_all(part).map_err(Error::Write)?;
        }
    }
    out.flush().map_err(Error::Write)
}

/// Writes the changes as an OCI layer.
pub(crate) fn layer(layers: &Layers, out: impl Write) -> Result<(), Error> {
    let mut walk = Walk::new(layers, true);
    walk.top(layers)?;
    let mut packer = Packer::new(out);
    for change in &walk.found {
        let (directory, name) = split(&change.path);
        match change.what {
            What::Deleted => packer.marker([directory, WHITEOUT, name].concat())?,
            What::Opaque => packer.marker([&change.path, &b"/"[..], OPAQUE].concat())?,
            // It would delete something else, wherever the layer is unpacked.
            _ if name.starts_with(WHITEOUT) => {}
            What::Added | What::Modified | What::Passage => {
                let (tree, (directory, name)) = match &change.source {
                    Source::Upper => (&layers.upper, (directory, name)),
                    Source::Lower(path) => (&layers.lower, split(path)),
                };
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                let parent = root::open_in(tree.as_fd(), directory, flags);
                let Ok(parent) = parent else { continue };
                match root::open_dir(&parent, name) {
                    Ok(directory) => packer.directory(&directory, &change.path)?,
                    Err(_) => packer.one(parent.as_fd(), name, &change.path)?,
                }
            }
        }
    }
    packer.finish()
}

/// Directory, with its slash, and name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..=slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

struct Walk<'a> {
    found: Vec<Change>,
    /// All layers below.
    lower: BorrowedFd<'a>,
    /// Where directories that were renamed have been before.
    redirects: HashSet<Vec<u8>>,
    /// For a layer: all of the upper directory counts, and opaque directories stay such.
    /// Otherwise two trees are compared.
    whole: bool,
}

/// A pair of directories.
struct Level<'a> {
    upper: &'a OwnedFd,
    lower: Option<OwnedFd>,
    /// What is only below is there all the same.
    merged: bool,
    path: &'a [u8],
    depth: usize,
}

impl<'a> Walk<'a> {
    fn new(layers: &'a Layers, whole: bool) -> Self {
        Self {
            found: Vec::new(),
            lower: layers.lower.as_fd(),
            redirects: HashSet::new(),
            whole,
        }
    }

    fn top(&mut self, layers: &Layers) -> Result<(), Error> {
        let lower = root::open_dir(&layers.lower, b".").map_err(at(b"/"))?;
        self.level(&Level {
            upper: &layers.upper,
            lower: Some(lower),
            merged: true,
            path: b"",
            depth: 0,
        })
    }

    fn level(&mut self, level: &Level<'_>) -> Result<(), Error> {
        if level.depth > MAX_DEPTH {
            return Err(at(level.path)(Errno::NAMETOOLONG));
        }
        let names = root::names(level.upper).map_err(at(level.path))?;
        for name in &names {
            self.one(level, name)?;
        }
        if let (Some(lower), false) = (&level.lower, level.merged) {
            let below = root::names(lower).map_err(at(level.path))?;
            for name in below {
                if names.binary_search(&name).is_err() && below_at(lower, &name).is_some() {
                    let path = join(level.path, &name);
                    self.push(What::Deleted, path, Source::Upper);
                }
            }
        }
        Ok(())
    }

    fn one(&mut self, level: &Level<'_>, name: &[u8]) -> Result<(), Error> {
        let path = join(level.path, name);
        let upper = match stat(level.upper.as_fd(), name) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(at(&path)(errno)),
        };
        let lower = level.lower.as_ref().and_then(|fd| below_at(fd, name));
        if is_whiteout(&upper) {
            if lower.is_some() {
                self.push(What::Deleted, path, Source::Upper);
            }
            return Ok(());
        }
        if root::kind(&upper) == FileType::Directory {
            return self.directory(level, name, path, &upper, lower.as_ref());
        }
        let empty = root::kind(&upper) == FileType::RegularFile && upper.st_size == 0;
        if empty && PLACEHOLDERS.contains(&&path[..]) {
            return Ok(());
        }
        match lower {
            None => self.push(What::Added, path, Source::Upper),
            Some(lower) => {
                let stats = (&upper, &lower);
                if self.whole || self.differ(level.upper, level.lower.as_ref(), name, stats)? {
                    self.push(What::Modified, path, Source::Upper);
                }
            }
        }
        Ok(())
    }

    fn directory(
        &mut self,
        level: &Level<'_>,
        name: &[u8],
        path: Vec<u8>,
        upper: &Stat,
        lower: Option<&Stat>,
    ) -> Result<(), Error> {
        let fd = root::open_dir(level.upper, name).map_err(at(&path))?;
        let what = match lower {
            None if PLACEHOLDERS.contains(&&path[..]) => What::Passage,
            None => What::Added,
            Some(lower) if metadata_differs(upper, lower) => What::Modified,
            Some(_) => What::Passage,
        };
        let below = lower.filter(|lower| root::kind(lower) == FileType::Directory);
        let mut below = match (below, &level.lower) {
            (Some(_), Some(lower)) => Some(root::open_dir(lower, name).map_err(at(&path))?),
            _ => None,
        };
        let opaque = is_opaque(&fd).map_err(at(&path))?;
        let redirect = redirect(&fd, &path)?.filter(|_| !opaque);
        let start = self.found.len();
        self.push(what, path.clone(), Source::Upper);
        if self.whole && (opaque || redirect.is_some()) && below.take().is_some() {
            self.push(What::Opaque, path.clone(), Source::Upper);
        }
        if let Some(redirect) = redirect {
            return self.renamed(level, (&fd, &redirect), &path, below);
        }
        self.level(&Level {
            upper: &fd,
            lower: below,
            merged: level.merged && !opaque,
            path: &path,
            depth: level.depth + 1,
        })?;
        if what == What::Passage && self.found.len() == start + 1 {
            self.found.truncate(start);
        }
        Ok(())
    }

    /// Whether a file differs from what the layers below have under its name.
    fn differ(
        &self,
        tree: &OwnedFd,
        lower_tree: Option<&OwnedFd>,
        name: &[u8],
        (here, lower): (&Stat, &Stat),
    ) -> Result<bool, Error> {
        let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
        if metadata_differs(here, lower)
            || here.st_size != lower.st_size
            || time(here) != time(lower)
        {
            return Ok(true);
        }
        let (Some(below), FileType::RegularFile) = (lower_tree, root::kind(here)) else {
            return Ok(false);
        };
        let capability = |directory: BorrowedFd<'_>| {
            let file = root::open_file(directory, name)?;
            attributes::value(&file, b"security.capability")
        };
        let here = capability(tree.as_fd()).map_err(at(name))?;
        let there = capability(below.as_fd()).map_err(at(name))?;
        Ok(here != there)
    }

    fn push(&mut self, what: What, path: Vec<u8>, source: Source) {
        self.found.push(Change { what, path, source });
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        b"" => name.to_vec(),
        _ => [directory, b"/", name].concat(),
    }
}

fn metadata_differs(upper: &Stat, lower: &Stat) -> bool {
    let key = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid, s.st_rdev);
    key(upper) != key(lower)
}
