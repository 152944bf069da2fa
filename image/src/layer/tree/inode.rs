//! An inode of a layer's tree.

use super::id::DentryId;
use crate::erofs::{BLOCK_SIZE, CHUNK_ENTRY};

/// The part of a mode that says what an inode is.
pub(crate) const S_IFMT: u16 = 0o170_000;
pub(crate) const S_IFIFO: u16 = 0o010_000;
pub(crate) const S_IFCHR: u16 = 0o020_000;
pub(crate) const S_IFDIR: u16 = 0o040_000;
pub(crate) const S_IFBLK: u16 = 0o060_000;
pub(crate) const S_IFREG: u16 = 0o100_000;
pub(crate) const S_IFLNK: u16 = 0o120_000;

/// An inode: 48 bytes, because a layer may have millions of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inode {
    /// Type and permissions, as in `st_mode`.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Modification time, in seconds since 1970.
    pub mtime: i64,
    pub mtime_ns: u32,
    /// Number of its set of extended attributes in the tree's table.
    pub xattr: u32,
    /// Bytes of a regular file or of a symbolic link's target; 0 of anything else.
    pub size: u64,
    pub content: Content,
}

/// What an inode has besides its metadata, and where that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing: a FIFO or an empty file.
    Empty,
    /// Data in whole blocks, from this block of the image on.
    Blocks(u32),
    /// Data whose last, partial block will stand behind the inode. At this position of the spool
    /// are those bytes and the number of the block at which the data before them begins.
    Inline(u32),
    /// A sparse file: the list of its chunks is at this position of the spool.
    Chunks {
        list: u32,
        /// log2 of a chunk's blocks.
        bits: u8,
    },
    /// A device's number, encoded.
    Device(u32),
    Directory {
        /// Head of the list of its entries.
        first: Option<DentryId>,
        /// No entry of the tar describes it: only that something is beneath it is known.
        implied: bool,
        /// It hides the directory of its name in the layers below.
        opaque: bool,
    },
    /// A hard link to a name that this layer does not have, by its number in the list of such
    /// links.
    PendingLink(u32),
}

impl Content {
    /// A directory without entries that an entry of the tar describes.
    pub(crate) const EMPTY_DIRECTORY: Self = Self::Directory {
        first: None,
        implied: false,
        opaque: false,
    };
}

impl Inode {
    /// A directory that nothing describes.
    pub(super) const fn implied_dir() -> Self {
        Self {
            content: Content::Directory {
                first: None,
                implied: true,
                opaque: false,
            },
            ..Self::of_mode(S_IFDIR | 0o755)
        }
    }

    /// An inode of root's without content, of this type and with these permissions.
    pub(crate) const fn of_mode(mode: u16) -> Self {
        Self {
            mode,
            uid: 0,
            gid: 0,
            mtime: 0,
            mtime_ns: 0,
            xattr: 0,
            size: 0,
            content: Content::Empty,
        }
    }

    /// The file type's bits of the mode.
    pub(crate) const fn kind(&self) -> u16 {
        self.mode & S_IFMT
    }

    pub(crate) const fn is_dir(&self) -> bool {
        matches!(self.content, Content::Directory { .. })
    }

    /// Whether this is a directory that no entry of the tar describes.
    pub(crate) const fn is_implied(&self) -> bool {
        matches!(self.content, Content::Directory { implied: true, .. })
    }

    /// Whether this is a directory that hides the one of its name in the layers below.
    pub(crate) const fn is_opaque(&self) -> bool {
        matches!(self.content, Content::Directory { opaque: true, .. })
    }

    /// Makes a directory hide the one of its name in the layers below.
    pub(crate) const fn set_opaque(&mut self) {
        if let Content::Directory { opaque, .. } = &mut self.content {
            *opaque = true;
        }
    }

    /// Head of the list of a directory's entries.
    pub(super) const fn first_entry(&self) -> Option<DentryId> {
        match self.content {
            Content::Directory { first, .. } => first,
            _ => None,
        }
    }

    /// Bytes of the list of its chunks: 0 unless it is made of chunks.
    pub(crate) fn chunk_list_len(&self) -> usize {
        let Content::Chunks { bits, .. } = self.content else {
            return 0;
        };
        let chunks = self.size.div_ceil((BLOCK_SIZE as u64) << bits);
        usize::try_from(chunks).unwrap_or(usize::MAX) * CHUNK_ENTRY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn millions_of_inodes_stay_small() {
        assert_eq!(size_of::<Content>(), 8);
        assert_eq!(size_of::<Inode>(), 48);
    }
}
