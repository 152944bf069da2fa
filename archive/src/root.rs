//! Paths inside a container's root. The kernel resolves them as if that were everything there is:
//! links, absolute ones and `..` included, never lead out.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// As many symbolic links as the kernel follows (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
/// How often a lookup is tried that others disturb.
const MAX_TRIES: usize = 1000;

/// Opens `path` in the root, links followed but magic ones; an empty path is the root.
///
/// # Errors
/// Those of openat2(2); `EAGAIN` only where something else renames without pause.
pub fn open_in(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    // EAGAIN says that something was moved while the kernel checked a `..`, and asks to try again.
    for _ in 0..MAX_TRIES {
        let opened = rustix::fs::openat2(
            root,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        );
        if !matches!(opened, Err(Errno::AGAIN)) {
            return opened;
        }
    }
    Err(Errno::AGAIN)
}

/// Opens `path` in the root where no link and no `..` is on the way.
pub(crate) fn open_beneath(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(
        root,
        path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Something that a path names: its directory and its name there.
#[derive(Debug)]
pub(crate) struct Place {
    /// The directory it is in.
    pub(crate) parent: OwnedFd,
    /// Its name there; `.` is the directory itself.
    pub(crate) name: Vec<u8>,
    /// What it is called in an archive.
    pub(crate) shown: Vec<u8>,
    pub(crate) stat: Stat,
}

/// Finds what `path` names. A link at its end is itself meant, unless `follow` or a slash behind
/// it asks for what it refers to.
pub(crate) fn find(root: BorrowedFd<'_>, path: &[u8], follow: bool) -> Result<Place, Errno> {
    let shown = base_name(path);
    let (directory, name) = split(path);
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let parent = open_in(root, directory, flags)?;
    let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if !(follow && kind(&stat) == FileType::Symlink) {
        let name = name.to_vec();
        return Ok(Place {
            parent,
            name,
            shown,
            stat,
        });
    }
    let real = resolve(root, path)?;
    let (directory, name) = split(&real);
    let parent = open_in(root, directory, flags)?;
    let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(Place {
        parent,
        name: name.to_vec(),
        shown,
        stat,
    })
}

/// Where a path leads in the root: absolute, free of links and dots, whether it is there or not.
pub(crate) fn resolve(root: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut todo: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
    let mut done: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == b".." {
            done.pop();
            continue;
        }
        let here = joined(&done);
        done.push(name);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let Ok(parent) = open_in(root, &here, flags) else {
            // Nothing below what is missing can be a link.
            continue;
        };
        let Some(name) = done.last() else { continue };
        let Ok(target) = rustix::fs::readlinkat(&parent, name.as_slice(), Vec::new()) else {
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        done.pop();
        let target = target.into_bytes();
        if target.starts_with(b"/") {
            done.clear();
        }
        todo.extend(components(&target).rev().map(<[u8]>::to_vec));
    }
    Ok(joined(&done))
}

fn joined(parts: &[Vec<u8>]) -> Vec<u8> {
    [b"/", parts.join(&b'/').as_slice()].concat()
}

/// The names of a path and its `..`, without what stands for "here".
pub(crate) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
}

/// Directory and name. A path that ends in a slash or a dot names the directory itself.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let slash = path.iter().rposition(|&byte| byte == b'/');
    let (directory, name) = match slash {
        Some(slash) => (&path[..=slash], &path[slash + 1..]),
        None => (&b"."[..], path),
    };
    match name {
        b"" | b"." | b".." => (path, b"."),
        _ => (directory, name),
    }
}

/// What Docker calls it in an archive: the last part of the path; `.` for the root and where the
/// path ends in a dot.
fn base_name(path: &[u8]) -> Vec<u8> {
    let trimmed = path.iter().rposition(|&byte| byte != b'/');
    let trimmed = trimmed.map_or(&b""[..], |last| &path[..=last]);
    let name = trimmed.rsplit(|&byte| byte == b'/').next();
    match name.unwrap_or_default() {
        b"" | b".." => b".".to_vec(),
        name => name.to_vec(),
    }
}

/// The type of what was looked at.
pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The names in a directory, in order, so that what is made of them does not depend on chance.
pub(crate) fn names(directory: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Opens a directory for reading; never through a link.
pub(crate) fn open_dir(at: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// Opens a regular file for reading; waits for nothing that may stand there instead by now.
pub(crate) fn open_file(at: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn paths_are_split_as_docker_does() {
        for (path, directory, name, shown) in [
            ("/a/b", "/a/", "b", "b"),
            ("b", ".", "b", "b"),
            ("/a/b/", "/a/b/", ".", "b"),
            ("/a/b/.", "/a/b/.", ".", "."),
            ("/", "/", ".", "."),
            ("/a/..", "/a/..", ".", "."),
        ] {
            let path = path.as_bytes();
            assert_eq!(split(path), (directory.as_bytes(), name.as_bytes()));
            assert_eq!(base_name(path), shown.as_bytes(), "{path:?}");
        }
    }

    #[test]
    fn links_never_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(root.join("etc/passwd"), "mine").unwrap();
        symlink("/../../etc", root.join("up")).unwrap();
        symlink("up/passwd", root.join("file")).unwrap();
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        let fd = rustix::fs::open(&root, OFlags::PATH, Mode::empty()).unwrap();
        let fd = fd.as_fd();
        assert_eq!(resolve(fd, b"/file").unwrap(), b"/etc/passwd");
        assert_eq!(resolve(fd, b"up/../x/./y").unwrap(), b"/x/y");
        assert_eq!(resolve(fd, b"a").unwrap_err(), Errno::LOOP);
        let place = find(fd, b"/up/passwd", false).unwrap();
        assert_eq!(place.stat.st_size, 4);
        assert_eq!(
            kind(&find(fd, b"/up", false).unwrap().stat),
            FileType::Symlink
        );
        assert_eq!(
            kind(&find(fd, b"/up/", false).unwrap().stat),
            FileType::Directory
        );
        let followed = find(fd, b"/file", true).unwrap();
        assert_eq!(
            (followed.stat.st_size, &followed.shown[..]),
            (4, &b"file"[..])
        );
        assert_eq!(find(fd, b"/a", true).unwrap_err(), Errno::LOOP);
    }
}
