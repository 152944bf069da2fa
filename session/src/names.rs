//! /etc/hosts and /etc/resolv.conf of a container that runs, which is put into another network.
//!
//! The files are what its root has mounted there: whoever made them opens them by names of its own, where no
//! link of the container's leads elsewhere. The workload may have written to them, as root of the container.
//! As in Docker, a resolv.conf that it has changed stays as it is; in its hosts file our own lines come and
//! go, and its lines stay.

use hullbox_protocol::NameFiles;
use rustix::fs::{FileType, Mode, OFlags, fstat, ftruncate, openat};
use rustix::io::{Errno, pread, pwrite};
use std::os::fd::AsFd;

/// Longest file that is looked at, in bytes. One that is longer is the workload's.
const MAX_BYTES: usize = 1 << 20;

/// Which file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameFile {
    /// /etc/hosts.
    Hosts,
    /// /etc/resolv.conf.
    Resolver,
}

/// Has the files `hosts` and `resolv.conf` of this directory say what is wanted, in which these texts were
/// written; takes note of that. Where there is no text, the file is not mounted.
pub fn renew_all(dir: impl AsFd, before: [&mut String; 2], wanted: &NameFiles) {
    let files = [
        ("hosts", NameFile::Hosts, &wanted.hosts),
        ("resolv.conf", NameFile::Resolver, &wanted.resolv_conf),
    ];
    for (before, (name, file, wanted)) in before.into_iter().zip(files) {
        if before.is_empty() || wanted.is_empty() {
            continue;
        }
        // It may be the workload that has seen to it that this fails.
        let _ = renew(&dir, name, file, (before, wanted));
        before.clone_from(wanted);
    }
}

/// Has a file of this directory say something else, in which `before` was written. Nothing is done where the
/// workload has made something else of it.
///
/// # Errors
/// The file cannot be opened, read or written.
fn renew(
    dir: impl AsFd,
    name: &str,
    file: NameFile,
    (before, wanted): (&str, &str),
) -> Result<(), Errno> {
    // The workload may have a lease on it, for which opening would wait.
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = openat(dir, name, flags, Mode::empty())?;
    let stat = fstat(&fd)?;
    let length = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !is_file || length > MAX_BYTES {
        return Ok(());
    }
    let mut now = vec![0; MAX_BYTES.min(length + 1)];
    let mut filled = 0;
    while let Some(room) = now.get_mut(filled..).filter(|room| !room.is_empty()) {
        match pread(&fd, room, filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    now.truncate(filled);
    let Some(text) = renewed(file, &now, before, wanted) else {
        return Ok(());
    };
    // Whoever reads meanwhile finds no empty file.
    let mut written = 0;
    while let Some(rest) = text.get(written..).filter(|rest| !rest.is_empty()) {
        written += pwrite(&fd, rest, written as u64)?;
    }
    ftruncate(&fd, text.len() as u64)
}

/// What a file is to say in place of `now`; none where it stays.
fn renewed(file: NameFile, now: &[u8], before: &str, wanted: &str) -> Option<Vec<u8>> {
    if wanted.is_empty() || before == wanted {
        return None;
    }
    if now == before.as_bytes() {
        return Some(wanted.as_bytes().to_vec());
    }
    if file == NameFile::Resolver {
        return None;
    }
    let lines = |text: &'_ str| -> Vec<Vec<u8>> {
        text.lines().map(|line| line.as_bytes().to_vec()).collect()
    };
    let (before, wanted) = (lines(before), lines(wanted));
    let mut theirs: Vec<&[u8]> = now.split(|byte| *byte == b'\n').collect();
    if theirs.last().is_some_and(|last| last.is_empty()) {
        theirs.pop();
    }
    for line in before.iter().filter(|line| !wanted.contains(line)) {
        if let Some(at) = theirs.iter().position(|their| their == line) {
            theirs.remove(at);
        }
    }
    let added = wanted.iter().filter(|line| !before.contains(line));
    let added: Vec<&[u8]> = added
        .map(Vec::as_slice)
        .filter(|line| !theirs.contains(line))
        .collect();
    theirs.extend(added);
    let mut text = theirs.join(&b'\n');
    text.push(b'\n');
    (text != now).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    const BEFORE: &str = "127.0.0.1\tlocalhost\n10.0.2.2\tbox\n";
    const WANTED: &str = "127.0.0.1\tlocalhost\n10.0.2.2\tbox\n172.18.0.2\tbox\n";

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("hullbox-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir(&dir).unwrap();
            Self(dir)
        }

        fn renew(&self, file: NameFile, before: &str, wanted: &str) -> Result<String, Errno> {
            let dir = fs::File::open(&self.0).unwrap();
            renew(dir, "file", file, (before, wanted))?;
            Ok(fs::read_to_string(self.path()).unwrap())
        }

        fn path(&self) -> PathBuf {
            self.0.join("file")
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_nobody_has_touched_is_written_anew() {
        let dir = Dir::new("names");
        for file in [NameFile::Hosts, NameFile::Resolver] {
            fs::write(dir.path(), BEFORE).unwrap();
            assert_eq!(dir.renew(file, BEFORE, WANTED).unwrap(), WANTED);
            // A shorter text leaves nothing of the longer one.
            assert_eq!(dir.renew(file, WANTED, BEFORE).unwrap(), BEFORE);
            assert_eq!(dir.renew(file, BEFORE, "").unwrap(), BEFORE);
        }
    }

    #[test]
    fn what_the_workload_has_written_stays() {
        let dir = Dir::new("names-theirs");
        let theirs = "# mine\n10.0.2.2\tbox\n10.9.9.9 db\n";
        fs::write(dir.path(), theirs).unwrap();
        let said = dir.renew(NameFile::Resolver, BEFORE, WANTED).unwrap();
        assert_eq!(said, theirs);
        let said = dir.renew(NameFile::Hosts, BEFORE, WANTED).unwrap();
        assert_eq!(said, format!("{theirs}172.18.0.2\tbox\n"));
        let said = dir.renew(NameFile::Hosts, WANTED, BEFORE).unwrap();
        assert_eq!(said, theirs);
        // One that is much too long, or has no end of its last line.
        let long = "x".repeat(MAX_BYTES + 1);
        fs::write(dir.path(), &long).unwrap();
        assert!(dir.renew(NameFile::Hosts, BEFORE, WANTED).unwrap() == long);
        fs::write(dir.path(), b"\xff\n10.1.1.1 x").unwrap();
        let opened = fs::File::open(&dir.0).unwrap();
        renew(opened, "file", NameFile::Hosts, (BEFORE, WANTED)).unwrap();
        let said = fs::read(dir.path()).unwrap();
        assert_eq!(said, b"\xff\n10.1.1.1 x\n172.18.0.2\tbox\n");
    }

    #[test]
    fn no_link_is_followed() {
        let dir = Dir::new("names-link");
        let elsewhere = dir.0.join("elsewhere");
        fs::write(&elsewhere, BEFORE).unwrap();
        symlink(&elsewhere, dir.path()).unwrap();
        let renewed = dir.renew(NameFile::Hosts, BEFORE, WANTED);
        assert_eq!(renewed.unwrap_err(), Errno::LOOP);
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), BEFORE);
    }
}
