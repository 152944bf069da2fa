//! What the agent itself does in a container in place of running a program.

use serde::{Deserialize, Serialize};

/// Something the agent itself does in the container's root, in place of executing a program.
///
/// It runs as a session like any program: its archive or text is standard output or input, and
/// its exit code says whether it succeeded; messages for the user are lines on standard error.
/// Paths are the container's own, resolved inside its root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Builtin {
    /// Wait for a signal: a container that runs nothing of its own.
    Pause,
    /// Write a tar archive of a file or directory tree (`docker cp CONTAINER:PATH -`). Entries are
    /// named from the last component of the path on.
    ArchiveOut {
        /// What.
        path: Vec<u8>,
        /// If the path itself is a symbolic link, archive what it refers to (`-L`).
        follow: bool,
    },
    /// Unpack a tar archive from standard input into a directory (`docker cp - CONTAINER:PATH`).
    ArchiveIn {
        /// The directory, which must exist.
        path: Vec<u8>,
        /// Keep the archive's user and group ids (`-a`); otherwise all is root's.
        keep_owner: bool,
    },
    /// Write the whole root filesystem as a tar archive, mounts left out (`docker export`).
    Export,
    /// Write what the writable layer changed, as an OCI layer: deletions as whiteouts.
    Layer,
    /// Write what the writable layer changed as lines `A|C|D SPACE path NUL` (`docker diff`).
    Changes,
    /// Write [`PathStat`] of a path as JSON (the beginning of every `docker cp`).
    Stat {
        /// Of what.
        path: Vec<u8>,
    },
}

/// What [`Builtin::Stat`] tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStat {
    /// Type and permissions, as in `st_mode`.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// Modification time, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Where a symbolic link leads, resolved inside the root; empty otherwise.
    pub link_target: Vec<u8>,
}
