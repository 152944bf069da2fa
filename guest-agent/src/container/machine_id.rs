//! /etc/machine-id (machine-id(5)) as a file of the container's own: what an init system has.

use crate::failure::failed;
use hullbox_protocol::Failure;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// Relative to the container's root.
const PATH: &str = "etc/machine-id";

/// Writes the id into the file of the container whose root this is. `false` if the file cannot be
/// written by anybody in there: the container, which may run and be hostile, has made something else of
/// it, or its root is read-only. Where there is no file none is made, which is no failure: an image
/// without one is no machine.
///
/// # Errors
/// The file is there and writing it fails.
pub(super) fn write(root: impl AsFd, id: &str) -> Result<bool, Failure> {
    let what = || failed("cannot write the machine id");
    // Whatever else it may be by now, opening it for its path alone has no effect on it.
    let found = match open(&root, OFlags::PATH) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(true),
        Err(errno) => return refused(errno).map_err(what()),
    };
    let stat = rustix::fs::fstat(&found).map_err(what())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(false);
    }
    // Nobody can have put a pipe or a device in its place: a workload that could is frozen, or not
    // started.
    let file = match open(&root, OFlags::WRONLY | OFlags::TRUNC | OFlags::NONBLOCK) {
        Ok(file) => file,
        Err(errno) => return refused(errno).map_err(what()),
    };
    let text = format!("{id}\n");
    let written = rustix::io::write(&file, text.as_bytes()).map_err(what())?;
    Ok(written == text.len())
}

/// On the root's own filesystem: a mount of the container's may be one whose files do something when
/// they are written, as those of /proc.
fn open(root: impl AsFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, PATH, flags | OFlags::CLOEXEC, Mode::empty(), how)
}

/// What the container has arranged is not the agent's failure.
fn refused(errno: Errno) -> Result<bool, Errno> {
    match errno {
        Errno::ROFS
        | Errno::XDEV
        | Errno::LOOP
        | Errno::NOTDIR
        | Errno::ISDIR
        | Errno::NXIO
        | Errno::TXTBSY
        | Errno::PERM => Ok(false),
        errno => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    struct Container(PathBuf);

    impl Container {
        fn new(name: &str) -> Self {
            let name = format!("hullbox-machine-id-{name}-{}", std::process::id());
            let root = std::env::temp_dir().join(name);
            std::fs::create_dir_all(root.join("etc")).unwrap();
            Self(root)
        }

        fn write(&self) -> Result<bool, Failure> {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let root = rustix::fs::open(&self.0, flags, Mode::empty()).unwrap();
            write(root, "0123")
        }

        fn read(&self, path: &str) -> String {
            std::fs::read_to_string(self.0.join(path)).unwrap()
        }
    }

    impl Drop for Container {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_file_of_the_root_is_written_wherever_links_lead() {
        let container = Container::new("links");
        assert_eq!(container.write(), Ok(true), "an image without one");
        assert!(!container.0.join(PATH).exists());
        std::fs::write(container.0.join(PATH), "an older and longer one\n").unwrap();
        assert_eq!(container.write(), Ok(true));
        assert_eq!(container.read(PATH), "0123\n");

        // Absolute, and higher than the root: of the container's root all the same.
        std::fs::remove_file(container.0.join(PATH)).unwrap();
        symlink("/../../../id", container.0.join(PATH)).unwrap();
        std::fs::write(container.0.join("id"), "").unwrap();
        assert_eq!(container.write(), Ok(true));
        assert_eq!(container.read("id"), "0123\n");
    }

    #[test]
    fn what_a_hostile_container_has_made_of_it_is_left_alone() {
        let container = Container::new("hostile");
        let path = container.0.join(PATH);
        std::fs::create_dir(&path).unwrap();
        assert_eq!(container.write(), Ok(false), "a directory");
        std::fs::remove_dir(&path).unwrap();
        symlink("machine-id", &path).unwrap();
        assert_eq!(container.write(), Ok(false), "a loop");
        std::fs::remove_file(&path).unwrap();
        // Opened for writing, it would wait for a reader.
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, mode, 0).unwrap();
        assert_eq!(container.write(), Ok(false), "a pipe");
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_dir(container.0.join("etc")).unwrap();
        std::fs::write(container.0.join("etc"), "").unwrap();
        assert_eq!(container.write(), Ok(false), "no directory");
    }
}
