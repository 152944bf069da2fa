//! Copying up the files of lower layers that hard links lead to.

use super::Resolver;
use super::follow::Walk;
use crate::erofs::{BLOCK_SIZE, Node};
use crate::layer::convert::PendingLink;
use crate::layer::file::FileSink;
use crate::layer::lower::{LowerEntry, LowerFile};
use crate::layer::path;
use crate::layer::tree::{
    Content, DentryId, Inode, InodeId, S_IFBLK, S_IFCHR, S_IFLNK, S_IFMT, S_IFREG,
};
use crate::layer::{LayerError, Problem, WalkError, shown};
use hullbox_tar::MAX_SEGMENTS;
use std::collections::HashMap;

impl Resolver<'_> {
    /// Copies the files that hard links lead to into this layer, each once.
    pub(super) fn copy_up_link_targets(&mut self, links: &[PendingLink]) -> Result<(), LayerError> {
        // A file is known by its layer and by where its inode stands there.
        let mut copies: HashMap<(usize, u64), InodeId> = HashMap::new();
        let mut copy_of: HashMap<InodeId, InodeId> = HashMap::new();
        for (inode, number) in self.pending_links() {
            let link = links.get(number as usize).ok_or(LayerError::TooLarge)?;
            let (target, file) = self.link_source(link).map_err(|e| e.at(&link.path))?;
            let key = (file.layer, file.node.xattr_start);
            let copy = match copies.get(&key) {
                Some(&copy) => copy,
                None => {
                    *self.tree.inode_mut(inode) = self.copy_up(&file)?;
                    copies.insert(key, inode);
                    inode
                }
            };
            copy_of.insert(inode, copy);
            // overlayfs copies the old name up as well, so the two stay one file.
            if !self.tree.is_whited_out(target) && self.tree.dentry(target).inode.is_none() {
                self.tree.set_inode(target, Some(copy));
            }
        }
        self.tree
            .replace_inodes(|inode| copy_of.get(&inode).copied().unwrap_or(inode));
        Ok(())
    }

    /// The inodes that stand for files of lower layers, in their order, and the numbers of their
    /// links.
    fn pending_links(&self) -> Vec<(InodeId, u32)> {
        let mut pending: Vec<(InodeId, u32)> = self
            .tree
            .dentries()
            .iter()
            .filter_map(|dentry| {
                let inode = dentry.inode?;
                match self.tree.inode(inode).content {
                    Content::PendingLink(number) => Some((inode, number)),
                    _ => None,
                }
            })
            .collect();
        pending.sort_unstable();
        pending.dedup();
        pending
    }

    /// The entry a link's target has or would have here, and the lower file that it names.
    fn link_source(&mut self, link: &PendingLink) -> Result<(DentryId, LowerFile), WalkError> {
        let names = path::components(&link.target).map_err(WalkError::Problem)?;
        let Some((last, parents)) = names.split_last() else {
            return Err(WalkError::Problem(Problem::LinkToDirectory));
        };
        let root = self.merged_root()?;
        let parent = self.follow(Walk::from_root(root, parents))?;
        match parent.lower.entry(self.lower, last)? {
            LowerEntry::Other(file) => Ok((self.tree.entry(parent.dir, last)?, file)),
            LowerEntry::Directory(_) => Err(WalkError::Problem(Problem::LinkToDirectory)),
            LowerEntry::Absent => {
                let target = shown(&link.target);
                Err(WalkError::Problem(Problem::LinkMissing(target)))
            }
        }
    }

    /// A copy of a lower file, in this layer.
    fn copy_up(&mut self, file: &LowerFile) -> Result<Inode, LayerError> {
        let &LowerFile { layer, node } = file;
        let mut inode = self.describe(layer, &node)?;
        match node.mode & S_IFMT {
            S_IFREG | S_IFLNK => inode.size = node.size,
            S_IFCHR | S_IFBLK => inode.content = Content::Device(node.address),
            _ => {}
        }
        if inode.size == 0 {
            return Ok(inode);
        }
        let pieces = self.pieces(layer, &node)?;
        let mut sink = FileSink::new(&self.tree, &mut self.data, &inode, &pieces)?;
        let mut buffer = vec![0; 16 * BLOCK_SIZE];
        for (offset, len) in pieces {
            let (mut at, end) = (offset, offset + len);
            while at < end {
                let left = usize::try_from(end - at).unwrap_or(usize::MAX);
                let piece = left.min(buffer.len());
                let chunk = &mut buffer[..piece];
                self.lower[layer].read_data(&node, at, chunk)?;
                at += sink.write(at, chunk)?.len as u64;
            }
        }
        sink.finish(&mut self.spool, &mut inode)?;
        Ok(inode)
    }

    /// Where a lower file has its data, all of which the budget must have room for.
    fn pieces(&mut self, layer: usize, node: &Node) -> Result<Vec<(u64, u64)>, LayerError> {
        let mut pieces: Vec<(u64, u64)> = Vec::new();
        let mut from = 0;
        while let Some((start, end)) = self.lower[layer].next_data(node, from)? {
            self.budget.take(end - start)?;
            let full = pieces.len() >= MAX_SEGMENTS;
            match pieces.last_mut() {
                // A file with more holes than a tar may have keeps its first.
                Some((offset, len)) if full => {
                    self.budget.take(start - (*offset + *len))?;
                    *len = end - *offset;
                }
                _ => pieces.push((start, end - start)),
            }
            from = end;
        }
        Ok(pieces)
    }
}
