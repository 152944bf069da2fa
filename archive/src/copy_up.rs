//! Filling an empty volume with what the image has at its place.
//!
//! As Docker has it: only a volume in which there is nothing, and its own owner, mode, attributes and
//! time are those of the directory. What was begun and not finished is marked on the volume, and begun
//! anew by whoever comes next. Whoever fills one volume at the same time on the same kernel waits.

use crate::attributes;
use crate::error::{Error, at};
use crate::pack::{MAX_DEPTH, is_mounted};
use crate::root::{self, open_beneath};
use crate::sparse;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid,
    XattrFlags, fremovexattr, fsetxattr,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The mark of a volume that is being filled.
const MARK: &str = "user.hullbox.filling";
/// What a new ext4 file system has in its root.
const LOST_FOUND: &[u8] = b"lost+found";
/// Bytes of a file that are copied at a time.
const CHUNK: usize = 128 * 1024;
/// How long others may take to fill a volume that is waited for.
const LOCK_LIMIT: Duration = Duration::from_secs(60);
/// Time between two tries to lock it.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Copies what is in the directory `from` into the volume `to`, if there is nothing in that, and gives
/// it the directory's owner, mode, extended attributes and time. Returns whether it did. What is
/// mounted within `from` is left out: of a directory there is an empty one, of a file an empty one.
///
/// Owners, nodes and attributes take the capabilities for them; a device that may not be made is left
/// out. Both descriptors may be `O_PATH`. With `lasting` all of it is on the volume's disk at the end,
/// and a volume that is not marked is whole whenever its kernel ends.
///
/// # Errors
/// [`Error::At`]. The volume may be half full then, and is emptied and filled by the next call.
pub fn copy_up(from: BorrowedFd<'_>, to: BorrowedFd<'_>, lasting: bool) -> Result<bool, Error> {
    let failed = || at(b"/");
    let to = root::open_dir(to, b".").map_err(failed())?;
    if !is_marked(&to) && !is_empty(&to).map_err(failed())? {
        return Ok(false);
    }
    lock(&to).map_err(failed())?;
    // Somebody may have been faster.
    if is_marked(&to) {
        clear(&to, b"", 0)?;
    } else if !is_empty(&to).map_err(failed())? {
        return Ok(false);
    }
    let from = root::open_dir(from, b".").map_err(failed())?;
    let _limit = super::DescriptorLimit::raise();
    // Where there are no attributes, half a copy is taken for a whole one, as Docker takes it.
    let _ = fsetxattr(&to, MARK, b"", XattrFlags::empty());
    let mut copier = Copier {
        volume: to.as_fd(),
        seen: HashMap::new(),
        buffer: vec![0; CHUNK],
    };
    copier.directory(&from, &to, b"", 0)?;
    if lasting {
        rustix::fs::syncfs(&to).map_err(failed())?;
    }
    let _ = fremovexattr(&to, MARK);
    // Its own time again, which the mark has not changed, but the names in it have.
    let stat = rustix::fs::fstat(&from).map_err(failed())?;
    rustix::fs::futimens(&to, &times(&stat)).map_err(failed())?;
    if lasting {
        // Whoever still found the mark would empty the volume, and what was written to it since.
        rustix::fs::fsync(&to).map_err(failed())?;
    }
    Ok(true)
}

/// Waits for others who fill the same volume. Not for ever: whoever has the volume can hold the lock.
fn lock(volume: &OwnedFd) -> Result<(), Errno> {
    let deadline = Instant::now() + LOCK_LIMIT;
    loop {
        match rustix::fs::flock(volume, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(LOCK_PAUSE),
            Err(Errno::WOULDBLOCK) => return Err(Errno::BUSY),
            // Not every file system has locks of directories.
            _ => return Ok(()),
        }
    }
}

fn is_marked(volume: &OwnedFd) -> bool {
    attributes::value(volume, MARK.as_bytes()).is_ok_and(|mark| mark.is_some())
}

/// Whether there is nothing in it but what a file system is made with.
fn is_empty(directory: &OwnedFd) -> Result<bool, Errno> {
    let names = root::names(directory)?;
    match names.as_slice() {
        [] => Ok(true),
        [only] if only == LOST_FOUND => match root::open_dir(directory, only) {
            Ok(within) => Ok(root::names(within)?.is_empty()),
            Err(_) => Ok(false),
        },
        _ => Ok(false),
    }
}

/// Removes everything that is in a directory.
fn clear(directory: &OwnedFd, path: &[u8], depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(at(path)(Errno::NAMETOOLONG));
    }
    for name in root::names(directory).map_err(at(path))? {
        let below = [path, b"/", &name].concat();
        let removed = match rustix::fs::unlinkat(directory, &*name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {
                let within = root::open_dir(directory, &name).map_err(at(&below))?;
                clear(&within, &below, depth + 1)?;
                rustix::fs::unlinkat(directory, &*name, AtFlags::REMOVEDIR)
            }
            other => other,
        };
        removed.map_err(at(&below))?;
    }
    Ok(())
}

