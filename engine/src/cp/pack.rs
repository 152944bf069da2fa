//! Local files as a tar stream.
//!
//! The files are the operator's, but others may be able to change the tree while it is read: no
//! symbolic link is followed beneath the source, and a file that grows or shrinks makes an error
//! and not another archive.

use super::CpError;
use super::rules::Kind;
use hullbox_tar::{Entry, Kind as TarKind, TarWriter};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How to pack.
#[derive(Debug, Clone, Copy, Default)]
pub struct PackOptions {
    /// `-L`: what the source is a link to, and not the link.
    pub follow_link: bool,
    /// `-a`: owners as they are, else root's.
    pub archive: bool,
}

/// What was packed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed {
    /// Files, directories and links.
    pub entries: u64,
    /// Sizes of the files together.
    pub bytes: u64,
    /// Sockets, which no tar can hold, and devices and pipes, which are not copied.
    pub skipped: Vec<String>,
}

/// Most names kept of what was skipped.
const MAX_SKIPPED: usize = 20;

/// Packs the file or tree at `source` with `name` for its top.
///
/// # Errors
/// [`CpError`].
pub fn pack(
    source: &Path,
    name: &[u8],
    options: PackOptions,
    out: &mut dyn Write,
) -> Result<Packed, CpError> {
    let bytes = source.as_os_str().as_bytes();
    let link = if options.follow_link {
        OFlags::empty()
    } else {
        OFlags::NOFOLLOW
    };
    // A slash or a dot at the end makes the kernel follow a link, as it does for everyone.
    let top = rustix::fs::open(source, OFlags::PATH | OFlags::CLOEXEC | link, Mode::empty())
        .map_err(|error| CpError::local("open", bytes, error))?;
    let mut packer = Packer {
        tar: TarWriter::new(out),
        options,
        seen: HashMap::new(),
        packed: Packed::default(),
        source: bytes,
    };
    packer.tree(&top, name)?;
    let out = packer.tar.finish().map_err(CpError::Send)?;
    out.flush().map_err(CpError::Send)?;
    Ok(packer.packed)
}

struct Packer<'a> {
    tar: TarWriter<&'a mut dyn Write>,
    options: PackOptions,
    /// First names of files that have several, by device and inode.
    seen: HashMap<(u64, u64), Vec<u8>>,
    packed: Packed,
    source: &'a [u8],
}

impl Packer<'_> {
    fn tree(&mut self, top: &OwnedFd, name: &[u8]) -> Result<(), CpError> {
        // Paths beneath the top still to be packed; a directory's are put in sorted.
        let mut todo = vec![Vec::new()];
        while let Some(path) = todo.pop() {
            let full = join(self.source, &path);
            let fail = |action| move |error: rustix::io::Errno| (action, error);
            let wrap = |(action, error)| CpError::local(action, &full, error);
            let node = if path.is_empty() {
                top.try_clone()
                    .map_err(|error| CpError::local("open", &full, error))?
            } else {
                beneath(top, &path, OFlags::PATH | OFlags::NOFOLLOW)
                    .map_err(fail("open"))
                    .map_err(wrap)?
            };
            let stat = rustix::fs::fstat(&node)
                .map_err(fail("examine"))
                .map_err(wrap)?;
            self.node(top, &node, &stat, &path, name)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let mut names = children(top, &path).map_err(fail("read")).map_err(wrap)?;
                names.sort_unstable_by(|a, b| b.cmp(a));
                todo.extend(names.iter().map(|name| join(&path, name)));
            }
        }
        Ok(())
    }

    fn node(
        &mut self,
        top: &OwnedFd,
        node: &OwnedFd,
        stat: &Stat,
        path: &[u8],
        name: &[u8],
    ) -> Result<(), CpError> {
        let full = join(self.source, path);
        let entry_path = join(name, path);
        let mut entry = Entry {
            path: entry_path,
            mode: (stat.st_mode & 0o7777) as u16,
            // Whole seconds, as in Docker.
            mtime: (stat.st_mtime, 0),
            ..Entry::of(TarKind::Dir)
        };
        if self.options.archive {
            (entry.uid, entry.gid) = (stat.st_uid, stat.st_gid);
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {}
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(node, "", Vec::new())
                    .map_err(|error| CpError::local("read", &full, error))?;
                entry.kind = TarKind::Symlink;
                entry.link = target.into_bytes();
            }
            FileType::RegularFile => {
                #[allow(clippy::unnecessary_cast, reason = "narrower on other platforms")]
                let identity = (stat.st_dev as u64, stat.st_ino as u64);
                if let (2.., Some(first)) = (stat.st_nlink, self.seen.get(&identity)) {
                    entry.kind = TarKind::HardLink;
                    entry.link.clone_from(first);
                } else {
                    if stat.st_nlink > 1 {
                        self.seen.insert(identity, entry.path.clone());
                    }
                    entry.kind = TarKind::File;
                    return self.file(top, node, path, &mut entry);
                }
            }
            _ => {
                if self.packed.skipped.len() < MAX_SKIPPED {
                    self.packed.skipped.push(super::shown(&full));
                }
                return Ok(());
            }
        }
        self.packed.entries += 1;
        self.tar.entry(&entry).map_err(CpError::Send)
    }

    fn file(
        &mut self,
        top: &OwnedFd,
        node: &OwnedFd,
        path: &[u8],
        entry: &mut Entry,
    ) -> Result<(), CpError> {
        let full = join(self.source, path);
        let fail = |error: std::io::Error| CpError::local("read", &full, error);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = if path.is_empty() {
            // The way to what a path descriptor already leads to.
            let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(node));
            rustix::fs::open(link, flags | OFlags::CLOEXEC, Mode::empty())
        } else {
            beneath(top, path, flags | OFlags::NOFOLLOW)
        };
        let file = File::from(opened.map_err(|error| fail(error.into()))?);
        let metadata = file.metadata().map_err(fail)?;
        if !metadata.is_file() {
            return Err(fail(std::io::Error::other("it was replaced meanwhile")));
        }
        entry.size = metadata.len();
        entry.sparse = hullbox_archive::sparse_map(&file, entry.size);
        self.tar.entry(entry).map_err(CpError::Send)?;
        let whole = [(0, entry.size)];
        let mut buffer = vec![0; 128 * 1024];
        for &(offset, len) in entry.sparse.as_deref().unwrap_or(&whole) {
            let (mut at, end) = (offset, offset + len);
            while at < end {
                let left = usize::try_from(end - at).unwrap_or(usize::MAX);
                let piece = left.min(buffer.len());
                let len = match file.read_at(&mut buffer[..piece], at) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    result => result.map_err(fail)?,
                };
                if len == 0 {
                    return Err(fail(std::io::Error::other("it became shorter meanwhile")));
                }
                self.tar.write_all(&buffer[..len]).map_err(CpError::Send)?;
                at += len as u64;
            }
        }
        self.packed.entries += 1;
        self.packed.bytes += entry.size;
        Ok(())
    }
}

