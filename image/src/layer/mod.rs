//! A layer's tar as an EROFS image with overlayfs's markers.
//!
//! What is done with each kind of entry, and why:
//!
//! * **Paths** never leave the layer: `..` is refused, a leading slash means the layer's root,
//!   and symbolic links on the way to an entry are followed within the image, as containerd and
//!   umoci do (Docker's overlay2 driver, which sees one layer at a time, replaces the link).
//! * **Missing parents** are directories of root's with mode 0755, unless a layer below has the
//!   directory: then they look like that one, as they do when layers are unpacked over each other.
//! * **Whiteouts** hide only what is below, wherever in the tar they stand. `.wh.NAME` becomes a
//!   character device 0:0 or, when the layer has a directory of that name too, makes that
//!   directory opaque. `.wh..wh..opq` becomes `trusted.overlay.opaque`. aufs's other markers are
//!   ignored.
//! * **Forged markers**: a character device 0:0 in the tar is refused; `trusted.overlay.*` and
//!   `user.overlay.*` attributes are dropped, as umoci does.
//! * **Attributes** kept are `user.*`, `trusted.*`, POSIX ACLs and `security.capability`. Labels
//!   of security modules (`security.selinux` …) speak to the kernel that mounts the image, which
//!   in container mode is the host's, and are dropped.
//! * **The same name twice**: the later entry wins; a directory keeps what is in it.
//! * **Hard links** to names that are not in the layer refer to layers below. Then both names
//!   enter this layer as one file, which is what overlayfs makes of such a link. What lies in a
//!   directory that the layer itself makes opaque is not found.
//!
//! A layer with parents it does not describe, whiteouts, or such links means something only on
//! top of certain others. It is *dependent* and stored under the digest of its chain; all other
//! layers are stored under their own and shared by whoever has them.

mod convert;
mod file;
mod lower;
mod path;
mod resolve;
pub(crate) mod tree;

pub(crate) use convert::{Converted, Draft, PendingLink, Workspace, convert};
pub(crate) use resolve::{CopyBudget, finish};

use crate::erofs::ErofsError;
use hullbox_tar::TarError;
use std::io;

/// Why a tar is no layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// It is not a sound tar.
    #[error("the layer's tar cannot be read")]
    Tar(#[from] TarError),
    /// An entry is not acceptable.
    #[error("the layer's entry {path:?} {problem}")]
    Entry {
        /// Its name, shortened.
        path: String,
        /// What is wrong with it.
        problem: Problem,
    },
    /// It has too many of something.
    #[error("the layer has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many it may have.
        limit: u64,
    },
    /// It would not fit a filesystem image.
    #[error("the layer is too large")]
    TooLarge,
    /// The image could not be written.
    #[error("the layer's filesystem image cannot be written")]
    Write(#[source] io::Error),
    /// A layer below could not be looked into.
    #[error("a layer below cannot be read")]
    Below(#[from] ErofsError),
}

/// What is wrong with an entry; completes "the entry …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Empty.
    #[error("has an empty name")]
    EmptyName,
    /// `..`.
    #[error("has \"..\" in its name")]
    ParentDir,
    /// Over 255 bytes.
    #[error("has a name component of over 255 bytes")]
    NameTooLong,
    /// Over 4096 bytes.
    #[error("has a name of over 4096 bytes")]
    PathTooLong,
    /// A file where a directory must be.
    #[error("is beneath something that is not a directory")]
    NotADirectory,
    /// Links in a circle.
    #[error("is beneath too many symbolic links")]
    SymlinkLoop,
    /// `.wh.`, `.wh..`, `.wh...`.
    #[error("is a whiteout of nothing that can be whited out")]
    Whiteout,
    /// `.wh.NAME/…`.
    #[error("is beneath a whiteout")]
    BeneathWhiteout,
    /// A character device 0:0.
    #[error("is a device that only a whiteout may be")]
    ForgedWhiteout,
    /// A device number the kernel has not.
    #[error("has a device number out of range")]
    Device,
    /// The root is not a directory.
    #[error("would make the root something other than a directory")]
    RootNotADirectory,
    /// A hard link to what is not there.
    #[error("is a hard link to {0:?}, which is missing")]
    LinkMissing(String),
    /// A hard link to a directory.
    #[error("is a hard link to a directory")]
    LinkToDirectory,
    /// A bad target of a symbolic link.
    #[error("is a symbolic link whose target is empty or too long")]
    LinkTarget,
    /// Over the limit of a file's size.
    #[error("is larger than a file may be")]
    FileTooLarge,
    /// Attributes over the kernel's limits.
    #[error("has an extended attribute that is too large")]
    Xattr,
}

impl Problem {
    fn of(self, path: &[u8]) -> LayerError {
        LayerError::Entry {
            path: shown(path),
            problem: self,
        }
    }
}

/// A walk fails for a reason of the entry's or of the layer's.
enum WalkError {
    Problem(Problem),
    Layer(LayerError),
}

impl From<LayerError> for WalkError {
    fn from(error: LayerError) -> Self {
        Self::Layer(error)
    }
}

impl From<ErofsError> for WalkError {
    fn from(error: ErofsError) -> Self {
        Self::Layer(error.into())
    }
}

impl WalkError {
    fn at(self, path: &[u8]) -> LayerError {
        match self {
            Self::Problem(problem) => problem.of(path),
            Self::Layer(error) => error,
        }
    }
}

/// What of a hostile name may be shown.
fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests;