struct Copier<'a> {
    volume: BorrowedFd<'a>,
    /// Where files with more than one name are in the volume, by device and inode.
    seen: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

impl Copier<'_> {
    /// Copies what is in a directory, then what is known of the directory.
    fn directory(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        path: &[u8],
        depth: usize,
    ) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(at(path)(Errno::NAMETOOLONG));
        }
        for name in root::names(from).map_err(at(path))? {
            let mut below = path.to_vec();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend(&name);
            self.one(from, to, &name, &below, depth)?;
        }
        let stat = rustix::fs::fstat(from).map_err(at(path))?;
        dress(from, to, &stat).map_err(at(path))
    }

    fn one(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &[u8],
        path: &[u8],
        depth: usize,
    ) -> Result<(), Error> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let stat = rustix::fs::statat(from, name, flags).map_err(at(path))?;
        let mounted = is_mounted(from.as_fd(), name);
        let kind = root::kind(&stat);
        if kind == FileType::Directory {
            rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700)).map_err(at(path))?;
            let made = root::open_dir(to, name).map_err(at(path))?;
            let within = root::open_dir(from, name).map_err(at(path))?;
            return match mounted {
                true => dress(&within, &made, &stat).map_err(at(path)),
                false => self.directory(&within, &made, path, depth + 1),
            };
        }
        if stat.st_nlink > 1 && !mounted {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.seen.get(&inode) {
                return self.link(first, to, name).map_err(at(path));
            }
            self.seen.insert(inode, path.to_vec());
        }
        match kind {
            FileType::RegularFile => self.file(from, to, name, mounted),
            _ => other(from, to, name, &stat),
        }
        .map_err(at(path))
    }

    /// Another name for a file that is in the volume.
    fn link(&self, first: &[u8], to: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        let slash = first.iter().rposition(|&byte| byte == b'/');
        let (directory, old) = match slash {
            Some(slash) => (&first[..slash], &first[slash + 1..]),
            None => (&b"."[..], first),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let parent = open_beneath(self.volume, directory, flags)?;
        rustix::fs::linkat(&parent, old, to, name, AtFlags::empty())
    }

    fn file(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &[u8],
        mounted: bool,
    ) -> Result<(), Errno> {
        let source = root::open_file(from, name)?;
        let stat = rustix::fs::fstat(&source)?;
        let flags = OFlags::WRONLY
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        let target = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
        if !mounted {
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            let whole = [(0, size)];
            let map = sparse::map(&source, size);
            let mut end = 0;
            for &(offset, len) in map.as_deref().unwrap_or(&whole) {
                let reached = self.segment(&source, &target, offset, len)?;
                // The piece behind the last hole is an empty one.
                if reached > offset {
                    end = reached;
                }
            }
            // A hole at the end. Otherwise nothing is missing, and to say so costs a file server two requests.
            if end < size {
                rustix::fs::ftruncate(&target, size)?;
            }
        }
        dress(&source, &target, &stat)
    }

    /// Copies a part of a file; less, if the file ends within. Where that was.
    fn segment(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        mut offset: u64,
        len: u64,
    ) -> Result<u64, Errno> {
        let end = offset + len;
        while offset < end {
            let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let piece = left.min(self.buffer.len());
            let buffer = &mut self.buffer[..piece];
            let read = rustix::io::retry_on_intr(|| rustix::io::pread(from, &mut *buffer, offset))?;
            if read == 0 {
                break;
            }
            let mut piece = &self.buffer[..read];
            while !piece.is_empty() {
                let written = rustix::io::retry_on_intr(|| rustix::io::pwrite(to, piece, offset))?;
                piece = &piece[written..];
                offset += written as u64;
            }
        }
        Ok(offset)
    }
}

/// Makes a link, a node, a FIFO or a socket's name.
fn other(from: &OwnedFd, to: &OwnedFd, name: &[u8], stat: &Stat) -> Result<(), Errno> {
    let kind = root::kind(stat);
    let device = stat.st_rdev;
    match kind {
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target.as_c_str(), to, name)?;
        }
        FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo | FileType::Socket => {
            match rustix::fs::mknodat(to, name, kind, Mode::from_raw_mode(0o600), device) {
                Err(Errno::PERM) => return Ok(()),
                other => other?,
            }
        }
        // Nothing that Linux has.
        _ => return Ok(()),
    }
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let (uid, gid) = owner(stat);
    rustix::fs::chownat(to, name, Some(uid), Some(gid), flags)?;
    if kind != FileType::Symlink {
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
    }
    rustix::fs::utimensat(to, name, &times(stat), flags)
}

/// Owner, attributes, mode and time, in the order in which one does not undo another.
fn dress(from: &OwnedFd, to: &OwnedFd, stat: &Stat) -> Result<(), Errno> {
    let (uid, gid) = owner(stat);
    rustix::fs::fchown(to, Some(uid), Some(gid))?;
    attributes::write(to, &attributes::read(from)?)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    rustix::fs::futimens(to, &times(stat))
}

