//! What a container changed: overlayfs's upper directory, seen against what lies below.

use crate::attributes;
use crate::error::{Error, at};
use crate::pack::{MAX_DEPTH, Packer};
use crate::root;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;
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

#[derive(Debug)]
struct Change {
    what: What,
    /// Without a slash in front.
    path: Vec<u8>,
}

/// Writes the changes as lines `A|C|D path NUL`.
pub(crate) fn list(layers: &Layers, mut out: impl Write) -> Result<(), Error> {
    let mut walk = Walk::new(false);
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
    let mut walk = Walk::new(true);
    walk.top(layers)?;
    let mut packer = Packer::new(out);
    for change in &walk.found {
        let slash = change.path.iter().rposition(|&byte| byte == b'/');
        let (directory, name) = match slash {
            Some(slash) => (&change.path[..=slash], &change.path[slash + 1..]),
            None => (&b""[..], &change.path[..]),
        };
        match change.what {
            What::Deleted => packer.marker([directory, WHITEOUT, name].concat())?,
            What::Opaque => packer.marker([&change.path, &b"/"[..], OPAQUE].concat())?,
            // It would delete something else, wherever the layer is unpacked.
            _ if name.starts_with(WHITEOUT) => {}
            What::Added | What::Modified | What::Passage => {
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                let parent = root::open_in(layers.upper.as_fd(), directory, flags);
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

struct Walk {
    found: Vec<Change>,
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

impl Walk {
    fn new(whole: bool) -> Self {
        Self {
            found: Vec::new(),
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
                    self.push(What::Deleted, join(level.path, &name));
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
                self.push(What::Deleted, path);
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
            None => self.push(What::Added, path),
            Some(lower) if self.whole || self.differ(level, name, &upper, &lower)? => {
                self.push(What::Modified, path);
            }
            Some(_) => {}
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
        refuse_features(&fd, &path)?;
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
        let start = self.found.len();
        self.push(what, path.clone());
        if self.whole && opaque && below.take().is_some() {
            self.push(What::Opaque, path.clone());
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

    fn differ(
        &self,
        level: &Level<'_>,
        name: &[u8],
        upper: &Stat,
        lower: &Stat,
    ) -> Result<bool, Error> {
        let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
        if metadata_differs(upper, lower)
            || upper.st_size != lower.st_size
            || time(upper) != time(lower)
        {
            return Ok(true);
        }
        let (Some(below), FileType::RegularFile) = (&level.lower, root::kind(upper)) else {
            return Ok(false);
        };
        let capability = |directory: BorrowedFd<'_>| {
            let file = root::open_file(directory, name)?;
            attributes::value(&file, b"security.capability")
        };
        let here = capability(level.upper.as_fd()).map_err(at(name))?;
        let there = capability(below.as_fd()).map_err(at(name))?;
        Ok(here != there)
    }

    fn push(&mut self, what: What, path: Vec<u8>) {
        self.found.push(Change { what, path });
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        b"" => name.to_vec(),
        _ => [directory, b"/", name].concat(),
    }
}

fn stat(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, Errno> {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// What the layers below have at a name. A whiteout there is nothing.
fn below_at(directory: &OwnedFd, name: &[u8]) -> Option<Stat> {
    let found = stat(directory.as_fd(), name).ok()?;
    (!is_whiteout(&found)).then_some(found)
}

fn is_whiteout(stat: &Stat) -> bool {
    root::kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn metadata_differs(upper: &Stat, lower: &Stat) -> bool {
    let key = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid, s.st_rdev);
    key(upper) != key(lower)
}

fn is_opaque(directory: &OwnedFd) -> Result<bool, Errno> {
    for name in ["trusted.overlay.opaque", "user.overlay.opaque"] {
        if attributes::value(directory, name.as_bytes())?.is_some_and(|value| value == b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// We never turn these on; a layer that has them means something else than it shows.
fn refuse_features(directory: &OwnedFd, path: &[u8]) -> Result<(), Error> {
    let redirect = attributes::value(directory, b"trusted.overlay.redirect").map_err(at(path))?;
    if redirect.is_some() {
        return Err(Error::Feature {
            path: String::from_utf8_lossy(path).into_owned(),
            feature: "overlayfs redirects",
        });
    }
    Ok(())
}
