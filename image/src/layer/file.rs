//! A file's bytes on their way into an image: in one piece, or in chunks if it has holes.

use super::LayerError;
use super::tree::{Content, Inode, Tree};
use crate::erofs::{
    BLOCK_SIZE, CHUNK_ENTRY, DataWriter, MAX_CHUNK_BITS, MAX_INLINE_TAIL, NO_BLOCK, Spool,
};

/// A file whose holes are together smaller than this, in bytes, is written in one piece.
const MIN_HOLE_BYTES: u64 = 64 * 1024;
/// Chunks of a file without data…
const MIN_CHUNKS: u64 = 512;
/// …as many more for each piece of data…
const CHUNKS_PER_PIECE: u64 = 16;
/// …and the most that are listed.
const MAX_CHUNKS: u64 = 16 * 1024;

/// Takes the bytes of one file, in order.
pub(super) struct FileSink<'a> {
    data: &'a mut DataWriter,
    size: u64,
    /// Where in the file the next byte goes.
    position: u64,
    form: Form,
}

enum Form {
    /// Whole blocks one after the other, and the rest behind the inode.
    Whole {
        first_block: u32,
        /// Bytes that go to blocks.
        blocks: u64,
        tail: Vec<u8>,
    },
    Chunks {
        bits: u8,
        first_blocks: Vec<u32>,
        current: Option<usize>,
    },
}

/// What [`FileSink::write`] took.
pub(super) struct Taken {
    /// How many were taken; not always all.
    pub len: usize,
    /// How many of those went to blocks of the image…
    pub kept: usize,
    /// …and the offset in the image, in bytes, of the first of them.
    pub offset: u64,
}

impl<'a> FileSink<'a> {
    /// For a file of the inode's size and attributes, whose data stand in these pieces: offset and
    /// length.
    pub(super) fn new(
        tree: &Tree,
        data: &'a mut DataWriter,
        inode: &Inode,
        pieces: &[(u64, u64)],
    ) -> Result<Self, LayerError> {
        let stored: u64 = pieces.iter().map(|&(_, len)| len).sum();
        let holes = inode.size.saturating_sub(stored);
        let form = if holes < MIN_HOLE_BYTES {
            let tail = inline_len(tree, inode);
            Form::Whole {
                first_block: data.next_block().map_err(LayerError::Write)?,
                blocks: inode.size - tail as u64,
                tail: Vec::with_capacity(tail),
            }
        } else {
            let bits = chunk_bits(inode.size, pieces.len() as u64);
            let count = inode.size.div_ceil((BLOCK_SIZE as u64) << bits);
            Form::Chunks {
                bits,
                first_blocks: vec![NO_BLOCK; usize::try_from(count).unwrap_or(usize::MAX)],
                current: None,
            }
        };
        Ok(Self {
            data,
            size: inode.size,
            position: 0,
            form,
        })
    }

