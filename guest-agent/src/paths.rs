//! Paths inside a root that an image's author arranged.
//!
//! These run after the process has taken that root as its own, so the kernel resolves every
//! link, absolute or not, within it; and before anything of the image runs, so nothing moves
//! meanwhile.

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// Links followed before a path counts as a loop.
const MAX_LINKS: usize = 40;

/// Makes a directory and its parents where they are missing.
pub fn make_directories(path: &str) -> Result<(), Errno> {
    let mut end = 0;
    while end < path.len() {
        end = path[end + 1..]
            .find('/')
            .map_or(path.len(), |slash| end + 1 + slash);
        make_directory(&path[..end])?;
    }
    Ok(())
}

/// Makes one directory unless it exists. A dangling link gets its target.
fn make_directory(path: &str) -> Result<(), Errno> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => match rustix::fs::stat(path) {
            Ok(stat) if is(&stat, FileType::Directory) => Ok(()),
            Ok(_) => Err(Errno::NOTDIR),
            Err(Errno::NOENT) => {
                let target = follow(path)?;
                make_directories(&target)
            }
            Err(errno) => Err(errno),
        },
        // A read-only /proc or /sys says this of what exists, too.
        Err(errno) => match rustix::fs::stat(path) {
            Ok(stat) if is(&stat, FileType::Directory) => Ok(()),
            _ => Err(errno),
        },
    }
}

/// A directory for a kernel filesystem: made if missing, never through a link. An image whose
/// /proc is a link would otherwise choose what gets hidden.
pub fn own_directory(path: &str) -> Result<(), Errno> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => match rustix::fs::lstat(path) {
            Ok(stat) if is(&stat, FileType::Directory) => Ok(()),
            Ok(stat) if is(&stat, FileType::Symlink) => Err(Errno::LOOP),
            Ok(_) => Err(Errno::NOTDIR),
            Err(errno) => Err(errno),
        },
        Err(errno) => Err(errno),
    }
}

/// A file to mount another one over: made, with its directories, where it is missing.
/// The descriptor only names it, so that opening has no effect on what it may be.
pub fn own_file(path: &str) -> Result<OwnedFd, Errno> {
    let naming = OFlags::PATH | OFlags::CLOEXEC;
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match rustix::fs::open(path.as_str(), naming, Mode::empty()) {
            Err(Errno::NOENT) => {}
            result => return result,
        }
        if let Some(parent) = path.rfind('/').filter(|&slash| slash > 0) {
            make_directories(&path[..parent])?;
        }
        let making = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        match rustix::fs::open(path.as_str(), making, Mode::from_raw_mode(0o644)) {
            Ok(_) => {}
            // A link to nowhere: its target is what is missing.
            Err(Errno::EXIST) => path = follow(&path)?,
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::LOOP)
}

/// Where a link points, as an absolute path.
fn follow(path: &str) -> Result<String, Errno> {
    let target = rustix::fs::readlink(path, Vec::new())?;
    let target = target.to_str().map_err(|_| Errno::ILSEQ)?;
    if target.starts_with('/') {
        return Ok(target.to_owned());
    }
    let parent = path.rfind('/').map_or("", |slash| &path[..slash]);
    let joined = format!("{parent}/{target}");
    if joined.len() > 4096 {
        return Err(Errno::NAMETOOLONG);
    }
    Ok(joined)
}

fn is(stat: &rustix::fs::Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}
