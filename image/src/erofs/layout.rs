//! Laying out a tree: which names its directories list, and where each inode stands.
//!
//! Every pass over the tree is a function, in the order in which [`Layout::of`] calls them:
//! directories are sorted and measured, markers added, links of each inode counted, inodes summed up
//! and, last, placed. A pass over millions of entries takes its time, so only what has to be known
//! of all of them before the next step is a pass of its own.

use super::dir;
use super::format::{BLOCK_SIZE, COMPACT, EXTENDED, MAX_INLINE_TAIL, NO_BLOCK, SLOT, XATTR_HEADER};
use crate::layer::LayerError;
use crate::layer::tree::{Content, DentryId, Inode, InodeId, ROOT, S_IFREG, Tree};

/// Slots left free at the start: number 0 means "none" to many a program.
const FIRST_SLOT: usize = 2;
/// Blocks with room left that later inodes are tried in.
const OPEN_BLOCKS: usize = 16;

/// Where everything stands that is written behind the data.
pub(super) struct Layout {
    /// Every directory, parents first.
    pub dirs: Vec<Dir>,
    /// Every inode that is written, each once, in the order of their places.
    pub inodes: Vec<InodeId>,
    pub summary: Summary,
    /// Of each inode of the tree, how many links it has.
    links: Vec<u32>,
    /// Of each inode of the tree, the number of the slot where it stands; 0 if it is not written.
    nids: Vec<u32>,
}

/// A directory as it will be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dir {
    pub inode: InodeId,
    pub parent: InodeId,
    /// Its size, in bytes.
    pub bytes: u32,
    /// The block at which it begins, but for what stands behind its inode.
    pub first_block: u32,
}

/// What the superblock and the store are told of all inodes together.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Summary {
    /// Modification time that compact inodes share: the one most inodes have, if any has a majority.
    pub epoch: (i64, u32),
    /// Bytes of all files, each counted once.
    pub content_bytes: u64,
    /// Whether there are sparse files.
    pub chunked: bool,
}

impl Layout {
    /// Lays out a tree whose directories' blocks begin at `first_dir_block`.
    pub(super) fn of(tree: &mut Tree, first_dir_block: u32) -> Result<Self, LayerError> {
        let (dirs, whiteouts) = sort_directories(tree)?;
        add_markers(tree, &dirs, &whiteouts)?;
        let (links, inodes) = count_links(tree, &dirs);
        let summary = Summary::of(tree, &inodes);
        let mut layout = Self {
            dirs,
            inodes,
            summary,
            links,
            nids: vec![0; tree.inode_count()],
        };
        layout.place_inodes(tree, first_dir_block)?;
        let nids = &layout.nids;
        layout
            .inodes
            .sort_unstable_by_key(|inode| nids[inode.index()]);
        Ok(layout)
    }

    pub(super) fn links(&self, inode: InodeId) -> u32 {
        self.links[inode.index()]
    }

    pub(super) fn nid(&self, inode: InodeId) -> u32 {
        self.nids[inode.index()]
    }

    /// Gives every inode its slot, and every directory its blocks.
    fn place_inodes(&mut self, tree: &Tree, first_dir_block: u32) -> Result<(), LayerError> {
        let mut slots = Slots::default();
        let mut next_dir_block = first_dir_block;
        let mut next_dir = 0;
        for index in 0..self.inodes.len() {
            let inode = self.inodes[index];
            // Directories come in the same order here as in their own list.
            let dir = self.dirs.get(next_dir).copied();
            let dir = dir.filter(|dir| dir.inode == inode);
            let shape = Shape::of(self, tree, inode, dir.as_ref());
            let slot = slots.allocate(shape.total());
            self.nids[inode.index()] = u32::try_from(slot).map_err(|_| LayerError::TooLarge)?;
            if let Some(dir) = dir {
                self.dirs[next_dir].first_block = next_dir_block;
                let blocks = (dir.bytes - u32::from(shape.tail)).div_ceil(BLOCK_SIZE as u32);
                next_dir_block = next_dir_block
                    .checked_add(blocks)
                    .ok_or(LayerError::TooLarge)?;
                next_dir += 1;
            }
        }
        Ok(())
    }
}

/// Leaves in every directory the names that the image is to have, sorted. Answers the directories
/// with their sizes, parents first, and the entries that are nothing but whiteouts.
fn sort_directories(tree: &mut Tree) -> Result<(Vec<Dir>, Vec<DentryId>), LayerError> {
    let dir = |inode, parent| Dir {
        inode,
        parent,
        bytes: 0,
        first_block: NO_BLOCK,
    };
    let mut dirs = vec![dir(ROOT, ROOT)];
    let mut whiteouts = Vec::new();
    let mut children = Vec::new();
    let mut next = 0;
    while let Some(&Dir { inode: parent, .. }) = dirs.get(next) {
        children.clear();
        children.extend(tree.children(parent));
        let opaque = tree.inode(parent).is_opaque();
        children.retain(|&child| {
            // Nothing shines through an opaque directory that would need hiding.
            tree.dentry(child).inode.is_some() || (tree.is_whited_out(child) && !opaque)
        });
        children.sort_unstable_by(|&a, &b| tree.name(a).cmp(tree.name(b)));
        tree.set_children(parent, &children);
        let bytes = dir::size(dir::names(tree, &children));
        dirs[next].bytes = u32::try_from(bytes).map_err(|_| LayerError::TooLarge)?;
        next += 1;
        for &child in &children {
            let Some(inode) = tree.dentry(child).inode else {
                whiteouts.push(child);
                continue;
            };
            if tree.inode(inode).is_dir() {
                if tree.is_whited_out(child) {
                    tree.inode_mut(inode).set_opaque();
                }
                dirs.push(dir(inode, parent));
            }
        }
    }
    Ok((dirs, whiteouts))
}

