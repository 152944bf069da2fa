//! What tells later that an image is still the one that was written.

use super::format::{BLOCK_BITS, BLOCK_SIZE, MAGIC, SUPER_OFFSET, crc32c};
use super::reader::ErofsError;
use crate::digest::Digest;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes read at a time: whole blocks.
const BUFFER: usize = 64 * BLOCK_SIZE;
/// The kind of seal, hashed first.
const VERSION: &[u8] = b"seal without zeros\n";

/// Digest over what a layer's own tar does not vouch for: the superblock, and everything behind
/// the data of its files, to the end of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seal {
    /// First byte behind the data.
    pub from: u64,
    pub digest: Digest,
}

impl Seal {
    /// Seals an image of this length. Blocks of zeros are passed over, so that the holes of sparse
    /// files that hard links brought from layers below cost nothing.
    pub(crate) fn of(file: &File, from: u64, file_bytes: u64) -> io::Result<Self> {
        const BLOCK: u64 = BLOCK_SIZE as u64;
        let mut hasher = Sha256::new();
        // What no image begins with: a seal of the older kind is never one of this.
        hasher.update(VERSION);
        let mut buffer = vec![0; BUFFER];
        let block = &mut buffer[..BLOCK_SIZE];
        file.read_exact_at(block, 0)?;
        hasher.update(&*block);
        hasher.update(from.to_le_bytes());
        hasher.update(file_bytes.to_le_bytes());
        let mut at = from;
        while at < file_bytes {
            // Where the data begin does not matter, only that nothing but zeros is left out.
            at = match rustix::fs::seek(file, SeekFrom::Data(at)) {
                Ok(data) => at.max(data - data % BLOCK),
                Err(Errno::NXIO) => break,
                Err(Errno::INVAL) => at,
                Err(errno) => return Err(errno.into()),
            };
            let left = usize::try_from(file_bytes.saturating_sub(at)).unwrap_or(BUFFER);
            let bytes = &mut buffer[..left.min(BUFFER)];
            file.read_exact_at(bytes, at)?;
            for block in bytes.chunks(BLOCK_SIZE) {
                if block.iter().any(|&byte| byte != 0) {
                    hasher.update(at.to_le_bytes());
                    hasher.update(block);
                }
                at += block.len() as u64;
            }
        }
        Ok(Self {
            from,
            digest: Digest::from_hasher(hasher),
        })
    }

    /// Whether an image of this length is the one that was sealed.
    pub(crate) fn holds(&self, file: &File, file_bytes: u64) -> io::Result<bool> {
        if Self::of(file, self.from, file_bytes)? == *self {
            return Ok(true);
        }
        Ok(Self::older(file, self.from, file_bytes)? == *self)
    }

    /// As seals were before there were sparse files: over every byte.
    fn older(file: &File, from: u64, file_bytes: u64) -> io::Result<Self> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; BUFFER];
        let block = &mut buffer[..BLOCK_SIZE];
        file.read_exact_at(block, 0)?;
        hasher.update(&*block);
        let mut at = from;
        while at < file_bytes {
            let left = usize::try_from(file_bytes - at).unwrap_or(BUFFER);
            let bytes = &mut buffer[..left.min(BUFFER)];
            file.read_exact_at(bytes, at)?;
            hasher.update(&*bytes);
            at += bytes.len() as u64;
        }
        Ok(Self {
            from,
            digest: Digest::from_hasher(hasher),
        })
    }
}

/// Checks the superblock of an image that should have this length.
pub(crate) fn check_superblock(file: &File, file_bytes: u64) -> Result<(), ErofsError> {
    let mut block = vec![0; BLOCK_SIZE];
    file.read_exact_at(&mut block, 0)
        .map_err(ErofsError::Read)?;
    let word = |at: usize| {
        let at = SUPER_OFFSET + at;
        u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
    };
    if word(0) != MAGIC || block[SUPER_OFFSET + 12] != BLOCK_BITS {
        return Err(ErofsError::Damaged("bad superblock"));
    }
    if u64::from(word(36)) * BLOCK_SIZE as u64 != file_bytes {
        return Err(ErofsError::Damaged(
            "the superblock tells of another length",
        ));
    }
    let stored = word(4);
    block[SUPER_OFFSET + 4..][..4].fill(0);
    if crc32c(&block[SUPER_OFFSET..]) != stored {
        return Err(ErofsError::Damaged("the superblock's checksum is wrong"));
    }
    Ok(())
}
