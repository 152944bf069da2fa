//! Following a path through a layer and its lower layers.

use super::{MergedDir, Resolver};
use crate::layer::convert::read_target;
use crate::layer::lower::{LowerDir, LowerEntry};
use crate::layer::path::{self, MAX_SYMLINKS};
use crate::layer::tree::{InodeId, S_IFDIR, S_IFLNK};
use crate::layer::{LayerError, Problem, WalkError};
use std::collections::VecDeque;

/// Names still to follow, and the directories that led here, from the root.
pub(super) struct Walk {
    trail: Vec<MergedDir>,
    todo: VecDeque<Vec<u8>>,
    /// Symbolic links so far.
    links: usize,
}

impl Walk {
    /// Along these names from the root.
    pub(super) fn from_root(root: MergedDir, names: &[&[u8]]) -> Self {
        Self {
            trail: vec![root],
            todo: names.iter().map(|name| name.to_vec()).collect(),
            links: 0,
        }
    }

    /// Along the target of a symbolic link in the last of these directories.
    pub(super) fn behind_link(trail: Vec<MergedDir>, target: &[u8]) -> Result<Self, WalkError> {
        let mut walk = Self {
            trail,
            todo: VecDeque::new(),
            links: 1,
        };
        walk.expand(target)?;
        Ok(walk)
    }

    /// Puts a link's target before the names still to follow.
    fn expand(&mut self, target: &[u8]) -> Result<(), WalkError> {
        self.links += 1;
        if self.links > MAX_SYMLINKS {
            return Err(WalkError::Problem(Problem::SymlinkLoop));
        }
        if target.starts_with(b"/") {
            self.trail.truncate(1);
        }
        path::expand(target, &mut self.todo).map_err(WalkError::Problem)
    }
}

impl Resolver<'_> {
    /// The directory that a walk ends in; what is missing of it is made in this layer.
    pub(super) fn follow(&mut self, mut walk: Walk) -> Result<MergedDir, WalkError> {
        while let Some(name) = walk.todo.pop_front() {
            if name == b".." {
                if walk.trail.len() > 1 {
                    walk.trail.pop();
                }
                continue;
            }
            let Some(here) = walk.trail.last().cloned() else {
                break;
            };
            let dentry = self.tree.lookup(here.dir, &name);
            if let Some(dentry) = dentry
                && let Some(inode) = self.tree.dentry(dentry).inode
            {
                let node = *self.tree.inode(inode);
                match node.kind() {
                    S_IFDIR => {
                        let lower = match self.lower_entry(&here, dentry)? {
                            LowerEntry::Directory(lower) => lower,
                            LowerEntry::Absent | LowerEntry::Other(_) => LowerDir::default(),
                        };
                        walk.trail.push(self.merged(inode, lower));
                    }
                    S_IFLNK => {
                        let target = read_target(&mut self.data, &mut self.spool, &node)?;
                        walk.expand(&target)?;
                    }
                    _ => return Err(WalkError::Problem(Problem::NotADirectory)),
                }
                continue;
            }
            let entry = match dentry {
                Some(dentry) => self.lower_entry(&here, dentry)?,
                None => here.lower.entry(self.lower, &name)?,
            };
            let lower = match entry {
                LowerEntry::Other(file) if file.is_symlink() => {
                    let target = self.lower[file.layer].link_target(&file.node)?;
                    walk.expand(&target)?;
                    continue;
                }
                LowerEntry::Other(_) => return Err(WalkError::Problem(Problem::NotADirectory)),
                LowerEntry::Absent => LowerDir::default(),
                LowerEntry::Directory(lower) => lower,
            };
            walk.trail.push(self.make_dir(here.dir, &name, lower)?);
        }
        walk.trail
            .pop()
            .ok_or(WalkError::Problem(Problem::NotADirectory))
    }

    fn make_dir(
        &mut self,
        parent: InodeId,
        name: &[u8],
        lower: LowerDir,
    ) -> Result<MergedDir, LayerError> {
        let dentry = self.tree.entry(parent, name)?;
        let dir = self.tree.add_implied_dir(dentry)?;
        self.inherit_metadata(dir, &lower)?;
        Ok(MergedDir { dir, lower })
    }
}
