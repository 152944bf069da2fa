//! Merging a layer's directories with those of the lower layers.

use super::follow::Walk;
use super::{MergedDir, Resolver};
use crate::layer::lower::{LowerDir, LowerEntry, LowerFile};
use crate::layer::path::MAX_SYMLINKS;
use crate::layer::tree::{DentryId, InodeId, ROOT};
use crate::layer::{LayerError, Problem, WalkError};

/// A directory whose entries are being merged.
struct OpenDir {
    merged: MergedDir,
    name: Vec<u8>,
    /// Entries still to look at, last first.
    todo: Vec<DentryId>,
}

/// What merging makes of one entry.
enum Merge {
    /// It stays as it is.
    Keep,
    /// The entry whites out what no lower layer has.
    DropWhiteout,
    /// The entry is a directory only because of the whiteouts in it, and a lower layer has a file
    /// there, beneath which nothing is to be hidden.
    DropDirectory,
    /// A lower layer has a symbolic link in place of this undescribed directory: what is in the
    /// directory belongs where the link leads.
    MoveBehindLink(LowerFile),
    /// A directory, and the lower one that it is merged with.
    Descend(InodeId, LowerDir),
}

impl Resolver<'_> {
    /// Merges the tree with the lower layers, again if something was moved behind a symbolic
    /// link: what was moved may be beneath further links.
    pub(super) fn merge_with_lower_layers(&mut self) -> Result<(), LayerError> {
        for _ in 0..MAX_SYMLINKS {
            if !self.merge_once()? {
                return Ok(());
            }
        }
        Err(Problem::SymlinkLoop.of(b"/"))
    }

    /// One walk over the tree; answers whether something was moved. Of each entry it is decided
    /// what becomes of it ([`Self::plan`], which changes nothing), then that is done. A directory's
    /// entries are listed when the walk gets to it, so entries that a move adds to it later wait
    /// for the next walk.
    fn merge_once(&mut self) -> Result<bool, LayerError> {
        let mut moved = false;
        self.inherit_metadata(ROOT, &LowerDir::root(self.lower)?)?;
        let root = self.merged_root()?;
        let mut open = vec![self.open(root, Vec::new())];
        while let Some(current) = open.last_mut() {
            let Some(dentry) = current.todo.pop() else {
                open.pop();
                continue;
            };
            let merge = self.plan(&current.merged, dentry);
            let path = || path_of(&open, self.tree.name(dentry));
            match merge.map_err(|error| error.at(&path()))? {
                Merge::Keep => {}
                Merge::DropWhiteout => self.tree.set_whited_out(dentry, false),
                Merge::DropDirectory => self.tree.set_inode(dentry, None),
                Merge::MoveBehindLink(link) => {
                    let path = path();
                    let trail = open.iter().map(|dir| dir.merged.clone()).collect();
                    self.move_behind_link(dentry, trail, &link)
                        .map_err(|error| error.at(&path))?;
                    moved = true;
                }
                Merge::Descend(dir, lower) => {
                    self.inherit_metadata(dir, &lower)?;
                    let name = self.tree.name(dentry).to_vec();
                    let merged = self.merged(dir, lower);
                    open.push(self.open(merged, name));
                }
            }
        }
        Ok(moved)
    }

    fn open(&self, merged: MergedDir, name: Vec<u8>) -> OpenDir {
        let todo = self.tree.children(merged.dir).collect();
        OpenDir { merged, name, todo }
    }

    /// Decides what becomes of an entry of a directory.
    fn plan(&self, parent: &MergedDir, dentry: DentryId) -> Result<Merge, WalkError> {
        let Some(inode) = self.tree.dentry(dentry).inode else {
            return self.plan_without_inode(parent, dentry);
        };
        if !self.tree.inode(inode).is_dir() {
            return Ok(Merge::Keep);
        }
        Ok(match self.lower_entry(parent, dentry)? {
            LowerEntry::Directory(lower) => Merge::Descend(inode, lower),
            LowerEntry::Other(file) if self.tree.inode(inode).is_implied() => {
                if file.is_symlink() {
                    Merge::MoveBehindLink(file)
                } else if self.holds_only_whiteouts(inode) {
                    Merge::DropDirectory
                } else {
                    return Err(WalkError::Problem(Problem::NotADirectory));
                }
            }
            LowerEntry::Absent | LowerEntry::Other(_) => Merge::Descend(inode, LowerDir::default()),
        })
    }

    fn plan_without_inode(&self, parent: &MergedDir, dentry: DentryId) -> Result<Merge, WalkError> {
        if self.tree.is_whited_out(dentry) {
            let name = self.tree.name(dentry);
            if let LowerEntry::Absent = parent.lower.entry(self.lower, name)? {
                return Ok(Merge::DropWhiteout);
            }
        }
        Ok(Merge::Keep)
    }

    /// Whether nothing is in an undescribed directory that would make it one.
    fn holds_only_whiteouts(&self, dir: InodeId) -> bool {
        let mut dirs = vec![dir];
        while let Some(dir) = dirs.pop() {
            for child in self.tree.children(dir) {
                let Some(inode) = self.tree.dentry(child).inode else {
                    continue;
                };
                if !self.tree.inode(inode).is_implied() {
                    return false;
                }
                dirs.push(inode);
            }
        }
        true
    }

    /// Moves what is in an undescribed directory to where the lower link of its name leads.
    /// `trail` is the directories above it, from the root.
    fn move_behind_link(
        &mut self,
        dentry: DentryId,
        trail: Vec<MergedDir>,
        link: &LowerFile,
    ) -> Result<(), WalkError> {
        let target = self.lower[link.layer].link_target(&link.node)?;
        let from = self.tree.dentry(dentry).inode;
        self.tree.set_inode(dentry, None);
        let to = self.follow(Walk::behind_link(trail, &target)?)?.dir;
        if let Some(from) = from {
            self.move_entries(from, to)?;
        }
        Ok(())
    }

    /// Moves the entries of one directory into another; what is there already stays.
    fn move_entries(&mut self, from: InodeId, to: InodeId) -> Result<(), LayerError> {
        let mut pairs = vec![(from, to)];
        while let Some((from, to)) = pairs.pop() {
            if self.tree.inode(from).is_opaque() {
                self.tree.inode_mut(to).set_opaque();
            }
            let children: Vec<DentryId> = self.tree.children(from).collect();
            for child in children {
                pairs.extend(self.move_entry(child, to)?);
            }
        }
        Ok(())
    }

    /// Moves one entry into a directory. Answers two directories if that has one of this name
    /// too: then the entries of the first belong in the second.
    fn move_entry(
        &mut self,
        entry: DentryId,
        to: InodeId,
    ) -> Result<Option<(InodeId, InodeId)>, LayerError> {
        let name = self.tree.name(entry).to_vec();
        let there = self.tree.entry(to, &name)?;
        if self.tree.is_whited_out(entry) {
            self.tree.set_whited_out(there, true);
        }
        let Some(inode) = self.tree.dentry(entry).inode else {
            return Ok(None);
        };
        let Some(old) = self.tree.dentry(there).inode else {
            self.tree.set_inode(there, Some(inode));
            return Ok(None);
        };
        if !self.tree.inode(old).is_dir() || !self.tree.inode(inode).is_dir() {
            return Ok(None);
        }
        if self.tree.inode(old).is_implied() && !self.tree.inode(inode).is_implied() {
            let description = *self.tree.inode(inode);
            self.tree.describe_dir(old, description);
        }
        Ok(Some((inode, old)))
    }
}

fn path_of(open: &[OpenDir], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::new();
    for dir in open.iter().skip(1) {
        path.extend_from_slice(&dir.name);
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}
