//! Directories of the layers below that were renamed.
//!
//! With `redirect_dir=on` overlayfs does not copy such a directory: under its new name the upper one
//! says where the lower one is (`trusted.overlay.redirect`), and both together are what it holds. To
//! everybody but overlayfs the old directory is gone (a whiteout says so) and a new one has come, with
//! all that is in it.

use super::overlay::{below_at, is_opaque, is_whiteout, redirect, stat};
use super::{Below, Level, Source, Walk, What, join};
use crate::error::{Error, at};
use crate::pack::MAX_DEPTH;
use crate::root;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;
use std::collections::BTreeSet;

/// A directory that was renamed, or lies in one.
struct Moved<'a> {
    upper: Option<&'a OwnedFd>,
    below: Option<Below>,
    /// What the layers below have under its new name.
    lower: Option<OwnedFd>,
    path: &'a [u8],
    depth: usize,
}

/// What is at a name of it.
enum Found {
    Upper(Stat),
    Below(Stat),
}

impl Walk<'_> {
    /// Finds the lower part of a directory that says where it is; `parent` is where the lower part of
    /// its parent directory is. `None` where there is nothing.
    ///
    /// Overlayfs says it of no two directories. Who writes to the disk past it could have one lower
    /// directory come out any number of times.
    fn below(
        &mut self,
        redirect: &[u8],
        parent: Option<&[u8]>,
        path: &[u8],
    ) -> Result<Option<Below>, Error> {
        let damaged = || Error::Feature {
            path: String::from_utf8_lossy(path).into_owned(),
            feature: "overlayfs redirects that overlayfs does not make",
        };
        let place = match (redirect, parent) {
            ([b'/', rest @ ..], _) => rest.to_vec(),
            (name, _) if name.contains(&b'/') => return Err(damaged()),
            (name, Some(parent)) => join(parent, name),
            (_, None) => return Ok(None),
        };
        let odd = |part: &[u8]| matches!(part, b"" | b"." | b"..");
        if place.split(|&byte| byte == b'/').any(odd) || !self.redirects.insert(place.clone()) {
            return Err(damaged());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match root::open_beneath(self.lower, &place, flags) {
            Ok(fd) => Ok(Some(Below { fd, path: place })),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(at(path)(errno)),
        }
    }

    /// A directory of a level that was not renamed, which itself was.
    pub(super) fn renamed(
        &mut self,
        level: &Level<'_>,
        (upper, redirect): (&OwnedFd, &[u8]),
        path: &[u8],
        lower: Option<OwnedFd>,
    ) -> Result<(), Error> {
        let parent = level.merged.then_some(level.path);
        let below = self.below(redirect, parent, path)?;
        self.moved(&Moved {
            upper: Some(upper),
            below,
            lower,
            path,
            depth: level.depth + 1,
        })
    }

    fn moved(&mut self, dir: &Moved<'_>) -> Result<(), Error> {
        if dir.depth > MAX_DEPTH {
            return Err(at(dir.path)(Errno::NAMETOOLONG));
        }
        let trees = [
            dir.upper,
            dir.below.as_ref().map(|below| &below.fd),
            dir.lower.as_ref(),
        ];
        let mut names = BTreeSet::new();
        for tree in trees.into_iter().flatten() {
            names.extend(root::names(tree).map_err(at(dir.path))?);
        }
        for name in names {
            let path = join(dir.path, &name);
            let lower = dir.lower.as_ref().and_then(|fd| below_at(fd, &name));
            match (found(dir, &name).map_err(at(&path))?, lower) {
                (None, None) => {}
                (None, Some(_)) => self.push(What::Deleted, path, Source::Upper),
                (Some(found), lower) => self.arrived(dir, &name, &path, (&found, lower))?,
            }
        }
        Ok(())
    }

    fn arrived(
        &mut self,
        dir: &Moved<'_>,
        name: &[u8],
        path: &[u8],
        (found, lower): (&Found, Option<Stat>),
    ) -> Result<(), Error> {
        let below = dir.below.as_ref();
        let (here, source, tree) = match found {
            Found::Upper(stat) => (stat, Source::Upper, dir.upper),
            Found::Below(stat) => {
                let place = below.map_or(&b""[..], |below| &below.path);
                let source = Source::Lower(join(place, name));
                (stat, source, below.map(|below| &below.fd))
            }
        };
        let Some(tree) = tree else { return Ok(()) };
        let is_dir = root::kind(here) == FileType::Directory;
        let what = match &lower {
            None => What::Added,
            Some(lower) if is_dir && !super::metadata_differs(here, lower) => What::Passage,
            Some(lower) => {
                match is_dir || self.differ(tree, dir.lower.as_ref(), name, (here, lower))? {
                    true => What::Modified,
                    false => return Ok(()),
                }
            }
        };
        if !is_dir {
            self.push(what, path.to_vec(), source);
            return Ok(());
        }
        let opened = root::open_dir(tree, name).map_err(at(path))?;
        let is_upper = matches!(found, Found::Upper(_));
        let below = match is_upper {
            true => self.below_of(&opened, (dir, name), path)?,
            false => {
                let fd = opened.try_clone().map_err(|_| at(path)(Errno::MFILE))?;
                let place = below.map_or(&b""[..], |below| &below.path);
                let path = join(place, name);
                Some(Below { fd, path })
            }
        };
        let same = match (&dir.lower, lower) {
            (Some(tree), Some(lower)) if root::kind(&lower) == FileType::Directory => {
                Some(root::open_dir(tree, name).map_err(at(path))?)
            }
            _ => None,
        };
        let start = self.found.len();
        self.push(what, path.to_vec(), source);
        self.moved(&Moved {
            upper: is_upper.then_some(&opened),
            below,
            lower: same,
            path,
            depth: dir.depth + 1,
        })?;
        if what == What::Passage && self.found.len() == start + 1 {
            self.found.truncate(start);
        }
        Ok(())
    }

    /// The lower part of an upper directory in one that was renamed.
    fn below_of(
        &mut self,
        upper: &OwnedFd,
        (dir, name): (&Moved<'_>, &[u8]),
        path: &[u8],
    ) -> Result<Option<Below>, Error> {
        if is_opaque(upper).map_err(at(path))? {
            return Ok(None);
        }
        let below = dir.below.as_ref();
        if let Some(redirect) = redirect(upper, path)? {
            return self.below(&redirect, below.map(|below| &below.path[..]), path);
        }
        let Some(below) = below else {
            return Ok(None);
        };
        match below_at(&below.fd, name) {
            Some(stat) if root::kind(&stat) == FileType::Directory => Ok(Some(Below {
                fd: root::open_dir(&below.fd, name).map_err(at(path))?,
                path: join(&below.path, name),
            })),
            _ => Ok(None),
        }
    }
}

/// What both parts of a directory have at a name.
fn found(dir: &Moved<'_>, name: &[u8]) -> Result<Option<Found>, Errno> {
    if let Some(upper) = dir.upper {
        match stat(upper.as_fd(), name) {
            Ok(stat) if is_whiteout(&stat) => return Ok(None),
            Ok(stat) => return Ok(Some(Found::Upper(stat))),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    let below = dir.below.as_ref();
    let stat = below.and_then(|below| below_at(&below.fd, name));
    Ok(stat.map(Found::Below))
}
