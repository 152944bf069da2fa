//! Sizes, numbers and encodings of the on-disk format.

use rustix::fs::FileType;

/// Block size, as the superblock declares it.
pub(crate) const BLOCK_SIZE: usize = 4096;
/// log2 of it.
pub(super) const BLOCK_BITS: u8 = 12;
/// Where the superblock stands.
pub(super) const SUPER_OFFSET: usize = 1024;
/// `EROFS_SUPER_MAGIC_V1`.
pub(super) const MAGIC: u32 = 0xE0F5_E1E2;
/// `EROFS_FEATURE_COMPAT_SB_CHKSUM`.
pub(super) const COMPAT_CHECKSUM: u32 = 1;
/// `EROFS_FEATURE_COMPAT_MTIME`.
pub(super) const COMPAT_MTIME: u32 = 2;
/// `EROFS_FEATURE_INCOMPAT_CHUNKED_FILE`: some files are chunk-based, which kernels know since 5.15.
pub(super) const INCOMPAT_CHUNKED: u32 = 4;
/// Inode numbers count slots of this many bytes.
pub(super) const SLOT: usize = 32;
/// `sizeof(struct erofs_inode_compact)`.
pub(super) const COMPACT: usize = 32;
/// `sizeof(struct erofs_inode_extended)`.
pub(super) const EXTENDED: usize = 64;
/// `sizeof(struct erofs_xattr_ibody_header)`.
pub(super) const XATTR_HEADER: usize = 12;
/// `sizeof(struct erofs_dirent)`.
pub(super) const DIRENT: usize = 12;
/// Data in whole blocks only.
pub(super) const FLAT_PLAIN: u16 = 0;
/// The last, partial block stands behind the inode.
pub(super) const FLAT_INLINE: u16 = 2;
/// The file is made of chunks, whose first blocks are listed behind the inode; those that are
/// [`NO_BLOCK`] (`EROFS_NULL_ADDR`) are holes.
pub(super) const CHUNK_BASED: u16 = 4;
/// `EROFS_BLOCK_MAP_ENTRY_SIZE`: bytes of a chunk's entry in that list.
pub(crate) const CHUNK_ENTRY: usize = 4;
/// Largest log2 of a chunk's blocks that is written here: with it no file is too long.
pub(crate) const MAX_CHUNK_BITS: u8 = 28;
/// A block address that means none.
pub(crate) const NO_BLOCK: u32 = u32::MAX;

/// Longest piece of data kept behind its inode, in bytes. A piece may not cross a block, so long
/// ones leave gaps; those over half a block get a block of their own.
pub(crate) const MAX_INLINE_TAIL: usize = BLOCK_SIZE / 2;

/// `crc32c(~0, …)` without the final inversion, as the kernel computes it over the superblock.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    // Once per image and 3 KiB: not worth a table.
    bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            let reduce = if crc & 1 == 1 { 0x82F6_3B78 } else { 0 };
            (crc >> 1) ^ reduce
        })
    })
}

/// The kernel's `new_encode_dev`: 20 bits of minor around 12 of major.
pub(crate) const fn encode_device(major: u32, minor: u32) -> Option<u32> {
    if major >= 1 << 12 || minor >= 1 << 20 {
        return None;
    }
    Some((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

/// `EROFS_FT_*` of an inode's mode.
pub(super) fn dirent_type(mode: u16) -> u8 {
    match FileType::from_raw_mode(mode.into()) {
        FileType::RegularFile => 1,
        FileType::Directory => 2,
        FileType::CharacterDevice => 3,
        FileType::BlockDevice => 4,
        FileType::Fifo => 5,
        FileType::Socket => 6,
        FileType::Symlink => 7,
        FileType::Unknown => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_the_check_string() {
        // The published CRC-32C of "123456789" is e3069283, after inversion.
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn devices() {
        assert_eq!(encode_device(1, 3), Some(0x103));
        assert_eq!(encode_device(8, 0x12345), Some(0x1230_0845));
        assert_eq!(encode_device(4096, 0), None);
    }
}
