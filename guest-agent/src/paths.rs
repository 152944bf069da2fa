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
    // Nearly every image has it.
    match rustix::fs::lstat(path) {
        Ok(stat) if is(&stat, FileType::Directory) => Ok(()),
        Ok(stat) if is(&stat, FileType::Symlink) => Err(Errno::LOOP),
        Ok(_) => Err(Errno::NOTDIR),
        Err(Errno::NOENT) => rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let name = format!("hullbox-paths-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn at(&self, path: &str) -> String {
            format!("{}/{path}", self.0.display())
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn directories_are_made_through_links_even_dangling_ones() {
        let dir = Dir::new("dirs");
        make_directories(&dir.at("a/b//c/")).unwrap();
        assert!(dir.0.join("a/b/c").is_dir());
        symlink(dir.at("far/away"), dir.at("link")).unwrap();
        make_directories(&dir.at("link/x")).unwrap();
        assert!(dir.0.join("far/away/x").is_dir());
        symlink("../side", dir.at("a/relative")).unwrap();
        make_directories(&dir.at("a/relative/y")).unwrap();
        assert!(dir.0.join("side/y").is_dir());
    }

    #[test]
    fn files_and_loops_in_the_way_are_errors() {
        let dir = Dir::new("errors");
        std::fs::write(dir.at("file"), "").unwrap();
        assert_eq!(make_directories(&dir.at("file/x")), Err(Errno::NOTDIR));
        symlink("loop2", dir.at("loop1")).unwrap();
        symlink("loop1", dir.at("loop2")).unwrap();
        assert_eq!(make_directories(&dir.at("loop1/x")), Err(Errno::LOOP));
        assert_eq!(own_file(&dir.at("loop1")).unwrap_err(), Errno::LOOP);
        symlink("self/deeper", dir.at("self")).unwrap();
        assert!(make_directories(&dir.at("self/x")).is_err());
    }

    #[test]
    fn kernel_filesystems_go_into_real_directories_only() {
        let dir = Dir::new("own");
        own_directory(&dir.at("proc")).unwrap();
        own_directory(&dir.at("proc")).unwrap();
        symlink("proc", dir.at("sys")).unwrap();
        assert_eq!(own_directory(&dir.at("sys")), Err(Errno::LOOP));
        std::fs::write(dir.at("dev"), "").unwrap();
        assert_eq!(own_directory(&dir.at("dev")), Err(Errno::NOTDIR));
    }

    #[test]
    fn mount_points_for_files_are_found_where_links_lead() {
        let dir = Dir::new("files");
        own_file(&dir.at("etc/hosts")).unwrap();
        assert!(dir.0.join("etc/hosts").is_file());
        symlink("../run/systemd/resolv.conf", dir.at("etc/resolv.conf")).unwrap();
        own_file(&dir.at("etc/resolv.conf")).unwrap();
        assert!(dir.0.join("run/systemd/resolv.conf").is_file());
        // A FIFO is named, not opened: this would wait for ever otherwise.
        let fifo = dir.at("fifo");
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, fifo.as_str(), FileType::Fifo, mode, 0).unwrap();
        own_file(&fifo).unwrap();
    }
}
