//! What the layers below hold, seen as overlayfs shows them.

use super::tree::{S_IFCHR, S_IFDIR, S_IFMT};
use crate::erofs::{ErofsError, Node, Reader};

/// The finished images of the layers below, highest first.
pub(crate) type Chain = [Reader];

/// A directory of the layers below: its part in each of them, highest first. Without parts it
/// is nowhere below.
#[derive(Debug, Clone, Default)]
pub(super) struct Below {
    parts: Vec<(usize, Node)>,
}

/// What a name leads to below.
#[derive(Debug)]
pub(super) enum Child {
    Nothing,
    Dir(Below),
    /// Anything else, and the layer it is in.
    Other(usize, Node),
}

impl Below {
    /// The root of all layers.
    pub(super) fn root(chain: &Chain) -> Result<Self, ErofsError> {
        let mut below = Self::default();
        for (layer, reader) in chain.iter().enumerate() {
            let root = reader.root()?;
            below.parts.push((layer, root));
            if reader.xattrs(&root)?.is_opaque() {
                break;
            }
        }
        Ok(below)
    }

    /// The part whose metadata shows.
    pub(super) fn top(&self) -> Option<&(usize, Node)> {
        self.parts.first()
    }

    pub(super) fn child(&self, chain: &Chain, name: &[u8]) -> Result<Child, ErofsError> {
        let mut found = Self::default();
        for (layer, dir) in &self.parts {
            let reader = &chain[*layer];
            let Some(node) = reader.lookup(dir, name)? else {
                continue;
            };
            if node.mode & S_IFMT == S_IFDIR {
                found.parts.push((*layer, node));
                if reader.xattrs(&node)?.is_opaque() {
                    break;
                }
                continue;
            }
            let is_whiteout = node.mode & S_IFMT == S_IFCHR && node.address == 0;
            if found.parts.is_empty() && !is_whiteout {
                return Ok(Child::Other(*layer, node));
            }
            break;
        }
        Ok(if found.parts.is_empty() {
            Child::Nothing
        } else {
            Child::Dir(found)
        })
    }
}
