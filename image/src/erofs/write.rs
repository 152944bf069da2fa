//! Laying out a tree and writing it behind its data.

use super::data::{DataWriter, Spool};
use super::dir;
use super::format::{
    BLOCK_BITS, BLOCK_SIZE, CHUNK_BASED, COMPACT, COMPAT_CHECKSUM, COMPAT_MTIME, EXTENDED,
    FLAT_INLINE, FLAT_PLAIN, INCOMPAT_CHUNKED, MAGIC, MAX_INLINE_TAIL, NO_BLOCK, SLOT,
    SUPER_OFFSET, XATTR_HEADER, crc32c,
};
use super::seal::Seal;
use crate::layer::LayerError;
use crate::layer::tree::{Inode, NONE, ROOT, S_IFCHR, S_IFDIR, S_IFLNK, S_IFREG, Tree, flag};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Slots left free at the start: number 0 means "none" to many a program.
const FIRST_SLOT: usize = 2;
/// Blocks with room left that later inodes are tried in.
const OPEN_BLOCKS: usize = 16;

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
    let mut layout = Layout::default();
    let dirs = layout.visit(tree)?;
    let base_block = data.next_block().map_err(LayerError::Write)?;
    layout.next_dir_block = base_block;
    layout.assign(tree, &dirs)?;
    let mut writer = Writer {
        tree,
        layout: &layout,
        data: &mut data,
        spool,
    };
    for &(dir, parent) in &dirs {
        writer.large_dir(dir, parent)?;
    }
    let meta_block = writer.data.next_block().map_err(LayerError::Write)?;
    writer.inodes(&dirs)?;
    let (file, blocks) = data.finish().map_err(LayerError::Write)?;
    let superblock = superblock(tree, &layout, meta_block, blocks);
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
            content_bytes: layout.content_bytes,
            seal,
        },
    ))
}

#[derive(Default)]
struct Layout {
    /// Time that compact inodes share: the one most inodes have, if any has a majority.
    epoch: (i64, u32),
    votes: u64,
    inodes: u64,
    content_bytes: u64,
    /// Whether there are sparse files.
    chunked: bool,
    next_dir_block: u32,
    /// Blocks of the inode area so far.
    meta_blocks: usize,
    /// Blocks with room: number and bytes used.
    open: Vec<(usize, usize)>,
}

impl Layout {
    /// Walks what names lead to: sorts directories, makes markers, counts links. Answers every
    /// directory with its parent, parents first.
    fn visit(&mut self, tree: &mut Tree) -> Result<Vec<(u32, u32)>, LayerError> {
        let mut dirs = vec![(ROOT, ROOT)];
        let mut whiteout = NONE;
        let mut children = Vec::new();
        let mut next = 0;
        tree.inode_mut(ROOT).nlink = 2;
        self.count(tree.inode(ROOT));
        while let Some(&(dir, _)) = dirs.get(next) {
            next += 1;
            children.clear();
            children.extend(tree.children(dir));
            if tree.inode(dir).has(flag::OPAQUE) {
                mark_opaque(tree, dir)?;
            }
            let opaque = tree.inode(dir).has(flag::OPAQUE);
            children.retain(|&child| {
                // Nothing shines through an opaque directory that would need hiding.
                tree.dentry(child).inode != NONE || (tree.is_whited_out(child) && !opaque)
            });
            children.sort_unstable_by(|&a, &b| tree.name(a).cmp(tree.name(b)));
            relink(tree, dir, &children);
            let size = dir::size(dir::names(tree, &children));
            let size = u32::try_from(size).map_err(|_| LayerError::TooLarge)?;
            tree.inode_mut(dir).set_dir_extent(NO_BLOCK, size);
            for &child in &children {
                if tree.dentry(child).inode == NONE {
                    if whiteout == NONE {
                        whiteout = add_whiteout(tree);
                    }
                    tree.dentries[child as usize].inode = whiteout;
                }
                let inode = tree.dentry(child).inode;
                let whited_out = tree.is_whited_out(child);
                let target = tree.inode_mut(inode);
                target.nlink += 1;
                if target.is_dir() {
                    target.nlink += 1;
                    if whited_out {
                        target.flags |= flag::OPAQUE;
                    }
                    dirs.push((inode, dir));
                    tree.inode_mut(dir).nlink += 1;
                }
                if tree.inode(inode).is_dir() || tree.inode(inode).nlink == 1 {
                    self.count(tree.inode(inode));
                }
            }
        }
        Ok(dirs)
    }

