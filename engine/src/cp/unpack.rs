//! A tar stream from inside a container as local files.
//!
//! Whoever wrote the stream may want anything at all, so:
//!
//! * Everything is opened relative to the directory that was named, beneath it, and through no
//!   symbolic link: neither one that the stream brought nor one that was there.
//! * `..` and absolute names are refused, and names outside the stream's one top.
//! * What stands in a file's way is unlinked if it is a file or a link, so that nothing is written
//!   through; anything else in the way is an error.
//! * Devices and pipes are not made. Of a sparse file only what the sender has sent is written; the
//!   rest stays a hole, which costs nothing here either.
//! * Set-id bits and owners are kept only with `-a`, and only for root, who alone can give a file
//!   to its owner.

use super::CpError;
use super::rules::Plan;
use hullbox_archive::Receiving;
use hullbox_tar::{Entry as TarEntry, Kind as TarKind, MAX_HEADER_BYTES, TarReader};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::fs::File;
use std::io::BufRead;
use std::os::fd::OwnedFd;

/// Bytes of directories' names that wait for their permissions.
const MAX_PENDING_BYTES: usize = 64 * 1024 * 1024;
/// Most names kept of what was skipped.
const MAX_SKIPPED: usize = 20;

/// How to unpack.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnpackOptions {
    /// `-a`: owners and set-id bits as they are, as far as root does it.
    pub archive: bool,
}

/// What was unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Files, directories and links.
    pub entries: u64,
    /// Sizes of the files together.
    pub bytes: u64,
    /// Names of devices and pipes that were left out, the first few.
    pub skipped: Vec<String>,
    /// How many those are together.
    pub skipped_count: u64,
}

/// Unpacks `input` to where `plan` says. What was written before an error stays.
///
/// # Errors
/// [`CpError`].
pub fn unpack(
    input: impl BufRead,
    plan: &Plan,
    options: UnpackOptions,
) -> Result<Unpacked, CpError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&plan.directory[..], flags, Mode::empty())
        .map_err(|error| CpError::local("open", &plan.directory, error))?;
    let mut unpacker = Unpacker {
        root,
        plan,
        keep_owner: options.archive && rustix::process::geteuid().is_root(),
        top: None,
        dirs: Vec::new(),
        pending_bytes: 0,
        done: Unpacked::default(),
    };
    let mut tar = TarReader::new(input, MAX_HEADER_BYTES);
    while let Some(entry) = tar.next_entry()? {
        unpacker.entry(&mut tar, &entry)?;
    }
    if !tar.ended() {
        return Err(CpError::CutOff);
    }
    unpacker.finish_dirs()?;
    Ok(unpacker.done)
}

/// Where an entry goes.
struct Target<'a> {
    /// The directory that it is put into.
    parent: OwnedFd,
    /// Its name there.
    name: &'a [u8],
    /// Its path, relative to the root.
    path: &'a [u8],
}

/// A directory that gets its owner, mode and time when nothing is put into it any more.
struct PendingDir {
    path: Vec<u8>,
    mode: u16,
    owner: (u32, u32),
    mtime: (i64, u32),
}

struct Unpacker<'a> {
    root: OwnedFd,
    plan: &'a Plan,
    keep_owner: bool,
    /// The stream's name for its top, once known; the empty one is `.`.
    top: Option<Vec<u8>>,
    dirs: Vec<PendingDir>,
    pending_bytes: usize,
    done: Unpacked,
}

