//! Finishing a dependent layer on top of its lower layers.
//!
//! First the tree is merged with what the lower layers have ([`merge`]), then the files that hard
//! links lead to are copied up ([`links`]). Both follow paths through all layers ([`follow`]).

mod budget;
mod follow;
mod links;
mod merge;

pub(crate) use budget::CopyBudget;

use super::LayerError;
use super::convert::Draft;
use super::lower::{LowerDir, LowerEntry, LowerLayers};
use super::tree::{DentryId, Inode, InodeId, ROOT, Tree};
use crate::erofs::{DataWriter, Node, Spool, Written, write_metadata};
use crate::limits::Limits;
use std::fs::File;
use std::io::BufReader;

/// Completes a layer's image in `image`, which has the draft's data already.
pub(crate) fn finish(
    draft: &Draft,
    image: File,
    lower: &LowerLayers,
    limits: &Limits,
    budget: &mut CopyBudget,
) -> Result<(File, Written), LayerError> {
    let mut input = BufReader::new(File::open(&draft.tree).map_err(LayerError::Write)?);
    let tree = Tree::restore(&mut input, limits).map_err(LayerError::Write)?;
    let spool = File::options().read(true).write(true).open(&draft.spool);
    let spool = spool.map_err(LayerError::Write)?;
    let sealed_from = draft.blocks;
    let mut resolver = Resolver {
        tree,
        data: DataWriter::new(image, draft.blocks),
        spool: Spool::new(spool, draft.spool_len),
        lower,
        budget,
    };
    resolver.merge_with_lower_layers()?;
    resolver.copy_up_link_targets(&draft.links)?;
    // Files that are copied up stand behind this layer's own data: its tar does not have them.
    write_metadata(
        &mut resolver.tree,
        resolver.data,
        &mut resolver.spool,
        Some(sealed_from),
    )
}

struct Resolver<'a> {
    tree: Tree,
    data: DataWriter,
    spool: Spool,
    lower: &'a LowerLayers,
    budget: &'a mut CopyBudget,
}

/// A directory of this layer, and the lower directory that overlayfs merges it with.
#[derive(Clone)]
struct MergedDir {
    dir: InodeId,
    lower: LowerDir,
}

impl Resolver<'_> {
    fn merged_root(&self) -> Result<MergedDir, LayerError> {
        Ok(self.merged(ROOT, LowerDir::root(self.lower)?))
    }

    /// A directory of this layer over a lower one, which it hides if it is opaque.
    fn merged(&self, dir: InodeId, lower: LowerDir) -> MergedDir {
        if self.tree.inode(dir).is_opaque() {
            let lower = LowerDir::default();
            return MergedDir { dir, lower };
        }
        MergedDir { dir, lower }
    }

    /// What the lower layers have under an entry's name, unless this layer whites it out.
    fn lower_entry(&self, parent: &MergedDir, dentry: DentryId) -> Result<LowerEntry, LayerError> {
        if self.tree.is_whited_out(dentry) {
            return Ok(LowerEntry::Absent);
        }
        let name = self.tree.name(dentry);
        Ok(parent.lower.entry(self.lower, name)?)
    }

    /// Gives a directory that no entry describes the metadata of the lower one.
    fn inherit_metadata(&mut self, dir: InodeId, lower: &LowerDir) -> Result<(), LayerError> {
        let Some(&(layer, node)) = lower.top() else {
            return Ok(());
        };
        if !self.tree.inode(dir).is_implied() {
            return Ok(());
        }
        let description = self.describe(layer, &node)?;
        self.tree.describe_dir(dir, description);
        Ok(())
    }

    /// An inode with a lower one's metadata and no content.
    fn describe(&mut self, layer: usize, node: &Node) -> Result<Inode, LayerError> {
        let mut xattrs = self.lower[layer].xattrs(node)?;
        xattrs.remove_markers();
        Ok(Inode {
            uid: node.uid,
            gid: node.gid,
            mtime: node.mtime.0,
            mtime_ns: node.mtime.1,
            xattr: self.tree.intern(&xattrs)?,
            ..Inode::of_mode(node.mode)
        })
    }
}
