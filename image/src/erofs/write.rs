//! Writing a tree behind its data.

use super::data::{DataWriter, Spool};
use super::dir;
use super::format::{
    BLOCK_BITS, BLOCK_SIZE, CHUNK_BASED, COMPAT_CHECKSUM, COMPAT_MTIME, FLAT_INLINE, FLAT_PLAIN,
    INCOMPAT_CHUNKED, MAGIC, NO_BLOCK, SLOT, SUPER_OFFSET, XATTR_HEADER, crc32c,
};
use super::layout::{Dir, Layout, Shape};
use super::seal::Seal;
use crate::layer::LayerError;
use crate::layer::tree::{Content, InodeId, ROOT, Tree};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// A finished image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    /// Size of the file, in bytes: a multiple of the block size.
    pub file_bytes: u64,
    /// Sum of the sizes of its files, each counted once.
    pub content_bytes: u64,
    pub seal: Seal,
}

/// Writes everything but the data that is there already: large directories, inodes, superblock.
/// The seal begins at block `sealed_from`, or where the data ends.
pub(crate) fn write_metadata(
    tree: &mut Tree,
    mut data: DataWriter,
    spool: &mut Spool,
    sealed_from: Option<u32>,
) -> Result<(File, Written), LayerError> {
    tree.drop_index();
    let base_block = data.next_block().map_err(LayerError::Write)?;
    let layout = Layout::of(tree, base_block)?;
    let mut writer = Writer {
        tree,
        layout: &layout,
        data: &mut data,
        spool,
    };
    for dir in &layout.dirs {
        writer.large_dir(dir)?;
    }
    let meta_block = writer.data.next_block().map_err(LayerError::Write)?;
    writer.inodes()?;
    let (file, blocks) = data.finish().map_err(LayerError::Write)?;
    let superblock = superblock(&layout, meta_block, blocks);
    file.write_all_at(&superblock, 0)
        .map_err(LayerError::Write)?;
    let bytes = |blocks: u32| u64::from(blocks) * BLOCK_SIZE as u64;
    let seal = Seal::of(
        &file,
        bytes(sealed_from.unwrap_or(base_block)),
        bytes(blocks),
    )
    .map_err(LayerError::Write)?;
    Ok((
        file,
        Written {
            file_bytes: bytes(blocks),
            content_bytes: layout.summary.content_bytes,
            seal,
        },
    ))
}

/// Writes inodes, and what hangs on them, once everything has its place.
struct Writer<'a> {
    tree: &'a Tree,
    layout: &'a Layout,
    data: &'a mut DataWriter,
    spool: &'a mut Spool,
}