/// Adds what tells overlayfs of opaque directories and of whiteouts: an attribute of the former,
/// and for the latter one character device 0:0, to which all of a layer are hard links.
fn add_markers(tree: &mut Tree, dirs: &[Dir], whiteouts: &[DentryId]) -> Result<(), LayerError> {
    for &Dir { inode: dir, .. } in dirs {
        if tree.inode(dir).is_opaque() {
            let plain = tree.inode(dir).xattr;
            let marked = tree
                .xattrs
                .extended(plain, b"trusted.overlay.opaque", b"y")
                .ok_or(LayerError::TooLarge)?;
            tree.inode_mut(dir).xattr = marked;
        }
    }
    if !whiteouts.is_empty() {
        let inode = tree.add_whiteout();
        for &whiteout in whiteouts {
            tree.set_inode(whiteout, Some(inode));
        }
    }
    Ok(())
}

/// The inodes that the entries of these directories lead to.
fn entries<'a>(tree: &'a Tree, dir: &Dir) -> impl Iterator<Item = InodeId> + 'a {
    tree.children(dir.inode)
        .filter_map(|child| tree.dentry(child).inode)
}

/// Counts the links of each inode: names, and of directories `.` and `..` too. Answers the inodes
/// that have any as well, by their first names.
fn count_links(tree: &Tree, dirs: &[Dir]) -> (Vec<u32>, Vec<InodeId>) {
    let mut links = vec![0; tree.inode_count()];
    let mut inodes = vec![ROOT];
    links[ROOT.index()] = 2;
    for dir in dirs {
        for inode in entries(tree, dir) {
            if links[inode.index()] == 0 {
                inodes.push(inode);
            }
            links[inode.index()] += 1;
            if tree.inode(inode).is_dir() {
                links[inode.index()] += 1;
                links[dir.inode.index()] += 1;
            }
        }
    }
    (links, inodes)
}

impl Summary {
    /// Sums up inodes. Their time is found by majority vote (Boyer and Moore).
    fn of(tree: &Tree, inodes: &[InodeId]) -> Self {
        let mut summary = Self::default();
        let mut votes = 0u64;
        for &inode in inodes {
            let inode = tree.inode(inode);
            if inode.kind() == S_IFREG {
                summary.content_bytes = summary.content_bytes.saturating_add(inode.size);
                summary.chunked |= matches!(inode.content, Content::Chunks { .. });
            }
            let time = (inode.mtime, inode.mtime_ns);
            if summary.epoch == time {
                votes += 1;
            } else if votes == 0 {
                (summary.epoch, votes) = (time, 1);
            } else {
                votes -= 1;
            }
        }
        summary
    }
}

/// Hands out room in the area of inodes.
struct Slots {
    /// Blocks of the area so far.
    blocks: usize,
    /// Blocks with room: number and bytes used.
    open: Vec<(usize, usize)>,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            blocks: 1,
            open: vec![(0, FIRST_SLOT * SLOT)],
        }
    }
}

impl Slots {
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
        let block = self.blocks;
        self.blocks += bytes.div_ceil(BLOCK_SIZE);
        let last_used = (bytes - 1) % BLOCK_SIZE + 1;
        if self.open.len() == OPEN_BLOCKS {
            let fullest = (0..OPEN_BLOCKS).max_by_key(|&i| self.open[i].1);
            self.open.swap_remove(fullest.unwrap_or(0));
        }
        self.open.push((self.blocks - 1, last_used));
        block * BLOCK_SIZE / SLOT
    }
}

/// How an inode and what stands behind it are written.
pub(super) struct Shape {
    pub extended: bool,
    /// Bytes of its attributes and their header.
    pub xattrs: usize,
    /// Bytes of data kept behind the inode.
    pub tail: u16,
    /// Bytes of the list of chunks, which stands there instead.
    pub chunks: usize,
}

impl Shape {
    /// The shape of an inode; `dir` is the directory that it is, if it is one.
    pub(super) fn of(layout: &Layout, tree: &Tree, inode: InodeId, dir: Option<&Dir>) -> Self {
        let node = tree.inode(inode);
        let size = dir.map_or(node.size, |dir| dir.bytes.into());
        let entries = tree.xattrs.get(node.xattr).len();
        let mut shape = Self {
            extended: !is_compact(node, size, layout.links(inode), layout.summary.epoch),
            xattrs: if entries == 0 {
                0
            } else {
                XATTR_HEADER + entries
            },
            tail: 0,
            chunks: node.chunk_list_len(),
        };
        let last = (size % BLOCK_SIZE as u64) as u16;
        let len = usize::from(last);
        let is_inline = match node.content {
            Content::Inline(_) => true,
            Content::Directory { .. } => {
                len <= MAX_INLINE_TAIL && shape.total() + len <= BLOCK_SIZE
            }
            _ => false,
        };
        if is_inline {
            shape.tail = last;
        }
        shape
    }

    pub(super) const fn total(&self) -> usize {
        let head = if self.extended { EXTENDED } else { COMPACT };
        head + self.xattrs + self.tail as usize + self.chunks
    }
}

/// Whether the fields of a compact inode are large enough.
fn is_compact(inode: &Inode, size: u64, links: u32, epoch: (i64, u32)) -> bool {
    let small = u16::MAX.into();
    (inode.mtime, inode.mtime_ns) == epoch
        && inode.uid <= small
        && inode.gid <= small
        && links <= small
        && size <= u32::MAX.into()
}