    /// Takes note of one inode. The time is found by majority vote (Boyer and Moore).
    fn count(&mut self, inode: &Inode) {
        self.inodes += 1;
        if inode.kind() == S_IFREG {
            self.content_bytes = self.content_bytes.saturating_add(inode.size);
            self.chunked |= inode.chunk_bits().is_some();
        }
        let time = (inode.mtime, inode.mtime_ns);
        if self.epoch == time {
            self.votes += 1;
        } else if self.votes == 0 {
            (self.epoch, self.votes) = (time, 1);
        } else {
            self.votes -= 1;
        }
    }

    /// Gives every inode its place: a directory's entries side by side, the root first.
    fn assign(&mut self, tree: &mut Tree, dirs: &[(u32, u32)]) -> Result<(), LayerError> {
        self.meta_blocks = 1;
        self.open.push((0, FIRST_SLOT * SLOT));
        self.assign_one(tree, ROOT)?;
        for &(dir, _) in dirs {
            let mut next = tree.inode(dir).data;
            while next != NONE {
                let dentry = *tree.dentry(next);
                if tree.inode(dentry.inode).nid == 0 {
                    self.assign_one(tree, dentry.inode)?;
                }
                next = dentry.next;
            }
        }
        Ok(())
    }

    fn assign_one(&mut self, tree: &mut Tree, inode: u32) -> Result<(), LayerError> {
        let shape = Shape::of(tree, inode, self);
        let slot = self.allocate(shape.total());
        let nid = u32::try_from(slot).map_err(|_| LayerError::TooLarge)?;
        let target = tree.inode_mut(inode);
        target.nid = nid;
        if target.is_dir() {
            let (_, size) = target.dir_extent();
            let blocks = (size - u32::from(shape.tail)).div_ceil(BLOCK_SIZE as u32);
            target.set_dir_extent(self.next_dir_block, size);
            self.next_dir_block = self
                .next_dir_block
                .checked_add(blocks)
                .ok_or(LayerError::TooLarge)?;
        }
        Ok(())
    }

    /// Room for `bytes`, as a slot number: in the fullest open block that has it, else a new one.
    fn allocate(&mut self, bytes: usize) -> usize {
        let bytes = bytes.next_multiple_of(SLOT);
        let best = self
            .open
            .iter()
            .enumerate()
            .filter(|(_, (_, used))| used + bytes <= BLOCK_SIZE)
            .max_by_key(|(_, (_, used))| *used)
            .map(|(index, _)| index);
        if let Some(index) = best {
            let (block, used) = self.open[index];
            self.open[index].1 += bytes;
            return (block * BLOCK_SIZE + used) / SLOT;
        }
        let block = self.meta_blocks;
        self.meta_blocks += bytes.div_ceil(BLOCK_SIZE);
        let last_used = (bytes - 1) % BLOCK_SIZE + 1;
        if self.open.len() == OPEN_BLOCKS {
            let fullest = (0..OPEN_BLOCKS).max_by_key(|&i| self.open[i].1);
            self.open.swap_remove(fullest.unwrap_or(0));
        }
        self.open.push((self.meta_blocks - 1, last_used));
        block * BLOCK_SIZE / SLOT
    }
}

/// How an inode and what stands behind it are written.
struct Shape {
    extended: bool,
    xattrs: usize,
    /// Bytes of data kept behind the inode.
    tail: u16,
    /// Bytes of the list of chunks, which stands there instead.
    chunks: usize,
}