    /// Takes some of the bytes that belong at an offset, which is not before the last one's end.
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) -> Result<Taken, LayerError> {
        match &self.form {
            Form::Whole { .. } => {
                self.zeros(at)?;
                self.write_whole(bytes)
            }
            Form::Chunks { bits, .. } => {
                let chunk_bytes = (BLOCK_SIZE as u64) << bits;
                self.enter_chunk(at, chunk_bytes)?;
                let room = chunk_bytes - at % chunk_bytes;
                let len = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
                let offset = self.data.position();
                self.data.write(&bytes[..len]).map_err(LayerError::Write)?;
                self.position += len as u64;
                Ok(Taken {
                    len,
                    kept: len,
                    offset,
                })
            }
        }
    }

    /// Ends the file, and tells the inode where its data are.
    pub(super) fn finish(mut self, spool: &mut Spool, inode: &mut Inode) -> Result<(), LayerError> {
        match &self.form {
            Form::Whole { .. } => self.zeros(self.size)?,
            Form::Chunks { bits, .. } => self.finish_chunk((BLOCK_SIZE as u64) << bits)?,
        }
        match self.form {
            Form::Whole {
                first_block, tail, ..
            } if tail.is_empty() => inode.content = Content::Blocks(first_block),
            Form::Whole {
                first_block,
                blocks,
                tail,
            } => {
                let first_block = if blocks == 0 { NO_BLOCK } else { first_block };
                let position = spool.put(first_block, &tail);
                inode.content = Content::Inline(position.map_err(LayerError::Write)?);
            }
            Form::Chunks {
                bits, first_blocks, ..
            } => {
                let mut list = Vec::with_capacity(first_blocks.len() * CHUNK_ENTRY);
                for block in first_blocks {
                    list.extend_from_slice(&block.to_le_bytes());
                }
                let list = spool.put(bits.into(), &list).map_err(LayerError::Write)?;
                inode.content = Content::Chunks { list, bits };
            }
        }
        Ok(())
    }

    fn write_whole(&mut self, bytes: &[u8]) -> Result<Taken, LayerError> {
        let Form::Whole { blocks, tail, .. } = &mut self.form else {
            return Err(LayerError::TooLarge);
        };
        let left = blocks.saturating_sub(self.position);
        let kept = usize::try_from(left).map_or(bytes.len(), |n| n.min(bytes.len()));
        let (whole, rest) = bytes.split_at(kept);
        let offset = self.data.position();
        self.data.write(whole).map_err(LayerError::Write)?;
        tail.extend_from_slice(rest);
        self.position += bytes.len() as u64;
        Ok(Taken {
            len: bytes.len(),
            kept,
            offset,
        })
    }

    /// Zeros up to an offset of a file in one piece.
    fn zeros(&mut self, until: u64) -> Result<(), LayerError> {
        let Form::Whole { blocks, tail, .. } = &mut self.form else {
            return Err(LayerError::TooLarge);
        };
        let count = until.saturating_sub(self.position);
        let whole = count.min(blocks.saturating_sub(self.position));
        self.data.zeros(whole).map_err(LayerError::Write)?;
        // What is left is part of the tail, so at most half a block.
        let rest = usize::try_from(count - whole).unwrap_or(0);
        tail.resize(tail.len() + rest, 0);
        self.position += count;
        Ok(())
    }

    /// Goes to an offset, in the chunk that it belongs to.
    fn enter_chunk(&mut self, at: u64, chunk_bytes: u64) -> Result<(), LayerError> {
        let chunk = usize::try_from(at / chunk_bytes).unwrap_or(usize::MAX);
        let start = at - at % chunk_bytes;
        if !matches!(&self.form, Form::Chunks { current, .. } if *current == Some(chunk)) {
            self.finish_chunk(chunk_bytes)?;
            let block = self.data.next_block().map_err(LayerError::Write)?;
            if let Form::Chunks {
                first_blocks,
                current,
                ..
            } = &mut self.form
            {
                *first_blocks.get_mut(chunk).ok_or(LayerError::TooLarge)? = block;
                *current = Some(chunk);
            }
            self.position = start;
        }
        self.pad(at)
    }

    /// Fills the chunk that was begun, if there is one.
    fn finish_chunk(&mut self, chunk_bytes: u64) -> Result<(), LayerError> {
        let Form::Chunks { current, .. } = &mut self.form else {
            return Ok(());
        };
        match current.take() {
            Some(chunk) => self.pad(self.size.min((chunk as u64 + 1) * chunk_bytes)),
            None => Ok(()),
        }
    }

    /// Zeros up to an offset within the current chunk.
    fn pad(&mut self, until: u64) -> Result<(), LayerError> {
        let count = until.saturating_sub(self.position);
        self.data.zeros(count).map_err(LayerError::Write)?;
        self.position += count;
        Ok(())
    }
}

/// Small chunks waste the least, but many make a long list: its length follows what the archive
/// spent on the file.
fn chunk_bits(size: u64, pieces: u64) -> u8 {
    let most = pieces
        .saturating_mul(CHUNKS_PER_PIECE)
        .saturating_add(MIN_CHUNKS)
        .min(MAX_CHUNKS);
    let fits = |bits: &u8| size.div_ceil((BLOCK_SIZE as u64) << bits) <= most;
    (0..MAX_CHUNK_BITS).find(fits).unwrap_or(MAX_CHUNK_BITS)
}

/// Bytes of an inode's data that will stand behind it: 0 if its last piece gets a block.
pub(super) fn inline_len(tree: &Tree, inode: &Inode) -> usize {
    /// An extended inode and the header of its attributes.
    const HEAD: usize = 64 + 12;
    let tail = usize::try_from(inode.size % BLOCK_SIZE as u64).unwrap_or(0);
    let room = HEAD + tree.xattrs.get(inode.xattr).len() + tail <= BLOCK_SIZE;
    if tail <= MAX_INLINE_TAIL && room {
        tail
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_chunks_are_short() {
        assert_eq!(chunk_bits(1 << 20, 1), 0);
        // 528 chunks of 8 MiB hold 4 GiB.
        assert_eq!(chunk_bits(4 << 30, 1), 11);
        assert_eq!(chunk_bits(4 << 30, 1_000_000), 6);
        let bits = chunk_bits(1 << 40, 0);
        assert!((1u64 << 40).div_ceil(4096 << bits) <= 512, "{bits}");
    }
}
