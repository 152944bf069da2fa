//! Setting a tree aside in a file, for layers whose meaning depends on layers not yet seen.

use super::inode::{Content, Inode};
use super::{Dentry, DentryId, InodeId, Tree};
use crate::erofs::XattrTable;
use crate::limits::Limits;
use std::io::{self, Read, Write};

impl Tree {
    /// Writes the tree to where [`Self::restore`] can read it.
    pub(crate) fn dump(&self, out: &mut impl Write) -> io::Result<()> {
        let counts = [
            self.names.len(),
            self.dentries.len(),
            self.inodes.len(),
            self.xattrs.as_bytes().len(),
        ];
        for count in counts {
            out.write_all(&(count as u64).to_le_bytes())?;
        }
        out.write_all(&self.bytes.to_le_bytes())?;
        out.write_all(&self.names)?;
        for dentry in &self.dentries {
            let inode = dentry.inode.map_or(0, InodeId::get);
            let next = dentry.next.map_or(0, DentryId::get);
            for word in [dentry.parent.get(), dentry.name, inode, next] {
                out.write_all(&word.to_le_bytes())?;
            }
        }
        for inode in &self.inodes {
            dump_inode(inode, out)?;
        }
        out.write_all(self.xattrs.as_bytes())
    }

    /// Reads what [`Self::dump`] wrote: our own bytes, from our own staging directory.
    pub(crate) fn restore(input: &mut impl Read, limits: &Limits) -> io::Result<Self> {
        let [names, dentries, inodes, xattrs] = [
            read_u64(input)?,
            read_u64(input)?,
            read_u64(input)?,
            read_u64(input)?,
        ];
        let mut tree = Self::new(limits);
        tree.bytes = read_u64(input)?;
        tree.names = read_bytes(input, names)?;
        for _ in 0..dentries {
            let [parent, name, inode, next] = read_words(input)?;
            tree.dentries.push(Dentry {
                parent: InodeId::new(parent).ok_or_else(damaged)?,
                name,
                inode: InodeId::new(inode),
                next: DentryId::new(next),
            });
        }
        tree.inodes.clear();
        for _ in 0..inodes {
            tree.inodes.push(restore_inode(input)?);
        }
        let limit = limits.max_layer_xattr_bytes;
        tree.xattrs = XattrTable::from_bytes(read_bytes(input, xattrs)?, limit);
        for index in 0..tree.dentries.len() {
            tree.add_to_index(DentryId::at(index));
        }
        Ok(tree)
    }
}

fn dump_inode(inode: &Inode, out: &mut impl Write) -> io::Result<()> {
    out.write_all(&inode.mtime.to_le_bytes())?;
    out.write_all(&inode.size.to_le_bytes())?;
    let (tag, detail, number) = encode(inode.content);
    let words = [inode.uid, inode.gid, inode.mtime_ns, inode.xattr, number];
    for word in words {
        out.write_all(&word.to_le_bytes())?;
    }
    out.write_all(&inode.mode.to_le_bytes())?;
    out.write_all(&[tag, detail])
}

fn restore_inode(input: &mut impl Read) -> io::Result<Inode> {
    let mtime = read_u64(input)?.cast_signed();
    let size = read_u64(input)?;
    let [uid, gid, mtime_ns, xattr, number] = read_words(input)?;
    let mut rest = [0; 4];
    input.read_exact(&mut rest)?;
    let [low, high, tag, detail] = rest;
    Ok(Inode {
        mode: u16::from_le_bytes([low, high]),
        uid,
        gid,
        mtime,
        mtime_ns,
        xattr,
        size,
        content: decode(tag, detail, number).ok_or_else(damaged)?,
    })
}

const IMPLIED: u8 = 1;
const OPAQUE: u8 = 2;