impl Shape {
    fn of(tree: &Tree, inode: u32, layout: &Layout) -> Self {
        let node = tree.inode(inode);
        let small = u16::MAX.into();
        let size = if node.is_dir() {
            node.dir_extent().1.into()
        } else {
            node.size
        };
        let compact = (node.mtime, node.mtime_ns) == layout.epoch
            && node.uid <= small
            && node.gid <= small
            && node.nlink <= small
            && size <= u32::MAX.into();
        let entries = tree.xattrs.get(node.xattr).len();
        let mut shape = Self {
            extended: !compact,
            xattrs: if entries == 0 {
                0
            } else {
                XATTR_HEADER + entries
            },
            tail: 0,
            chunks: node.chunk_list_len(),
        };
        let last = (size % BLOCK_SIZE as u64) as u16;
        let spooled = node.has(flag::SPOOLED) && shape.chunks == 0;
        let fits =
            usize::from(last) <= MAX_INLINE_TAIL && shape.total() + usize::from(last) <= BLOCK_SIZE;
        if spooled || (node.is_dir() && fits) {
            shape.tail = last;
        }
        shape
    }

    const fn head(&self) -> usize {
        if self.extended { EXTENDED } else { COMPACT }
    }

    fn total(&self) -> usize {
        self.head() + self.xattrs + usize::from(self.tail) + self.chunks
    }
}

fn mark_opaque(tree: &mut Tree, dir: u32) -> Result<(), LayerError> {
    let plain = tree.inode(dir).xattr;
    let marked = tree
        .xattrs
        .extended(plain, b"trusted.overlay.opaque", b"y")
        .ok_or(LayerError::TooLarge)?;
    tree.inode_mut(dir).xattr = marked;
    Ok(())
}

/// One character device 0:0 serves all whiteouts of a layer as hard links.
fn add_whiteout(tree: &mut Tree) -> u32 {
    let number = u32::try_from(tree.inodes.len()).unwrap_or(NONE);
    tree.inodes.push(Inode {
        mode: S_IFCHR,
        ..Inode::default()
    });
    number
}

/// Makes `children` the list of `dir`.
fn relink(tree: &mut Tree, dir: u32, children: &[u32]) {
    let mut next = NONE;
    for &child in children.iter().rev() {
        tree.dentries[child as usize].next = next;
        next = child;
    }
    tree.inode_mut(dir).data = next;
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
    fn large_dir(&mut self, dir: u32, parent: u32) -> Result<(), LayerError> {
        let (_, size) = self.tree.inode(dir).dir_extent();
        let shape = Shape::of(self.tree, dir, self.layout);
        if size == u32::from(shape.tail) {
            return Ok(());
        }
        let mut left = size as usize;
        let data = &mut *self.data;
        dir::blocks(self.tree, dir, parent, |block| {
            left -= block.len();
            if left == 0 && shape.tail > 0 {
                return Ok(());
            }
            data.write(block)
        })
        .and_then(|()| data.next_block().map(drop))
        .map_err(LayerError::Write)
    }

    fn inodes(&mut self, dirs: &[(u32, u32)]) -> Result<(), LayerError> {
        let tree = self.tree;
        let mut order: Vec<u32> = (0..u32::try_from(tree.inodes.len()).unwrap_or(NONE))
            .filter(|&inode| tree.inode(inode).nid != 0)
            .collect();
        order.sort_unstable_by_key(|&inode| tree.inode(inode).nid);
        let mut parents = dirs.to_vec();
        parents.sort_unstable();
        let start = self.data.position();
        for (serial, &inode) in (1..).zip(&order) {
            let offset = start + u64::from(tree.inode(inode).nid) * SLOT as u64;
            let gap = offset - self.data.position();
            self.data.zeros(gap).map_err(LayerError::Write)?;
            self.inode(inode, serial, &parents)?;
        }
        Ok(())
    }

    fn inode(&mut self, inode: u32, serial: u32, parents: &[(u32, u32)]) -> Result<(), LayerError> {
        let node = self.tree.inode(inode);
        let shape = Shape::of(self.tree, inode, self.layout);
        let mut tail = vec![0; usize::from(shape.tail) + shape.chunks];
        let address = if node.is_dir() {
            if shape.tail > 0 {
                let parent = parents.binary_search_by_key(&inode, |&(dir, _)| dir);
                let parent = parent.map_or(ROOT, |at| parents[at].1);
                // Of several blocks only the last stands here; each call replaces the one before.
                let keep = |block: &[u8]| {
                    tail = block.to_vec();
                    Ok(())
                };
                dir::blocks(self.tree, inode, parent, keep).map_err(LayerError::Write)?;
            }
            node.dir_extent().0
        } else if node.has(flag::SPOOLED) {
            self.spool
                .get(node.data, &mut tail)
                .map_err(LayerError::Write)?
        } else {
            node.data
        };
        let mut bytes = Vec::with_capacity(shape.total());
        shape.encode_inode(node, serial, address, &mut bytes);
        if shape.xattrs > 0 {
            bytes.extend_from_slice(&[0; XATTR_HEADER]);
            bytes.extend_from_slice(self.tree.xattrs.get(node.xattr));
        }
        bytes.extend_from_slice(&tail);
        self.data.write(&bytes).map_err(LayerError::Write)
    }
}