/// Opens what lies beneath the top, following no link on the way.
fn beneath(top: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, rustix::io::Errno> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(top, path, flags | OFlags::CLOEXEC, Mode::empty(), how)
}

fn children(top: &OwnedFd, path: &[u8]) -> Result<Vec<Vec<u8>>, rustix::io::Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let dir = beneath(
        top,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW,
    )?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir.as_fd())? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match (directory, name) {
        (b"", name) => name.to_vec(),
        (directory, b"") => directory.to_vec(),
        (directory, name) if directory.ends_with(b"/") => [directory, name].concat(),
        (directory, name) => [directory, b"/", name].concat(),
    }
}

/// What a local source is, for the rules: what a link leads to if asked to, else the link.
///
/// # Errors
/// [`CpError::Local`].
pub fn source_kind(path: &Path, follow: bool) -> Result<Kind, CpError> {
    let flags = if follow {
        AtFlags::empty()
    } else {
        AtFlags::SYMLINK_NOFOLLOW
    };
    look(path, flags).map(|found| found.map_or(Kind::Missing, |stat| kind_of(&stat)))
}

/// Where a local destination is, for the rules, and what is there: behind a link at its end, whether
/// that leads anywhere or not.
///
/// # Errors
/// [`CpError::Local`].
pub fn destination(path: &Path) -> Result<(PathBuf, Kind), CpError> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Some(stat) = look(&path, AtFlags::SYMLINK_NOFOLLOW)? else {
            return Ok((path, Kind::Missing));
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            let kind = kind_of(&stat);
            return Ok((path, kind));
        }
        let target = std::fs::read_link(&path)
            .map_err(|error| CpError::local("read", path.as_os_str().as_bytes(), error))?;
        // Without a slash at its end, or it would not be a link.
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    let bytes = path.as_os_str().as_bytes();
    Err(CpError::local("follow", bytes, rustix::io::Errno::LOOP))
}

/// As many symbolic links as the kernel follows (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

fn look(path: &Path, flags: AtFlags) -> Result<Option<Stat>, CpError> {
    match rustix::fs::statat(CWD, path, flags) {
        Ok(stat) => Ok(Some(stat)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(CpError::local(
            "examine",
            path.as_os_str().as_bytes(),
            error,
        )),
    }
}

fn kind_of(stat: &Stat) -> Kind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Dir,
        _ => Kind::File,
    }
}
