//! Unpacking an archive into a directory of the container.
//!
//! It may do what the container may do to itself, and no more: every path is resolved in the
//! container's root, whatever links the archive or the container puts in the way.

use crate::attributes;
use crate::error::{Error, at};
use crate::root::{self, components};
use crate::sparse::{self, Receiving};
use hullbox_tar::{Entry, Kind, MAX_HEADER_BYTES, TarReader};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::io::{BufRead, BufReader, Read};

const CHUNK: usize = 128 * 1024;
/// Directories whose times are still to be set. More than this many keep those of the unpacking.
const MAX_DIRECTORIES: usize = 1_000_000;

/// Unpacks below one directory.
#[derive(Debug)]
pub(crate) struct Unpacker<'a> {
    root: BorrowedFd<'a>,
    /// The directory's path in the root.
    base: &'a [u8],
    keep_owner: bool,
    /// Set at the end, because what is made in a directory changes its time.
    directories: Vec<(Vec<u8>, (i64, u32))>,
}

impl<'a> Unpacker<'a> {
    pub(crate) fn new(root: BorrowedFd<'a>, base: &'a [u8], keep_owner: bool) -> Self {
        Self {
            root,
            base,
            keep_owner,
            directories: Vec::new(),
        }
    }

    /// Takes the whole archive.
    pub(crate) fn unpack(mut self, input: impl Read) -> Result<(), Error> {
        let input = BufReader::with_capacity(CHUNK, input);
        let mut tar = TarReader::new(input, MAX_HEADER_BYTES);
        while let Some(entry) = tar.next_entry()? {
            self.take(&entry, &mut tar)?;
        }
        for (path, mtime) in self.directories.iter().rev() {
            // It may be gone again, or covered; its time is then of no interest.
            let (parent, name) = path_parts(path);
            if let Ok(parent) = self.directory(parent, false) {
                let _ = set_time(&parent, name, *mtime);
            }
        }
        Ok(tar.drain()?)
    }

    fn take(&mut self, entry: &Entry, tar: &mut TarReader<impl BufRead>) -> Result<(), Error> {
        let path = inside(&entry.path)?;
        if path.is_empty() {
            // The directory itself, which stays as it is.
            return Ok(());
        }
        let (parent, name) = path_parts(&path);
        let parent = self.directory(parent, true).map_err(at(&path))?;
        if !self.make_room(&parent, name, entry, &path)? {
            self.make(&parent, name, entry, &path, tar)?;
        }
        if entry.kind != Kind::HardLink {
            self.dress(&parent, name, entry).map_err(at(&path))?;
        }
        if entry.kind == Kind::Dir && self.directories.len() < MAX_DIRECTORIES {
            self.directories.push((path, entry.mtime));
        }
        Ok(())
    }

    /// A directory below the base, made with its parents where it is missing.
    fn directory(&self, path: &[u8], make: bool) -> Result<OwnedFd, Errno> {
        let whole = [self.base, b"/", path].concat();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match root::open_in(self.root, &whole, flags) {
            Err(Errno::NOENT) if make && !path.is_empty() => {
                let (parent, name) = path_parts(path);
                let parent = self.directory(parent, true)?;
                match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) => {}
                    // A link to nowhere: Docker makes nothing of it either.
                    Err(Errno::EXIST) => return Err(Errno::NOENT),
                    Err(errno) => return Err(errno),
                }
                root::open_in(self.root, &whole, flags)
            }
            result => result,
        }
    }

    /// Removes what stands in the way. `true` if a directory is there that may stay.
    fn make_room(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        path: &[u8],
    ) -> Result<bool, Error> {
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(at(path)(errno)),
        };
        let shown = || String::from_utf8_lossy(path).into_owned();
        match (root::kind(&stat), entry.kind) {
            (FileType::Directory, Kind::Dir) => Ok(true),
            (FileType::Directory, _) => Err(Error::OverDirectory(shown())),
            (_, Kind::Dir) => Err(Error::OverFile(shown())),
            _ => {
                rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(at(path))?;
                Ok(false)
            }
        }
    }

    fn make(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        path: &[u8],
        tar: &mut TarReader<impl BufRead>,
    ) -> Result<(), Error> {
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        let node = |kind, device| {
            rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device)
        };
        match entry.kind {
            Kind::File => return file(parent, name, path, entry, tar),
            Kind::Dir => rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)),
            Kind::Symlink => rustix::fs::symlinkat(entry.link.as_slice(), parent, name),
            Kind::HardLink => {
                let target = inside(&entry.link)?;
                let (directory, old) = path_parts(&target);
                self.directory(directory, false).and_then(|directory| {
                    rustix::fs::linkat(directory, old, parent, name, AtFlags::empty())
                })
            }
            Kind::Char => node(FileType::CharacterDevice, device),
            Kind::Block => node(FileType::BlockDevice, device),
            Kind::Fifo => node(FileType::Fifo, 0),
        }
        .map_err(at(path))
    }

    /// Owner, attributes, mode and time, in the order in which one does not undo another.
    fn dress(&self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), Errno> {
        let (uid, gid) = match self.keep_owner {
            true => (entry.uid, entry.gid),
            false => (0, 0),
        };
        let owner = (Uid::from_raw(uid), Gid::from_raw(gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(parent, name, Some(owner.0), Some(owner.1), flags)?;
        if matches!(entry.kind, Kind::File | Kind::Dir) {
            let opened = match entry.kind {
                Kind::Dir => root::open_dir(parent, name)?,
                _ => root::open_file(parent, name)?,
            };
            attributes::write(&opened, &entry.xattrs)?;
            rustix::fs::fchmod(&opened, Mode::from_raw_mode(entry.mode.into()))?;
        } else if entry.kind != Kind::Symlink {
            // Whoever puts a link there in this moment can change modes in the container anyway.
            let mode = Mode::from_raw_mode(entry.mode.into());
            rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?;
        }
        match entry.kind {
            Kind::Dir => Ok(()),
            _ => set_time(parent, name, entry.mtime),
        }
    }
}

fn file(
    parent: &OwnedFd,
    name: &[u8],
    path: &[u8],
    entry: &Entry,
    tar: &mut TarReader<impl BufRead>,
) -> Result<(), Error> {
    let flags = OFlags::WRONLY
        | OFlags::CREATE
        | OFlags::EXCL
        | OFlags::NOFOLLOW
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o600);
    let file = rustix::fs::openat(parent, name, flags, mode).map_err(at(path))?;
    sparse::receive(&file, entry, tar).map_err(|error| match error {
        Receiving::Tar(error) => error.into(),
        Receiving::Write(errno) => at(path)(errno),
    })
}

fn set_time(parent: &OwnedFd, name: &[u8], (seconds, nanos): (i64, u32)) -> Result<(), Errno> {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos.into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(parent.as_fd(), name, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// A name in an archive, as a path below the directory.
fn inside(name: &[u8]) -> Result<Vec<u8>, Error> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in components(name) {
        if part != b".." {
            parts.push(part);
        } else if parts.pop().is_none() {
            return Err(Error::Outside(String::from_utf8_lossy(name).into_owned()));
        }
    }
    Ok(parts.join(&b'/'))
}

/// Directory and name of a clean relative path.
fn path_parts(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}