impl Unpacker<'_> {
    fn entry<R: BufRead>(
        &mut self,
        tar: &mut TarReader<R>,
        entry: &TarEntry,
    ) -> Result<(), CpError> {
        let refuse = |problem| CpError::refused(&entry.path, problem);
        let Some(path) = self.place(&entry.path)? else {
            // The top, whose contents go into a directory that is there.
            return match entry.kind {
                TarKind::Dir => Ok(()),
                _ => Err(refuse("is not the directory that was asked for")),
            };
        };
        let (parent, name) = split(&path);
        let target = Target {
            parent: self.parent(parent)?,
            name,
            path: &path,
        };
        match entry.kind {
            TarKind::Dir => self.dir(&target, entry)?,
            TarKind::File => self.file(tar, &target, entry)?,
            TarKind::Symlink => self.symlink(&target, entry)?,
            TarKind::HardLink => self.hard_link(&target, entry)?,
            TarKind::Char | TarKind::Block | TarKind::Fifo => {
                self.done.skipped_count += 1;
                if self.done.skipped.len() < MAX_SKIPPED {
                    self.done.skipped.push(super::shown(&entry.path));
                }
                return Ok(());
            }
        }
        self.done.entries += 1;
        Ok(())
    }

    /// Where a name of the stream goes, relative to the root; nothing if it is the root itself.
    fn place(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, CpError> {
        let refuse = |problem| CpError::refused(path, problem);
        if path.starts_with(b"/") {
            return Err(refuse("is absolute"));
        }
        let mut names: Vec<&[u8]> = Vec::new();
        for name in path.split(|&byte| byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => return Err(refuse("has \"..\" in its name")),
                name => names.push(name),
            }
        }
        let first = names.first().copied().unwrap_or_default();
        let top = self.top.get_or_insert_with(|| first.to_vec());
        if !top.is_empty() {
            if first != &top[..] {
                return Err(refuse("is outside of what was asked for"));
            }
            names.remove(0);
        }
        if let Some(name) = &self.plan.name {
            names.insert(0, name);
        }
        Ok((!names.is_empty()).then(|| names.join(&b'/')))
    }

    fn at(&self, path: &[u8]) -> Vec<u8> {
        [&self.plan.directory[..], b"/", path].concat()
    }

    fn fail<'s>(
        &'s self,
        action: &'static str,
        path: &'s [u8],
    ) -> impl FnOnce(Errno) -> CpError + 's {
        move |error| match error {
            Errno::LOOP => CpError::refused(path, "leads through a symbolic link"),
            error => CpError::local(action, &self.at(path), error),
        }
    }

    fn open_dir(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        // Without O_NOFOLLOW, under which a link at the end would be "not a directory".
        let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), how)
    }

    /// The directory that an entry is put into. It and those above it are created where the stream had
    /// no entries for them.
    fn parent(&self, path: &[u8]) -> Result<OwnedFd, CpError> {
        match self.open_dir(path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(self.fail("open", path)),
        }
        // From the top down, and not by recursion: the stream decides how deep the path is.
        let slashes = (0..path.len()).filter(|&at| path[at] == b'/');
        for end in slashes.chain([path.len()]) {
            self.create_missing(&path[..end])?;
        }
        self.open_dir(path, OFlags::PATH)
            .map_err(self.fail("open", path))
    }

    /// Creates a directory in one that is there, unless it is there itself.
    fn create_missing(&self, path: &[u8]) -> Result<(), CpError> {
        let (parent, name) = split(path);
        let parent = self
            .open_dir(parent, OFlags::PATH)
            .map_err(self.fail("open", parent))?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(self.fail("create", path)(error)),
        }
    }

    fn dir(&mut self, target: &Target<'_>, entry: &TarEntry) -> Result<(), CpError> {
        let path = target.path;
        match rustix::fs::mkdirat(&target.parent, target.name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                // One that was there keeps its owner, mode and time.
                return self
                    .open_dir(path, OFlags::PATH)
                    .map(drop)
                    .map_err(|error| match error {
                        Errno::NOTDIR => CpError::local("replace", &self.at(path), error),
                        error => self.fail("open", path)(error),
                    });
            }
            Err(error) => return Err(self.fail("create", path)(error)),
        }
        self.pending_bytes += path.len() + size_of::<PendingDir>();
        if self.pending_bytes > MAX_PENDING_BYTES {
            return Err(CpError::TooMany);
        }
        self.dirs.push(PendingDir {
            path: path.to_vec(),
            mode: entry.mode,
            owner: (entry.uid, entry.gid),
            mtime: entry.mtime,
        });
        Ok(())
    }

    /// Unlinks a file or a symbolic link that is where an entry goes.
    fn clear(&self, target: &Target<'_>) -> Result<(), CpError> {
        let (parent, path) = (&target.parent, target.path);
        let stat = match rustix::fs::statat(parent, target.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(self.fail("examine", path)(error)),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Symlink => {
                rustix::fs::unlinkat(parent, target.name, AtFlags::empty())
                    .map_err(self.fail("replace", path))
            }
            FileType::Directory => Err(CpError::local("replace", &self.at(path), Errno::ISDIR)),
            _ => Err(CpError::local("replace", &self.at(path), Errno::EXIST)),
        }
    }

    fn file<R: BufRead>(
        &mut self,
        tar: &mut TarReader<R>,
        target: &Target<'_>,
        entry: &TarEntry,
    ) -> Result<(), CpError> {
        self.clear(target)?;
        let path = target.path;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o600);
        let file = rustix::fs::openat(&target.parent, target.name, flags | OFlags::CLOEXEC, mode)
            .map_err(self.fail("create", path))?;
        let file = File::from(file);
        hullbox_archive::receive_file(&file, entry, tar).map_err(|error| match error {
            Receiving::Tar(error) => error.into(),
            Receiving::Write(error) => CpError::local("write", &self.at(path), error),
        })?;
        self.done.bytes = self.done.bytes.saturating_add(entry.size);
        self.describe(&file, entry.mode, (entry.uid, entry.gid), entry.mtime)
            .map_err(self.fail("describe", path))
    }

    /// Owner before permissions, since changing it takes set-id bits away; the time last.
    fn describe(
        &self,
        file: &File,
        mode: u16,
        (uid, gid): (u32, u32),
        mtime: (i64, u32),
    ) -> Result<(), Errno> {
        let kept = if self.keep_owner { 0o7777 } else { 0o777 };
        if self.keep_owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::fchown(file, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(u32::from(mode) & kept))?;
        rustix::fs::futimens(file, &times(mtime))
    }

    fn symlink(&mut self, target: &Target<'_>, entry: &TarEntry) -> Result<(), CpError> {
        self.clear(target)?;
        let Target { parent, name, path } = target;
        let (name, path) = (*name, *path);
        rustix::fs::symlinkat(&entry.link[..], parent, name).map_err(self.fail("create", path))?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if self.keep_owner {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), flags)
                .map_err(self.fail("describe", path))?;
        }
        rustix::fs::utimensat(parent, name, &times(entry.mtime), flags)
            .map_err(self.fail("describe", path))
    }

    fn hard_link(&mut self, target: &Target<'_>, entry: &TarEntry) -> Result<(), CpError> {
        let refuse = |problem| CpError::refused(&entry.path, problem);
        let file = self
            .place(&entry.link)?
            .ok_or_else(|| refuse("is a hard link to a directory"))?;
        if file == target.path {
            return Ok(());
        }
        let (directory, name) = split(&file);
        let from = self
            .open_dir(directory, OFlags::PATH)
            .map_err(self.fail("open", directory))?;
        let stat = rustix::fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(self.fail("examine", &file))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Symlink => {}
            _ => return Err(refuse("is a hard link to what is no file")),
        }
        self.clear(target)?;
        // Without AT_SYMLINK_FOLLOW a symbolic link is linked itself, and not what it leads to.
        rustix::fs::linkat(&from, name, &target.parent, target.name, AtFlags::empty())
            .map_err(self.fail("create", target.path))
    }

    /// Deepest first: a directory may take away the right to look into it.
    fn finish_dirs(&mut self) -> Result<(), CpError> {
        let mut dirs = std::mem::take(&mut self.dirs);
        dirs.sort_unstable_by(|a, b| b.path.cmp(&a.path));
        for dir in &dirs {
            let opened = self
                .open_dir(&dir.path, OFlags::RDONLY)
                .map_err(self.fail("open", &dir.path))?;
            self.describe(&File::from(opened), dir.mode, dir.owner, dir.mtime)
                .map_err(self.fail("describe", &dir.path))?;
        }
        Ok(())
    }
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let modified = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos.into(),
    };
    Timestamps {
        last_access: modified,
        last_modification: modified,
    }
}

/// A path as its directory and its last name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}
