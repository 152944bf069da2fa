//! A layer's tree in memory: about 80 bytes an entry and its name, because a layer may have a
//! million of them.
//!
//! Names refer to inodes by number, so hard links are two names with one number. Removing is
//! letting go: what no name leads to any more is not written.

mod dump;
mod id;
mod inode;

pub(crate) use id::{DentryId, InodeId, ROOT};
pub(crate) use inode::{
    Content, Inode, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG,
};

use super::LayerError;
use crate::erofs::{XattrSet, XattrTable};
use crate::limits::Limits;
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};

/// A name in a directory. It may have been whited out, and have an inode or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dentry {
    pub parent: InodeId,
    /// Where its name is in the tree's names.
    name: u32,
    pub inode: Option<InodeId>,
    /// The entry that follows in its directory's list.
    pub next: Option<DentryId>,
}

#[derive(Debug)]
pub(crate) struct Tree {
    /// Names: a byte "whited out", a byte of length, the bytes.
    names: Vec<u8>,
    dentries: Vec<Dentry>,
    inodes: Vec<Inode>,
    pub xattrs: XattrTable,
    index: HashTable<DentryId>,
    hasher: RandomState,
    /// Bytes that entries and names may take, and take.
    max_bytes: u64,
    bytes: u64,
}

impl Tree {
    /// An empty layer.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            names: Vec::new(),
            dentries: Vec::new(),
            inodes: vec![Inode::implied_dir()],
            xattrs: XattrTable::new(limits.max_layer_xattr_bytes),
            index: HashTable::new(),
            hasher: RandomState::new(),
            max_bytes: limits.max_layer_memory_bytes,
            bytes: 0,
        }
    }

    pub(crate) fn inode(&self, inode: InodeId) -> &Inode {
        &self.inodes[inode.index()]
    }

    pub(crate) fn inode_mut(&mut self, inode: InodeId) -> &mut Inode {
        &mut self.inodes[inode.index()]
    }

    /// How many inodes there are, also of those that no name leads to.
    pub(crate) const fn inode_count(&self) -> usize {
        self.inodes.len()
    }

    pub(crate) fn dentry(&self, dentry: DentryId) -> &Dentry {
        &self.dentries[dentry.index()]
    }

    /// Every entry, also of directories that no name leads to any more.
    pub(crate) fn dentries(&self) -> &[Dentry] {
        &self.dentries
    }

    /// Lets a name lead to an inode, or to none.
    pub(crate) fn set_inode(&mut self, dentry: DentryId, inode: Option<InodeId>) {
        self.dentries[dentry.index()].inode = inode;
    }

    /// Lets every name that leads to an inode lead to the one that `replacement` has for it.
    pub(crate) fn replace_inodes(&mut self, replacement: impl Fn(InodeId) -> InodeId) {
        for dentry in &mut self.dentries {
            dentry.inode = dentry.inode.map(&replacement);
        }
    }

    pub(crate) fn name(&self, dentry: DentryId) -> &[u8] {
        name_at(&self.names, self.dentry(dentry).name)
    }

    /// Whether the layer says that what has this name in the layers below is gone.
    pub(crate) fn is_whited_out(&self, dentry: DentryId) -> bool {
        self.names[self.dentry(dentry).name as usize] != 0
    }

    pub(crate) fn set_whited_out(&mut self, dentry: DentryId, gone: bool) {
        let at = self.dentry(dentry).name as usize;
        self.names[at] = gone.into();
    }

    /// Entries of a directory, in no order until the tree is laid out.
    pub(crate) fn children(&self, dir: InodeId) -> impl Iterator<Item = DentryId> + '_ {
        std::iter::successors(self.inode(dir).first_entry(), |&current| {
            self.dentry(current).next
        })
    }

    /// Makes `children` the list of a directory's entries, in this order.
    pub(crate) fn set_children(&mut self, dir: InodeId, children: &[DentryId]) {
        let mut next = None;
        for &child in children.iter().rev() {
            self.dentries[child.index()].next = next;
            next = Some(child);
        }
        self.set_first(dir, next);
    }

    fn set_first(&mut self, dir: InodeId, entry: Option<DentryId>) {
        if let Content::Directory { first, .. } = &mut self.inode_mut(dir).content {
            *first = entry;
        }
    }

    pub(crate) fn lookup(&self, dir: InodeId, name: &[u8]) -> Option<DentryId> {
        self.index
            .find(self.hash(dir, name), |&other| {
                self.dentry(other).parent == dir && self.name(other) == name
            })
            .copied()
    }

    /// The entry of this name, made (without an inode) if there is none.
    pub(crate) fn entry(&mut self, dir: InodeId, name: &[u8]) -> Result<DentryId, LayerError> {
        if let Some(found) = self.lookup(dir, name) {
            return Ok(found);
        }
        self.charge(entry_bytes(name.len()))?;
        // Callers pass path components, which are at most 255 bytes.
        let len = u8::try_from(name.len()).unwrap_or(u8::MAX);
        // `charge` keeps the names within 32 bits.
        let start = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.extend_from_slice(&[0, len]);
        self.names.extend_from_slice(&name[..usize::from(len)]);
        let dentry = DentryId::at(self.dentries.len());
        self.dentries.push(Dentry {
            parent: dir,
            name: start,
            inode: None,
            next: self.inode(dir).first_entry(),
        });
        self.set_first(dir, Some(dentry));
        self.add_to_index(dentry);
        Ok(dentry)
    }

    fn charge(&mut self, bytes: usize) -> Result<(), LayerError> {
        self.bytes += bytes as u64;
        // Places are 32-bit, whatever a user allows.
        let full = [self.names.len(), self.dentries.len(), self.inodes.len()]
            .iter()
            .any(|&len| len >= u32::MAX as usize - bytes);
        if full {
            return Err(LayerError::TooLarge);
        }
        if self.bytes > self.max_bytes {
            return Err(LayerError::TooMany {
                what: "bytes of entries and names (images.layer_memory_mib in the configuration file \
                       allows more)",
                limit: self.max_bytes,
            });
        }
        Ok(())
    }

    pub(crate) fn add_inode(&mut self, inode: Inode) -> Result<InodeId, LayerError> {
        self.charge(size_of::<Inode>())?;
        Ok(self.push_inode(inode))
    }

    /// Adds the inode that all whiteouts share, which costs nothing of what the tar may use.
    pub(crate) fn add_whiteout(&mut self) -> InodeId {
        self.push_inode(Inode {
            content: Content::Device(0),
            ..Inode::of_mode(S_IFCHR)
        })
    }

    fn push_inode(&mut self, inode: Inode) -> InodeId {
        let id = InodeId::at(self.inodes.len());
        self.inodes.push(inode);
        id
    }

    /// A directory of this name that nothing describes.
    pub(crate) fn add_implied_dir(&mut self, dentry: DentryId) -> Result<InodeId, LayerError> {
        let inode = self.add_inode(Inode::implied_dir())?;
        self.set_inode(dentry, Some(inode));
        Ok(inode)
    }

    /// Lets an entry lead to an inode. A directory that takes a directory's place keeps what is
    /// in it: it only gets the new one's description.
    pub(crate) fn place(&mut self, dentry: DentryId, inode: Inode) -> Result<(), LayerError> {
        if let Some(old) = self.dentry(dentry).inode
            && inode.is_dir()
            && self.inode(old).is_dir()
        {
            self.describe_dir(old, inode);
            return Ok(());
        }
        let new = self.add_inode(inode)?;
        self.set_inode(dentry, Some(new));
        Ok(())
    }

    /// Gives a directory the metadata of `description`, which makes it described; its entries
    /// and whether it is opaque stay.
    pub(crate) fn describe_dir(&mut self, dir: InodeId, description: Inode) {
        if let Content::Directory { first, opaque, .. } = self.inode(dir).content {
            *self.inode_mut(dir) = Inode {
                content: Content::Directory {
                    first,
                    implied: false,
                    opaque,
                },
                ..description
            };
        }
    }

    pub(crate) fn intern(&mut self, set: &XattrSet) -> Result<u32, LayerError> {
        self.xattrs.intern(set).ok_or(LayerError::TooMany {
            what: "bytes of extended attributes",
            limit: 0,
        })
    }

    /// Gives back what only looking up by name needs.
    pub(crate) fn drop_index(&mut self) {
        self.index = HashTable::new();
    }

    fn add_to_index(&mut self, dentry: DentryId) {
        let hash = self.hash(self.dentry(dentry).parent, self.name(dentry));
        let (names, dentries, hasher) = (&self.names, &self.dentries, &self.hasher);
        self.index.insert_unique(hash, dentry, |&other| {
            let other = &dentries[other.index()];
            self::hash(hasher, other.parent, name_at(names, other.name))
        });
    }

    fn hash(&self, dir: InodeId, name: &[u8]) -> u64 {
        hash(&self.hasher, dir, name)
    }
}

/// Names are the author's choice: a keyed hash keeps them from all falling together.
fn hash(hasher: &RandomState, dir: InodeId, name: &[u8]) -> u64 {
    hasher.hash_one((dir, name))
}

/// What an entry takes: itself, its name with two bytes before it, and its share of the index.
const fn entry_bytes(name: usize) -> usize {
    size_of::<Dentry>() + name + 2 + 2 * size_of::<u32>()
}

fn name_at(names: &[u8], start: u32) -> &[u8] {
    let start = start as usize;
    let len = usize::from(names[start + 1]);
    &names[start + 2..start + 2 + len]
}