fn owner(stat: &Stat) -> (Uid, Gid) {
    (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid))
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanos| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanos).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    fn open(path: &Path) -> OwnedFd {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        rustix::fs::open(path, flags, Mode::empty()).unwrap()
    }

    fn copy(from: &Path, to: &Path) -> bool {
        copy_up(open(from).as_fd(), open(to).as_fd(), true).unwrap()
    }

    fn pair() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        (dir, from, to)
    }

    #[test]
    fn an_empty_volume_gets_everything_that_is_there() {
        let (_dir, from, to) = pair();
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::write(from.join("a/b/file"), "text").unwrap();
        fs::set_permissions(from.join("a/b/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::hard_link(from.join("a/b/file"), from.join("z")).unwrap();
        symlink("../nowhere", from.join("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            from.join("fifo"),
            FileType::Fifo,
            Mode::from_raw_mode(0o622),
            0,
        )
        .unwrap();
        let holes = fs::File::create(from.join("holes")).unwrap();
        holes.set_len(64 << 20).unwrap();
        holes.write_all_at(b"data", 32 << 20).unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o1750)).unwrap();
        assert!(copy(&from, &to));
        let meta = |path: &str| fs::symlink_metadata(to.join(path)).unwrap();
        assert_eq!(meta("").mode() & 0o7777, 0o1750);
        assert_eq!(meta("a/b/file").mode() & 0o7777, 0o4751);
        assert_eq!(meta("a/b/file").ino(), meta("z").ino());
        assert_eq!(
            fs::read_link(to.join("link")).unwrap(),
            Path::new("../nowhere")
        );
        assert_eq!(FileType::from_raw_mode(meta("fifo").mode()), FileType::Fifo);
        assert_eq!(meta("holes").len(), 64 << 20);
        assert!(meta("holes").blocks() < 2048, "{}", meta("holes").blocks());
        let was = fs::metadata(&from).unwrap();
        assert_eq!(meta("").mtime_nsec(), was.mtime_nsec());
        // Nothing is left of the mark.
        let mark = attributes::value(open_for_reading(&to), MARK.as_bytes());
        assert_eq!(mark.unwrap(), None);
    }

    fn open_for_reading(path: &Path) -> OwnedFd {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        rustix::fs::open(path, flags, Mode::empty()).unwrap()
    }

    #[test]
    fn a_volume_with_anything_in_it_stays_as_it_is() {
        let (_dir, from, to) = pair();
        fs::write(from.join("new"), "").unwrap();
        fs::write(to.join(".hidden"), "").unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!copy(&from, &to));
        assert!(!to.join("new").exists());
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_new_file_system_is_empty() {
        let (_dir, from, to) = pair();
        fs::write(from.join("new"), "").unwrap();
        fs::create_dir(to.join("lost+found")).unwrap();
        assert!(copy(&from, &to));
        assert!(to.join("new").exists());
    }

    #[test]
    fn half_a_copy_is_made_anew() {
        let (_dir, from, to) = pair();
        fs::write(from.join("new"), "whole").unwrap();
        fs::create_dir(from.join("dir")).unwrap();
        fs::create_dir_all(to.join("dir/sub")).unwrap();
        fs::write(to.join("new"), "ha").unwrap();
        fs::write(to.join("dir/sub/x"), "").unwrap();
        let mark = fsetxattr(open_for_reading(&to), MARK, b"", XattrFlags::empty());
        if mark.is_err() {
            eprintln!("skipped: no attributes here");
            return;
        }
        assert!(copy(&from, &to));
        assert_eq!(fs::read_to_string(to.join("new")).unwrap(), "whole");
        assert!(!to.join("dir/sub").exists());
        // Once it is whole, it is a volume with something in it.
        assert!(!copy(&from, &to));
    }

    #[test]
    fn owners_devices_and_attributes_come_along() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: not root");
            return;
        }
        let (_dir, from, to) = pair();
        fs::write(from.join("file"), "").unwrap();
        std::os::unix::fs::chown(from.join("file"), Some(999), Some(998)).unwrap();
        std::os::unix::fs::chown(&from, Some(70), Some(71)).unwrap();
        let device = rustix::fs::makedev(1, 3);
        let mode = Mode::from_raw_mode(0o666);
        let kind = FileType::CharacterDevice;
        let made = rustix::fs::mknodat(rustix::fs::CWD, from.join("null"), kind, mode, device);
        let flags = XattrFlags::empty();
        let set = rustix::fs::setxattr(from.join("file"), "user.x", b"y", flags);
        assert!(copy(&from, &to));
        let meta = |path: &str| fs::symlink_metadata(to.join(path)).unwrap();
        assert_eq!((meta("").uid(), meta("").gid()), (70, 71));
        assert_eq!((meta("file").uid(), meta("file").gid()), (999, 998));
        if made.is_ok() {
            assert_eq!(meta("null").rdev(), device);
        }
        if set.is_ok() {
            let mut value = [0; 8];
            let length = rustix::fs::getxattr(to.join("file"), "user.x", &mut value[..]);
            assert_eq!(&value[..length.unwrap()], b"y");
        }
    }
}