impl Writer<'_> {
    /// Writes the blocks of a directory that do not stand behind its inode.
    fn large_dir(&mut self, dir: &Dir) -> Result<(), LayerError> {
        let shape = Shape::of(self.layout, self.tree, dir.inode, Some(dir));
        if dir.bytes == u32::from(shape.tail) {
            return Ok(());
        }
        let mut left = dir.bytes as usize;
        let data = &mut *self.data;
        let nid = |inode| self.layout.nid(inode);
        dir::blocks(self.tree, dir.inode, dir.parent, nid, |block| {
            left -= block.len();
            if left == 0 && shape.tail > 0 {
                return Ok(());
            }
            data.write(block)
        })
        .and_then(|()| data.next_block().map(drop))
        .map_err(LayerError::Write)
    }

    /// Writes all inodes, each at its place.
    fn inodes(&mut self) -> Result<(), LayerError> {
        let layout = self.layout;
        let mut dirs = layout.dirs.clone();
        dirs.sort_unstable_by_key(|dir| dir.inode);
        let start = self.data.position();
        for (serial, &inode) in (1..).zip(&layout.inodes) {
            let offset = start + u64::from(layout.nid(inode)) * SLOT as u64;
            let gap = offset - self.data.position();
            self.data.zeros(gap).map_err(LayerError::Write)?;
            let dir = dirs.binary_search_by_key(&inode, |dir| dir.inode);
            self.inode(inode, serial, dir.ok().map(|at| &dirs[at]))?;
        }
        Ok(())
    }

    fn inode(&mut self, id: InodeId, serial: u32, dir: Option<&Dir>) -> Result<(), LayerError> {
        let inode = self.tree.inode(id);
        let shape = Shape::of(self.layout, self.tree, id, dir);
        let mut tail = vec![0; usize::from(shape.tail) + shape.chunks];
        let address = match inode.content {
            Content::Directory { .. } => {
                if let Some(dir) = dir
                    && shape.tail > 0
                {
                    // Of several blocks only the last stands here; each call replaces the one before.
                    let keep = |block: &[u8]| {
                        tail = block.to_vec();
                        Ok(())
                    };
                    let nid = |inode| self.layout.nid(inode);
                    dir::blocks(self.tree, dir.inode, dir.parent, nid, keep)
                        .map_err(LayerError::Write)?;
                }
                dir.map_or(NO_BLOCK, |dir| dir.first_block)
            }
            Content::Inline(position) | Content::Chunks { list: position, .. } => {
                let address = self.spool.get(position, &mut tail);
                address.map_err(LayerError::Write)?
            }
            Content::Blocks(address) | Content::Device(address) => address,
            Content::Empty | Content::PendingLink(_) => NO_BLOCK,
        };
        let size = dir.map_or(inode.size, |dir| dir.bytes.into());
        let mut bytes = Vec::with_capacity(shape.total());
        self.encode_inode(id, &shape, [serial, address], size, &mut bytes);
        if shape.xattrs > 0 {
            bytes.extend_from_slice(&[0; XATTR_HEADER]);
            bytes.extend_from_slice(self.tree.xattrs.get(inode.xattr));
        }
        bytes.extend_from_slice(&tail);
        self.data.write(&bytes).map_err(LayerError::Write)
    }

    /// `struct erofs_inode_compact` or `struct erofs_inode_extended`.
    fn encode_inode(
        &self,
        id: InodeId,
        shape: &Shape,
        [serial, address]: [u32; 2],
        size: u64,
        out: &mut Vec<u8>,
    ) {
        let inode = self.tree.inode(id);
        let links = self.layout.links(id);
        let layout = match (shape.chunks, shape.tail) {
            (1.., _) => CHUNK_BASED,
            (0, 1..) => FLAT_INLINE,
            (0, 0) => FLAT_PLAIN,
        };
        // The count of 4-byte words behind the header, and one for the header itself.
        let xattr_words = match shape.xattrs {
            0 => 0,
            bytes => (bytes - XATTR_HEADER) / 4 + 1,
        };
        let low16 = |n: u64| u16::try_from(n).unwrap_or(u16::MAX).to_le_bytes();
        out.extend_from_slice(&(layout << 1 | u16::from(shape.extended)).to_le_bytes());
        out.extend_from_slice(&low16(xattr_words as u64));
        out.extend_from_slice(&inode.mode.to_le_bytes());
        if shape.extended {
            out.extend_from_slice(&[0; 2]);
            out.extend_from_slice(&size.to_le_bytes());
            out.extend_from_slice(&address.to_le_bytes());
            out.extend_from_slice(&serial.to_le_bytes());
            out.extend_from_slice(&inode.uid.to_le_bytes());
            out.extend_from_slice(&inode.gid.to_le_bytes());
            out.extend_from_slice(&inode.mtime.to_le_bytes());
            out.extend_from_slice(&inode.mtime_ns.to_le_bytes());
            out.extend_from_slice(&links.to_le_bytes());
            out.extend_from_slice(&[0; 16]);
        } else {
            out.extend_from_slice(&low16(links.into()));
            out.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&address.to_le_bytes());
            out.extend_from_slice(&serial.to_le_bytes());
            out.extend_from_slice(&low16(inode.uid.into()));
            out.extend_from_slice(&low16(inode.gid.into()));
            out.extend_from_slice(&[0; 4]);
        }
    }
}

/// The first block: zeros, and the superblock where it belongs.
fn superblock(layout: &Layout, meta_block: u32, blocks: u32) -> Vec<u8> {
    let mut block = vec![0; BLOCK_SIZE];
    let mut put = |at: usize, bytes: &[u8]| {
        block[SUPER_OFFSET + at..][..bytes.len()].copy_from_slice(bytes);
    };
    put(0, &MAGIC.to_le_bytes());
    put(8, &(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
    put(12, &[BLOCK_BITS]);
    // The root is placed first, so its number fits these 16 bits.
    let root = u16::try_from(layout.nid(ROOT)).unwrap_or(0);
    put(14, &root.to_le_bytes());
    put(16, &(layout.inodes.len() as u64).to_le_bytes());
    put(24, &layout.summary.epoch.0.to_le_bytes());
    put(32, &layout.summary.epoch.1.to_le_bytes());
    put(36, &blocks.to_le_bytes());
    put(40, &meta_block.to_le_bytes());
    if layout.summary.chunked {
        put(80, &INCOMPAT_CHUNKED.to_le_bytes());
    }
    let checksum = crc32c(&block[SUPER_OFFSET..]);
    block[SUPER_OFFSET + 4..][..4].copy_from_slice(&checksum.to_le_bytes());
    block
}
