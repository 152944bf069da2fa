//! What goes wrong once an archive is on its way.

use hullbox_tar::TarError;
use rustix::io::Errno;
use std::io;

/// Why a job that had begun failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something in the container.
    #[error("{path}: {}", words(&io::Error::from(*.errno)))]
    At {
        /// Its path.
        path: String,
        /// Why not.
        errno: Errno,
    },
    /// The output broke.
    #[error("cannot write the archive: {}", words(.0))]
    Write(io::Error),
    /// The input is no archive, or broke.
    #[error("{tar}{}", because(tar))]
    Tar {
        /// Why.
        tar: TarError,
    },
    /// A file became shorter while it was read.
    #[error("{0}: the file shrank while it was read")]
    Shrank(String),
    /// A name that leads out of the directory.
    #[error("{0}: the name leads out of the directory")]
    Outside(String),
    /// As Docker refuses it.
    #[error("cannot overwrite directory \"{0}\" with non-directory")]
    OverDirectory(String),
    /// As Docker refuses it.
    #[error("cannot overwrite non-directory \"{0}\" with directory")]
    OverFile(String),
    /// A writable layer that was not made by us.
    #[error("{path}: the writable layer uses {feature}, which cannot be exported")]
    Feature {
        /// Where.
        path: String,
        /// Which feature of overlayfs.
        feature: &'static str,
    },
}

impl From<TarError> for Error {
    fn from(tar: TarError) -> Self {
        Self::Tar { tar }
    }
}

/// For `map_err`: what happened at this path.
pub(crate) fn at(path: &[u8]) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::At {
        path: String::from_utf8_lossy(path).into_owned(),
        errno,
    }
}

/// What the kernel said, without the number: `no such file or directory`.
pub(crate) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_lowercase);
    first.chain(chars).collect()
}

fn because(error: &TarError) -> String {
    match error {
        TarError::Read(source) => format!(": {}", words(source)),
        _ => String::new(),
    }
}
