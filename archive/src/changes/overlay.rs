//! What overlayfs says in its upper directory of what lies below.

use crate::attributes;
use crate::error::{Error, at};
use crate::root;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

/// The attribute of a directory that was renamed.
const REDIRECT: &[u8] = b"trusted.overlay.redirect";

pub(super) fn stat(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, Errno> {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// What the layers below have at a name. A whiteout there is nothing.
pub(super) fn below_at(directory: &OwnedFd, name: &[u8]) -> Option<Stat> {
    let found = stat(directory.as_fd(), name).ok()?;
    (!is_whiteout(&found)).then_some(found)
}

pub(super) fn is_whiteout(stat: &Stat) -> bool {
    root::kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether nothing below a directory is to be seen in it.
pub(super) fn is_opaque(directory: &OwnedFd) -> Result<bool, Errno> {
    for name in ["trusted.overlay.opaque", "user.overlay.opaque"] {
        if attributes::value(directory, name.as_bytes())?.is_some_and(|value| value == b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where a directory's lower part is, if it is not under its own name: the attribute's value.
pub(super) fn redirect(directory: &OwnedFd, path: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    attributes::value(directory, REDIRECT).map_err(at(path))
}
