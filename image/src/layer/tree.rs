//! A layer's tree in memory: about 80 bytes an entry and its name, because a layer may have a
//! million of them.
//!
//! Names refer to inodes by number, so hard links are two names with one number. Removing is
//! letting go: what no name leads to any more is not written.

use super::LayerError;
use crate::erofs::{BLOCK_SIZE, CHUNK_ENTRY, XattrSet, XattrTable};
use crate::limits::Limits;
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};

/// No entry, no inode.
pub(crate) const NONE: u32 = u32::MAX;
/// The root directory's inode.
pub(crate) const ROOT: u32 = 0;

/// The part of a mode that says what an inode is.
pub(crate) const S_IFMT: u16 = 0o170_000;
pub(crate) const S_IFIFO: u16 = 0o010_000;
pub(crate) const S_IFCHR: u16 = 0o020_000;
pub(crate) const S_IFDIR: u16 = 0o040_000;
pub(crate) const S_IFBLK: u16 = 0o060_000;
pub(crate) const S_IFREG: u16 = 0o100_000;
pub(crate) const S_IFLNK: u16 = 0o120_000;

/// Flags of an inode.
pub(crate) mod flag {
    /// `data` is a position in the spool: the tail, and where the blocks before it begin; or the
    /// list of chunks.
    pub(crate) const SPOOLED: u16 = 1;
    /// A directory that no entry describes: only that something is beneath it is known.
    pub(crate) const IMPLIED: u16 = 2;
    /// A directory that hides the one of its name in the layers below.
    pub(crate) const OPAQUE: u16 = 4;
    /// A hard link to something that is not in this layer: `data` is its number.
    pub(crate) const PENDING: u16 = 8;
    /// A sparse file, made of chunks.
    pub(super) const CHUNKED: u16 = 16;
    /// Where the log2 of a chunk's blocks stands in the flags.
    pub(super) const CHUNK_SHIFT: u32 = 8;
}

/// An inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Inode {
    pub mtime: i64,
    /// Bytes of data; of a directory, see [`Inode::dir_extent`].
    pub size: u64,
    pub uid: u32,
    pub gid: u32,
    pub mtime_ns: u32,
    /// First block or spool position; first entry of a directory; device number.
    pub data: u32,
    /// Number in the table of attribute sets.
    pub xattr: u32,
    /// Counted when the tree is laid out.
    pub nlink: u32,
    /// Place in the image, when it has one.
    pub nid: u32,
    /// Type and permissions.
    pub mode: u16,
    pub flags: u16,
}

impl Inode {
    pub(crate) const fn kind(&self) -> u16 {
        self.mode & S_IFMT
    }

    pub(crate) const fn is_dir(&self) -> bool {
        self.kind() == S_IFDIR
    }

    pub(crate) const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// log2 of the blocks of a chunk, if the file is made of chunks.
    pub(crate) const fn chunk_bits(&self) -> Option<u8> {
        match self.has(flag::CHUNKED) {
            true => Some((self.flags >> flag::CHUNK_SHIFT) as u8),
            false => None,
        }
    }

    pub(crate) fn set_chunk_bits(&mut self, bits: u8) {
        self.flags |= flag::CHUNKED | u16::from(bits) << flag::CHUNK_SHIFT;
    }

    /// Bytes of the list of its chunks.
    pub(crate) fn chunk_list_len(&self) -> usize {
        self.chunk_bits().map_or(0, |bits| {
            let chunks = self.size.div_ceil((BLOCK_SIZE as u64) << bits);
            usize::try_from(chunks).unwrap_or(usize::MAX) * CHUNK_ENTRY
        })
    }

    /// A laid-out directory's first block and its size in bytes.
    #[expect(clippy::cast_possible_truncation, reason = "two halves of one word")]
    pub(crate) const fn dir_extent(&self) -> (u32, u32) {
        ((self.size >> 32) as u32, self.size as u32)
    }

    pub(crate) fn set_dir_extent(&mut self, block: u32, bytes: u32) {
        self.size = u64::from(block) << 32 | u64::from(bytes);
    }

    fn implied_dir() -> Self {
        Self {
            mode: S_IFDIR | 0o755,
            flags: flag::IMPLIED,
            data: NONE,
            ..Self::default()
        }
    }
}

/// A name in a directory. It may have been whited out, and have an inode or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dentry {
    pub parent: u32,
    name: u32,
    pub inode: u32,
    pub next: u32,
}

