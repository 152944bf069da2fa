//! Writing files and trees into an archive.

use crate::attributes;
use crate::error::{Error, at};
use crate::root::{self, Place};
use crate::sparse;
use hullbox_tar::{Entry, Kind, TarWriter};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Stat, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io::Write;

/// Deeper than any path can be.
pub(crate) const MAX_DEPTH: usize = 2100;
/// Bytes that are read from a file at a time.
const CHUNK: usize = 128 * 1024;

/// Packs what it is shown, hard links as such.
#[derive(Debug)]
pub(crate) struct Packer<W> {
    tar: TarWriter<W>,
    /// Where files with more than one name stand in the archive, by device and inode.
    seen: HashMap<(u64, u64), Vec<u8>>,
    /// Leave out what is mounted.
    one_mount: bool,
    buffer: Vec<u8>,
    /// The first file that ended before its length.
    short: Option<Vec<u8>>,
}

impl<W: Write> Packer<W> {
    pub(crate) fn new(out: W) -> Self {
        Self {
            tar: TarWriter::new(out),
            seen: HashMap::new(),
            one_mount: false,
            buffer: vec![0; CHUNK],
            short: None,
        }
    }

    /// Leaves what is mounted out: of a directory only its name, of a file an empty one.
    pub(crate) fn within_mount(mut self) -> Self {
        self.one_mount = true;
        self
    }

    /// Packs what `place` names with everything below it.
    pub(crate) fn tree(&mut self, place: &Place) -> Result<(), Error> {
        self.descend(place.parent.as_fd(), &place.name, &place.shown, 0)
    }

    /// Packs everything in a directory, but not the directory.
    pub(crate) fn contents(&mut self, directory: &OwnedFd) -> Result<(), Error> {
        for name in root::names(directory).map_err(at(b"/"))? {
            self.descend(directory.as_fd(), &name, &name, 1)?;
        }
        Ok(())
    }

