//! Why a stream is not a tar.

use std::io;

/// Why a stream is not a tar.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The stream failed.
    #[error("reading the tar failed")]
    Read(#[source] io::Error),
    /// It ends within an entry.
    #[error("the tar is cut off")]
    Truncated,
    /// A header's checksum is wrong.
    #[error("this is not a tar archive, or it is damaged (wrong checksum)")]
    Checksum,
    /// A field that is no number, or one out of range.
    #[error("a tar header has a bad {0}")]
    Number(&'static str),
    /// An extended header.
    #[error("a PAX header is malformed: {0}")]
    Pax(&'static str),
    /// An extended header over its limit.
    #[error("an extended tar header of {0} bytes is over the limit")]
    HeaderTooLong(u64),
    /// A sparse file's map.
    #[error("a sparse file's map {0}")]
    SparseMap(&'static str),
    /// A NUL where none can be.
    #[error("a tar entry has a NUL in its {0}")]
    Nul(&'static str),
    /// An entry of a kind that layers do not have.
    #[error("a tar entry has the unsupported type {:?}", char::from(*.0))]
    Kind(u8),
}
