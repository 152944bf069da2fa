//! The mark of a volatile overlay (Documentation/filesystems/overlayfs.rst): nothing was synced on
//! behalf of its upper directory, so overlayfs refuses to mount that again.
//!
//! Where a container is removed with its run, its overlay is volatile. A copy of a running one has the
//! same mount, and may have to outlive its run nevertheless: see [`super::rootfs::Writable::settle`].

use crate::failure::setup as setup_failure;
use hullbox_protocol::Failure;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use std::os::fd::BorrowedFd;

/// Below the writable layer, whose `work` is overlayfs's `workdir`.
const MARK: &str = "work/work/incompat/volatile";
const MARK_FILE: &str = "work/work/incompat/volatile/dirty";

/// Whether the overlay above this writable layer is volatile, or was and never came to rest.
pub(super) fn is_marked(writable: BorrowedFd<'_>) -> bool {
    rustix::fs::statat(writable, MARK, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Removes the mark: for whoever has synced the file system.
pub(super) fn unmark(writable: BorrowedFd<'_>) -> Result<(), Errno> {
    match rustix::fs::unlinkat(writable, MARK_FILE, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    rustix::fs::unlinkat(writable, MARK, AtFlags::REMOVEDIR)
}

/// Refuses a writable layer that is to be used again and was never synced.
pub(super) fn refuse_marked(writable: BorrowedFd<'_>) -> Result<(), Failure> {
    if !is_marked(writable) {
        return Ok(());
    }
    Err(setup_failure(
        "the container's files may be damaged, so it cannot be used again: it is a copy of a container \
         that ran with --rm, and its guest ended before they were synced",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsFd;

    #[test]
    fn a_layer_that_was_not_synced_is_refused_until_it_is() {
        let dir = std::env::temp_dir().join(format!("hullbox-volatile-{}", std::process::id()));
        fs::create_dir_all(dir.join("work/work")).unwrap();
        let writable = fs::File::open(&dir).unwrap();
        refuse_marked(writable.as_fd()).unwrap();
        for with_file in [true, false] {
            fs::create_dir_all(dir.join(MARK)).unwrap();
            if with_file {
                fs::write(dir.join(MARK_FILE), "").unwrap();
            }
            let failure = refuse_marked(writable.as_fd()).unwrap_err();
            assert!(failure.message.contains("--rm"), "{}", failure.message);
            unmark(writable.as_fd()).unwrap();
            refuse_marked(writable.as_fd()).unwrap();
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