    fn descend(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        depth: usize,
    ) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(at(path)(Errno::NAMETOOLONG));
        }
        let mounted = self.one_mount && depth > 0 && is_mounted(parent, name);
        let Some(stat) = unless_vanished(lstat(parent, name)).map_err(at(path))? else {
            return Ok(());
        };
        if root::kind(&stat) != FileType::Directory {
            return match mounted {
                true => self.placeholder(&stat, path),
                false => self.one(parent, name, path),
            };
        }
        let opened = root::open_dir(parent, name);
        let Some(directory) = unless_vanished(opened).map_err(at(path))? else {
            return Ok(());
        };
        self.directory(&directory, path)?;
        if mounted {
            return Ok(());
        }
        for name in root::names(&directory).map_err(at(path))? {
            let path = [path, b"/", &name].concat();
            self.descend(directory.as_fd(), &name, &path, depth + 1)?;
        }
        Ok(())
    }

    /// Packs a directory's own entry.
    pub(crate) fn directory(&mut self, directory: &OwnedFd, path: &[u8]) -> Result<(), Error> {
        let stat = rustix::fs::fstat(directory).map_err(at(path))?;
        let mut entry = entry_of(&stat, Kind::Dir, [path, b"/"].concat());
        entry.xattrs = attributes::read(directory).map_err(at(path))?;
        self.tar.entry(&entry).map_err(Error::Write)
    }

    /// Packs anything but a directory. What vanished meanwhile, and sockets, are left out.
    pub(crate) fn one(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
    ) -> Result<(), Error> {
        let Some(stat) = unless_vanished(lstat(parent, name)).map_err(at(path))? else {
            return Ok(());
        };
        let kind = match root::kind(&stat) {
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::Char,
            FileType::BlockDevice => Kind::Block,
            FileType::Fifo => Kind::Fifo,
            _ => return Ok(()),
        };
        if stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.seen.get(&inode) {
                let mut entry = entry_of(&stat, Kind::HardLink, path.to_vec());
                entry.link.clone_from(first);
                return self.tar.entry(&entry).map_err(Error::Write);
            }
            self.seen.insert(inode, path.to_vec());
        }
        if kind == Kind::File {
            return self.file(parent, name, path);
        }
        let mut entry = entry_of(&stat, kind, path.to_vec());
        if kind == Kind::Symlink {
            let target = rustix::fs::readlinkat(parent, name, Vec::new());
            let Some(target) = unless_vanished(target).map_err(at(path))? else {
                return Ok(());
            };
            entry.link = target.into_bytes();
        }
        self.tar.entry(&entry).map_err(Error::Write)
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<(), Error> {
        let Some(file) = unless_vanished(root::open_file(parent, name)).map_err(at(path))? else {
            return Ok(());
        };
        let stat = rustix::fs::fstat(&file).map_err(at(path))?;
        if root::kind(&stat) != FileType::RegularFile {
            return Ok(());
        }
        let mut entry = entry_of(&stat, Kind::File, path.to_vec());
        entry.xattrs = attributes::read(&file).map_err(at(path))?;
        entry.sparse = sparse::map(&file, entry.size);
        self.tar.entry(&entry).map_err(Error::Write)?;
        let whole = [(0, entry.size)];
        for &(offset, len) in entry.sparse.as_deref().unwrap_or(&whole) {
            if !self.segment(&file, offset, len).map_err(|e| e.of(path))? {
                let _ = self.short.get_or_insert_with(|| path.to_vec());
                break;
            }
        }
        self.tar.fill_up().map_err(Error::Write)
    }

    /// Packs a part of a file. `false` if the file ends within.
    fn segment(&mut self, file: &OwnedFd, mut offset: u64, len: u64) -> Result<bool, Copying> {
        let end = offset + len;
        while offset < end {
            let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let piece = left.min(self.buffer.len());
            let buffer = &mut self.buffer[..piece];
            let read = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *buffer, offset));
            let read = read.map_err(Copying::Read)?;
            if read == 0 {
                return Ok(false);
            }
            self.tar
                .write_all(&self.buffer[..read])
                .map_err(Copying::Write)?;
            offset += read as u64;
        }
        Ok(true)
    }

    /// A file that something is mounted over: what is beneath is not to be seen.
    fn placeholder(&mut self, stat: &Stat, path: &[u8]) -> Result<(), Error> {
        let mut entry = entry_of(stat, Kind::File, path.to_vec());
        entry.size = 0;
        self.tar.entry(&entry).map_err(Error::Write)
    }

    /// Packs an empty file with a meaning: a whiteout.
    pub(crate) fn marker(&mut self, path: Vec<u8>) -> Result<(), Error> {
        let entry = Entry {
            path,
            mode: 0o600,
            ..Entry::of(Kind::File)
        };
        self.tar.entry(&entry).map_err(Error::Write)
    }

    /// The end of the archive; an error if a file changed while it was read.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let mut out = self.tar.finish().map_err(Error::Write)?;
        out.flush().map_err(Error::Write)?;
        match self.short {
            Some(path) => Err(Error::Shrank(String::from_utf8_lossy(&path).into_owned())),
            None => Ok(()),
        }
    }
}

/// Which side of a copy failed.
enum Copying {
    Read(Errno),
    Write(std::io::Error),
}

impl Copying {
    fn of(self, path: &[u8]) -> Error {
        match self {
            Self::Read(errno) => at(path)(errno),
            Self::Write(error) => Error::Write(error),
        }
    }
}

fn lstat(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, Errno> {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// What vanished or changed its kind since its directory was read is no error.
fn unless_vanished<T>(result: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether something is mounted there.
pub(crate) fn is_mounted(parent: BorrowedFd<'_>, name: &[u8]) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let found = rustix::fs::statx(parent, name, flags, StatxFlags::empty());
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn entry_of(stat: &Stat, kind: Kind, path: Vec<u8>) -> Entry {
    let device = match kind {
        Kind::Char | Kind::Block => (
            rustix::fs::major(stat.st_rdev),
            rustix::fs::minor(stat.st_rdev),
        ),
        _ => (0, 0),
    };
    Entry {
        path,
        mode: (stat.st_mode & 0o7777) as u16,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (
            stat.st_mtime,
            u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        ),
        size: match kind {
            Kind::File => u64::try_from(stat.st_size).unwrap_or(0),
            _ => 0,
        },
        device,
        ..Entry::of(kind)
    }
}