#[derive(Debug)]
pub(crate) struct Tree {
    /// Names: a byte "whited out", a byte of length, the bytes.
    names: Vec<u8>,
    pub dentries: Vec<Dentry>,
    pub inodes: Vec<Inode>,
    pub xattrs: XattrTable,
    index: HashTable<u32>,
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

    pub(crate) fn inode(&self, inode: u32) -> &Inode {
        &self.inodes[inode as usize]
    }

    pub(crate) fn inode_mut(&mut self, inode: u32) -> &mut Inode {
        &mut self.inodes[inode as usize]
    }

    pub(crate) fn dentry(&self, dentry: u32) -> &Dentry {
        &self.dentries[dentry as usize]
    }

    pub(crate) fn name(&self, dentry: u32) -> &[u8] {
        name_at(&self.names, self.dentries[dentry as usize].name)
    }

    /// Whether the layer says that what has this name in the layers below is gone.
    pub(crate) fn is_whited_out(&self, dentry: u32) -> bool {
        self.names[self.dentries[dentry as usize].name as usize] != 0
    }

    pub(crate) fn set_whited_out(&mut self, dentry: u32, gone: bool) {
        let at = self.dentries[dentry as usize].name as usize;
        self.names[at] = gone.into();
    }

    /// Entries of a directory, in no order until the tree is laid out.
    pub(crate) fn children(&self, dir: u32) -> impl Iterator<Item = u32> + '_ {
        let mut next = self.inode(dir).data;
        std::iter::from_fn(move || {
            let current = (next != NONE).then_some(next)?;
            next = self.dentries[current as usize].next;
            Some(current)
        })
    }

    pub(crate) fn lookup(&self, dir: u32, name: &[u8]) -> Option<u32> {
        self.index
            .find(self.hash(dir, name), |&other| {
                self.dentries[other as usize].parent == dir && self.name(other) == name
            })
            .copied()
    }

    /// The entry of this name, made (without an inode) if there is none.
    pub(crate) fn entry(&mut self, dir: u32, name: &[u8]) -> Result<u32, LayerError> {
        if let Some(found) = self.lookup(dir, name) {
            return Ok(found);
        }
        self.charge(entry_bytes(name.len()))?;
        // Callers pass path components, which are at most 255 bytes.
        let len = u8::try_from(name.len()).unwrap_or(u8::MAX);
        let start = number(self.names.len());
        self.names.extend_from_slice(&[0, len]);
        self.names.extend_from_slice(&name[..usize::from(len)]);
        let dentry = number(self.dentries.len());
        self.dentries.push(Dentry {
            parent: dir,
            name: start,
            inode: NONE,
            next: self.inode(dir).data,
        });
        self.inode_mut(dir).data = dentry;
        self.add_to_index(dentry);
        Ok(dentry)
    }

    fn charge(&mut self, bytes: usize) -> Result<(), LayerError> {
        self.bytes += bytes as u64;
        // Places are 32-bit, whatever a user allows.
        let full = [self.names.len(), self.dentries.len(), self.inodes.len()]
            .iter()
            .any(|&len| len >= NONE as usize - bytes);
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

    pub(crate) fn add_inode(&mut self, inode: Inode) -> Result<u32, LayerError> {
        self.charge(size_of::<Inode>())?;
        let number = number(self.inodes.len());
        self.inodes.push(inode);
        Ok(number)
    }

    /// A directory of this name that nothing describes.
    pub(crate) fn add_implied_dir(&mut self, dentry: u32) -> Result<u32, LayerError> {
        let inode = self.add_inode(Inode::implied_dir())?;
        self.dentries[dentry as usize].inode = inode;
        Ok(inode)
    }

    /// Lets an entry lead to an inode. A directory that takes a directory's place keeps what is
    /// in it: it only gets the new one's description.
    pub(crate) fn place(&mut self, dentry: u32, inode: Inode) -> Result<(), LayerError> {
        let old = self.dentry(dentry).inode;
        if inode.is_dir() && old != NONE && self.inode(old).is_dir() {
            self.describe_dir(old, inode);
            return Ok(());
        }
        let new = self.add_inode(inode)?;
        self.dentries[dentry as usize].inode = new;
        Ok(())
    }

    /// Gives a directory its metadata, keeping its entries.
    pub(crate) fn describe_dir(&mut self, dir: u32, description: Inode) {
        let old = *self.inode(dir);
        *self.inode_mut(dir) = Inode {
            data: old.data,
            flags: old.flags & flag::OPAQUE,
            ..description
        };
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

    fn add_to_index(&mut self, dentry: u32) {
        let entry = self.dentries[dentry as usize];
        let hash = hash(&self.hasher, entry.parent, self.name(dentry));
        let (names, dentries, hasher) = (&self.names, &self.dentries, &self.hasher);
        self.index.insert_unique(hash, dentry, |&other| {
            let other = &dentries[other as usize];
            self::hash(hasher, other.parent, name_at(names, other.name))
        });
    }

    fn hash(&self, dir: u32, name: &[u8]) -> u64 {
        hash(&self.hasher, dir, name)
    }
}

/// Names are the author's choice: a keyed hash keeps them from all falling together.
fn hash(hasher: &RandomState, dir: u32, name: &[u8]) -> u64 {
    hasher.hash_one((dir, name))
}

/// Bounded where entries and names are added.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(NONE)
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

// Setting a tree aside in a file, for layers whose meaning depends on layers not yet seen.
impl Tree {
    /// Writes the tree to where [`Self::restore`] can read it.
    pub(crate) fn dump(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        let counts = [
            self.names.len(),
            self.dentries.len(),
            self.inodes.len(),
            self.xattrs.as_bytes().len(),
        ];
        for count in counts {
            out.write_all(&(count as u64).to_le_bytes())?;
        }
        out.write_all(&self.names)?;
        for d in &self.dentries {
            for word in [d.parent, d.name, d.inode, d.next] {
                out.write_all(&word.to_le_bytes())?;
            }
        }
        for i in &self.inodes {
            out.write_all(&i.mtime.to_le_bytes())?;
            out.write_all(&i.size.to_le_bytes())?;
            for word in [i.uid, i.gid, i.mtime_ns, i.data, i.xattr] {
                out.write_all(&word.to_le_bytes())?;
            }
            out.write_all(&i.mode.to_le_bytes())?;
            out.write_all(&i.flags.to_le_bytes())?;
        }
        out.write_all(self.xattrs.as_bytes())
    }

    /// Reads what [`Self::dump`] wrote: our own bytes, from our own staging directory.
    pub(crate) fn restore(
        input: &mut impl std::io::Read,
        limits: &Limits,
    ) -> std::io::Result<Self> {
        let [names, dentries, inodes, xattrs] = [
            read_u64(input)?,
            read_u64(input)?,
            read_u64(input)?,
            read_u64(input)?,
        ];
        let mut tree = Self::new(limits);
        tree.names = read_bytes(input, names)?;
        for _ in 0..dentries {
            let [parent, name, inode, next] = read_words(input)?;
            tree.dentries.push(Dentry {
                parent,
                name,
                inode,
                next,
            });
        }
        tree.inodes.clear();
        for _ in 0..inodes {
            let mtime = read_u64(input)?.cast_signed();
            let size = read_u64(input)?;
            let [uid, gid, mtime_ns, data, xattr, mode_and_flags] = read_words(input)?;
            tree.inodes.push(Inode {
                mtime,
                size,
                uid,
                gid,
                mtime_ns,
                data,
                xattr,
                nlink: 0,
                nid: 0,
                mode: (mode_and_flags & 0xffff) as u16,
                flags: (mode_and_flags >> 16) as u16,
            });
        }
        tree.xattrs =
            XattrTable::from_bytes(read_bytes(input, xattrs)?, limits.max_layer_xattr_bytes);
        for dentry in 0..number(tree.dentries.len()) {
            tree.add_to_index(dentry);
        }
        let entries = tree.dentries.len() * entry_bytes(0) + tree.inodes.len() * size_of::<Inode>();
        tree.bytes = (entries + tree.names.len()) as u64;
        Ok(tree)
    }
}

fn read_u64(input: &mut impl std::io::Read) -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    input.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn read_words<const N: usize>(input: &mut impl std::io::Read) -> std::io::Result<[u32; N]> {
    let mut words = [0; N];
    for word in &mut words {
        let mut bytes = [0; 4];
        input.read_exact(&mut bytes)?;
        *word = u32::from_le_bytes(bytes);
    }
    Ok(words)
}

fn read_bytes(input: &mut impl std::io::Read, len: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(input, len), &mut bytes)?;
    Ok(bytes)
}
