//! Paths inside a container's root, walked from outside without ever leaving it.
//!
//! The root's contents are the image author's. Every lookup is `openat2` with
//! `RESOLVE_IN_ROOT`, which makes the root a chroot for that lookup, symbolic links included;
//! magic links are refused. Nothing runs in the container yet, so what is found does not change
//! between two steps.
//!
//! Not by `pathrs` (0.2.6): it makes nothing behind a symbolic link that points at nothing, as
//! `dangling_links_are_made_inside` wants, and names no path that is not there; its licences are
//! not among those in `deny.toml`.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// As many symbolic links as the kernel follows (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// What [`Root::ensure`] makes when it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A directory, with mode 0755.
    Directory,
    /// An empty file, with mode 0644.
    File,
}

/// A container's root directory, seen from outside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Root<'a>(BorrowedFd<'a>);

impl<'a> Root<'a> {
    /// The directory behind `fd`.
    pub(super) fn new(fd: BorrowedFd<'a>) -> Self {
        Self(fd)
    }

    fn open(self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        hullbox_archive::open_in(self.0, path.as_os_str().as_bytes(), flags)
    }

    /// What is at `path`, symbolic links followed, as a descriptor that only names it.
    pub(super) fn find(self, path: &Path) -> Result<OwnedFd, Errno> {
        self.open(path, OFlags::PATH)
    }

    /// The type of what is at `path` itself, a symbolic link for one.
    pub(super) fn type_of(self, path: &Path) -> Result<FileType, Errno> {
        let found = self.open(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        Ok(FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode))
    }

    /// The contents of a regular file of at most `limit` bytes. Opens nothing else: not a
    /// device, whose driver might act on it, nor a FIFO, which might wait for ever.
    pub(super) fn read(self, path: &Path, limit: usize) -> Result<Vec<u8>, Errno> {
        let named = self.find(path)?;
        let stat = rustix::fs::fstat(&named)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        let limit_size = i64::try_from(limit).unwrap_or(i64::MAX);
        if stat.st_size > limit_size {
            return Err(Errno::FBIG);
        }
        let file = self.open(path, OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK)?;
        let mut contents = Vec::new();
        let mut chunk = vec![0; 16 * 1024];
        loop {
            match rustix::io::read(&file, &mut chunk)? {
                0 => return Ok(contents),
                n => contents.extend_from_slice(&chunk[..n]),
            }
            if contents.len() > limit {
                return Err(Errno::FBIG);
            }
        }
    }

    /// What is at `path`, made with its missing parents when it is not there. A symbolic link
    /// that points at nothing is followed, and what it points at is made, as Docker does.
    pub(super) fn ensure(self, path: &Path, kind: Kind) -> Result<OwnedFd, Errno> {
        match self.find(path) {
            Err(Errno::NOENT) => {}
            found => return found,
        }
        let real = self.walk(path, Some(kind))?;
        self.find(&real)
    }

    /// `path`, absolute and free of links and dots, whether it is there or not.
    pub(super) fn resolve(self, path: &Path) -> Result<PathBuf, Errno> {
        Ok(Path::new("/").join(self.walk(path, None)?))
    }

    /// `path` free of links and dots, relative to the root. What is missing is made, if it is
    /// said what it shall be.
    fn walk(self, path: &Path, make: Option<Kind>) -> Result<PathBuf, Errno> {
        let mut todo: VecDeque<OsString> = components(path).collect();
        let mut done = PathBuf::new();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                done.pop();
                continue;
            }
            let parent = match self.find(&done) {
                // Nothing below what is missing can be a link.
                Err(Errno::NOENT) if make.is_none() => {
                    done.push(name);
                    continue;
                }
                other => other?,
            };
            match rustix::fs::statat(&parent, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = rustix::fs::readlinkat(&parent, name.as_bytes(), Vec::new())?;
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    if target.is_absolute() {
                        done = PathBuf::new();
                    }
                    for part in components(&target).collect::<Vec<_>>().into_iter().rev() {
                        todo.push_front(part);
                    }
                }
                Ok(_) => done.push(name),
                Err(Errno::NOENT) => {
                    if let Some(kind) = make {
                        make_one(&parent, &name, kind, todo.is_empty())?;
                    }
                    done.push(name);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
}

/// The names of a path and its `..`, without what stands for "here" or "the root".
fn components(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn make_one(parent: &OwnedFd, name: &OsString, kind: Kind, is_last: bool) -> Result<(), Errno> {
    if is_last && kind == Kind::File {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        rustix::fs::openat(parent.as_fd(), name.as_bytes(), flags, mode).map(drop)
    } else {
        rustix::fs::mkdirat(parent, name.as_bytes(), Mode::from_raw_mode(0o755))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn with_root(check: impl Fn(Root<'_>, &Path)) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let fd = rustix::fs::open(&root, OFlags::PATH, Mode::empty()).unwrap();
        check(Root::new(fd.as_fd()), &root);
    }

    #[test]
    fn dangling_links_are_made_inside() {
        with_root(|root, path| {
            symlink("../run/systemd/resolve/stub.conf", path.join("resolv.conf")).unwrap();
            symlink("/../../outside", path.join("out")).unwrap();
            root.ensure(Path::new("/resolv.conf"), Kind::File).unwrap();
            assert!(path.join("run/systemd/resolve/stub.conf").is_file());
            root.ensure(Path::new("out/x"), Kind::Directory).unwrap();
            assert!(path.join("outside/x").is_dir());
            assert!(!path.parent().unwrap().join("outside").exists());
            let resolved = root.resolve(Path::new("/out/../a/./b")).unwrap();
            assert_eq!(resolved, Path::new("/a/b"));
            assert!(!path.join("a").exists());
        });
    }

    #[test]
    fn loops_end() {
        with_root(|root, path| {
            symlink("b", path.join("a")).unwrap();
            symlink("a", path.join("b")).unwrap();
            assert_eq!(
                root.ensure(Path::new("a"), Kind::File).unwrap_err(),
                Errno::LOOP
            );
        });
    }

    #[test]
    fn only_regular_files_of_bounded_size_are_read() {
        with_root(|root, path| {
            std::fs::write(path.join("big"), vec![0; 100]).unwrap();
            assert_eq!(root.read(Path::new("/big"), 100).unwrap().len(), 100);
            assert_eq!(root.read(Path::new("/big"), 99).unwrap_err(), Errno::FBIG);
            assert_eq!(root.read(Path::new("/"), 99).unwrap_err(), Errno::INVAL);
            symlink("/etc/passwd", path.join("link")).unwrap();
            assert_eq!(root.read(Path::new("/link"), 99).unwrap_err(), Errno::NOENT);
            rustix::fs::mkfifoat(rustix::fs::CWD, path.join("fifo"), 0o644.into()).unwrap();
            assert_eq!(root.read(Path::new("/fifo"), 99).unwrap_err(), Errno::INVAL);
        });
    }
}