impl Shape {
    /// `struct erofs_inode_compact` or `struct erofs_inode_extended`.
    fn encode_inode(&self, node: &Inode, serial: u32, address: u32, out: &mut Vec<u8>) {
        let layout = match (self.chunks, self.tail) {
            (1.., _) => CHUNK_BASED,
            (0, 1..) => FLAT_INLINE,
            (0, 0) => FLAT_PLAIN,
        };
        // The count of 4-byte words behind the header, and one for the header itself.
        let xattr_words = match self.xattrs {
            0 => 0,
            bytes => (bytes - XATTR_HEADER) / 4 + 1,
        };
        let size = match node.kind() {
            S_IFDIR => node.dir_extent().1.into(),
            S_IFREG | S_IFLNK => node.size,
            _ => 0,
        };
        let low16 = |n: u64| u16::try_from(n).unwrap_or(u16::MAX).to_le_bytes();
        out.extend_from_slice(&(layout << 1 | u16::from(self.extended)).to_le_bytes());
        out.extend_from_slice(&low16(xattr_words as u64));
        out.extend_from_slice(&node.mode.to_le_bytes());
        if self.extended {
            out.extend_from_slice(&[0; 2]);
            out.extend_from_slice(&size.to_le_bytes());
            out.extend_from_slice(&address.to_le_bytes());
            out.extend_from_slice(&serial.to_le_bytes());
            out.extend_from_slice(&node.uid.to_le_bytes());
            out.extend_from_slice(&node.gid.to_le_bytes());
            out.extend_from_slice(&node.mtime.to_le_bytes());
            out.extend_from_slice(&node.mtime_ns.to_le_bytes());
            out.extend_from_slice(&node.nlink.to_le_bytes());
            out.extend_from_slice(&[0; 16]);
        } else {
            out.extend_from_slice(&low16(node.nlink.into()));
            out.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&address.to_le_bytes());
            out.extend_from_slice(&serial.to_le_bytes());
            out.extend_from_slice(&low16(node.uid.into()));
            out.extend_from_slice(&low16(node.gid.into()));
            out.extend_from_slice(&[0; 4]);
        }
    }
}

/// The first block: zeros, and the superblock where it belongs.
fn superblock(tree: &Tree, layout: &Layout, meta_block: u32, blocks: u32) -> Vec<u8> {
    let mut block = vec![0; BLOCK_SIZE];
    let mut put = |at: usize, bytes: &[u8]| {
        block[SUPER_OFFSET + at..][..bytes.len()].copy_from_slice(bytes);
    };
    put(0, &MAGIC.to_le_bytes());
    put(8, &(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
    put(12, &[BLOCK_BITS]);
    // The root is placed first, so its number fits these 16 bits.
    let root = u16::try_from(tree.inode(ROOT).nid).unwrap_or(0);
    put(14, &root.to_le_bytes());
    put(16, &layout.inodes.to_le_bytes());
    put(24, &layout.epoch.0.to_le_bytes());
    put(32, &layout.epoch.1.to_le_bytes());
    put(36, &blocks.to_le_bytes());
    put(40, &meta_block.to_le_bytes());
    if layout.chunked {
        put(80, &INCOMPAT_CHUNKED.to_le_bytes());
    }
    let checksum = crc32c(&block[SUPER_OFFSET..]);
    block[SUPER_OFFSET + 4..][..4].copy_from_slice(&checksum.to_le_bytes());
    block
}
