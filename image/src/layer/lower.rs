//! What the lower layers hold, merged as overlayfs merges them.

use super::tree::{S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT};
use crate::erofs::{ErofsError, Node, Reader};

/// The finished images of the lower layers, highest first.
pub(crate) type LowerLayers = [Reader];

/// A directory as the lower layers have it: its inode in each of them that is part of the merged
/// directory, highest first. Without any, no lower layer has the directory.
#[derive(Debug, Clone, Default)]
pub(super) struct LowerDir {
    parts: Vec<(usize, Node)>,
}

/// What a name leads to in the lower layers.
#[derive(Debug)]
pub(super) enum LowerEntry {
    /// Nothing, or it is whited out.
    Absent,
    Directory(LowerDir),
    /// A file of any other type, and the layer it is in.
    Other(LowerFile),
}

/// An inode of a lower layer that is no directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct LowerFile {
    /// Which of the lower layers.
    pub layer: usize,
    pub node: Node,
}

impl LowerFile {
    pub(super) const fn is_symlink(&self) -> bool {
        self.node.mode & S_IFMT == S_IFLNK
    }
}

impl LowerDir {
    /// The root of all lower layers.
    pub(super) fn root(layers: &LowerLayers) -> Result<Self, ErofsError> {
        let mut merged = Self::default();
        for (layer, reader) in layers.iter().enumerate() {
            let root = reader.root()?;
            merged.parts.push((layer, root));
            if reader.xattrs(&root)?.is_opaque() {
                break;
            }
        }
        Ok(merged)
    }

    /// The part whose metadata the merged directory has, and its layer.
    pub(super) fn top(&self) -> Option<&(usize, Node)> {
        self.parts.first()
    }

    pub(super) fn entry(
        &self,
        layers: &LowerLayers,
        name: &[u8],
    ) -> Result<LowerEntry, ErofsError> {
        let mut found = Self::default();
        for &(layer, dir) in &self.parts {
            let reader = &layers[layer];
            let Some(node) = reader.lookup(&dir, name)? else {
                continue;
            };
            if node.mode & S_IFMT == S_IFDIR {
                found.parts.push((layer, node));
                if reader.xattrs(&node)?.is_opaque() {
                    break;
                }
                continue;
            }
            let is_whiteout = node.mode & S_IFMT == S_IFCHR && node.address == 0;
            if found.parts.is_empty() && !is_whiteout {
                return Ok(LowerEntry::Other(LowerFile { layer, node }));
            }
            break;
        }
        Ok(if found.parts.is_empty() {
            LowerEntry::Absent
        } else {
            LowerEntry::Directory(found)
        })
    }
}