/// Which content it is, a detail of it, and its number.
fn encode(content: Content) -> (u8, u8, u32) {
    match content {
        Content::Empty => (0, 0, 0),
        Content::Blocks(block) => (1, 0, block),
        Content::Inline(position) => (2, 0, position),
        Content::Chunks { list, bits } => (3, bits, list),
        Content::Device(number) => (4, 0, number),
        Content::Directory {
            first,
            implied,
            opaque,
        } => {
            let implied = if implied { IMPLIED } else { 0 };
            let opaque = if opaque { OPAQUE } else { 0 };
            (5, implied | opaque, first.map_or(0, DentryId::get))
        }
        Content::PendingLink(link) => (6, 0, link),
    }
}

fn decode(tag: u8, detail: u8, number: u32) -> Option<Content> {
    Some(match tag {
        0 => Content::Empty,
        1 => Content::Blocks(number),
        2 => Content::Inline(number),
        3 => Content::Chunks {
            list: number,
            bits: detail,
        },
        4 => Content::Device(number),
        5 => Content::Directory {
            first: DentryId::new(number),
            implied: detail & IMPLIED != 0,
            opaque: detail & OPAQUE != 0,
        },
        6 => Content::PendingLink(number),
        _ => return None,
    })
}

fn damaged() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}

fn read_u64(input: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    input.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn read_words<const N: usize>(input: &mut impl Read) -> io::Result<[u32; N]> {
    let mut words = [0; N];
    for word in &mut words {
        let mut bytes = [0; 4];
        input.read_exact(&mut bytes)?;
        *word = u32::from_le_bytes(bytes);
    }
    Ok(words)
}

fn read_bytes(input: &mut impl Read, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    Read::read_to_end(&mut Read::take(input, len), &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::erofs::XattrSet;
    use crate::layer::tree::ROOT;

    #[test]
    fn a_restored_tree_is_the_same_and_can_grow() {
        let limits = Limits::default();
        let mut tree = Tree::new(&limits);
        let mut set = XattrSet::default();
        assert!(set.insert(b"user.key", b"value"));
        let xattr = tree.intern(&set).unwrap();
        let first = tree.entry(ROOT, b"first").unwrap();
        let dir = tree.add_implied_dir(first).unwrap();
        tree.inode_mut(dir).set_opaque();
        for (name, content) in [
            ("blocks", Content::Blocks(u32::MAX)),
            ("inline", Content::Inline(7)),
            ("chunks", Content::Chunks { list: 9, bits: 28 }),
            ("device", Content::Device(0x103)),
            ("pending", Content::PendingLink(3)),
            ("empty", Content::Empty),
        ] {
            let dentry = tree.entry(dir, name.as_bytes()).unwrap();
            let inode = Inode {
                mtime: -2,
                mtime_ns: 5,
                size: 1 << 40,
                uid: 4_000_000_000,
                gid: 1,
                xattr,
                content,
                ..Inode::of_mode(0o104_755)
            };
            tree.place(dentry, inode).unwrap();
        }
        let gone = tree.entry(dir, b"gone").unwrap();
        tree.set_whited_out(gone, true);

        let mut bytes = Vec::new();
        tree.dump(&mut bytes).unwrap();
        let mut restored = Tree::restore(&mut &bytes[..], &limits).unwrap();
        assert_eq!(restored.dentries, tree.dentries);
        assert_eq!(restored.inodes, tree.inodes);
        assert_eq!(restored.names, tree.names);
        assert_eq!(restored.bytes, tree.bytes);
        assert!(restored.is_whited_out(gone));
        assert_eq!(restored.xattrs.get(xattr), tree.xattrs.get(xattr));
        assert_eq!(restored.lookup(dir, b"device"), tree.lookup(dir, b"device"));
        assert_eq!(restored.entry(ROOT, b"first").unwrap(), first);
        // Cut anywhere it is refused.
        let len = bytes.len() - tree.xattrs.as_bytes().len();
        for cut in 0..len {
            assert!(Tree::restore(&mut &bytes[..cut], &limits).is_err(), "{cut}");
        }
    }
}
