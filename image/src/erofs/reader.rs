//! Looking into images this crate wrote: what a layer below holds under a name, and its bytes.

use super::format::{
    BLOCK_BITS, BLOCK_SIZE, CHUNK_BASED, CHUNK_ENTRY, COMPACT, DIRENT, EXTENDED, FLAT_INLINE,
    FLAT_PLAIN, MAGIC, MAX_CHUNK_BITS, NO_BLOCK, SLOT, SUPER_OFFSET, XATTR_HEADER,
};
use super::xattr::XattrSet;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::cmp::Ordering;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Why an image of ours cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErofsError {
    /// The operating system refused.
    #[error("reading a stored layer failed")]
    Read(#[source] io::Error),
    /// It is not what was written.
    #[error("a stored layer is damaged: {0}")]
    Damaged(&'static str),
}

/// An open image.
#[derive(Debug)]
pub(crate) struct Reader {
    file: File,
    meta: u64,
    root: u64,
    epoch: (i64, u32),
}

/// An inode of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node {
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    pub size: u64,
    /// Device number of a device; first block of data.
    pub address: u32,
    data: DataForm,
    /// Where the attributes' header stands; tells inodes of one image apart.
    pub xattr_start: u64,
    xattr_len: usize,
}

/// How an inode's data lie in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DataForm {
    Plain,
    /// The last, partial block stands behind the inode.
    Inline,
    /// In chunks of this many bytes, listed behind the inode.
    Chunks(u64),
}

/// A piece of a file that lies in one piece in the image, or is a hole.
struct Extent {
    /// Where in the image it begins; nothing for a hole.
    place: Option<u64>,
    /// Where in the file it ends.
    end: u64,
}

impl Reader {
    pub(crate) fn open(file: File) -> Result<Self, ErofsError> {
        let mut raw = [0; 128];
        file.read_exact_at(&mut raw, SUPER_OFFSET as u64)
            .map_err(ErofsError::Read)?;
        if le32(&raw, 0) != MAGIC || raw[12] != BLOCK_BITS {
            return Err(ErofsError::Damaged("bad superblock"));
        }
        Ok(Self {
            file,
            meta: u64::from(le32(&raw, 40)) * BLOCK_SIZE as u64,
            root: le16(&raw, 14).into(),
            epoch: (le64(&raw, 24).cast_signed(), le32(&raw, 32)),
        })
    }

    pub(crate) fn root(&self) -> Result<Node, ErofsError> {
        self.node(self.root)
    }

    fn node(&self, nid: u64) -> Result<Node, ErofsError> {
        let start = nid
            .checked_mul(SLOT as u64)
            .and_then(|offset| offset.checked_add(self.meta))
            .ok_or(ErofsError::Damaged("bad inode number"))?;
        let mut raw = [0; EXTENDED];
        self.read_exact(&mut raw[..COMPACT], start)?;
        let format = le16(&raw, 0);
        let extended = format & 1 == 1;
        if extended {
            self.read_exact(&mut raw, start)?;
        }
        let address = le32(&raw, 16);
        let data = match format >> 1 {
            FLAT_PLAIN => DataForm::Plain,
            FLAT_INLINE => DataForm::Inline,
            CHUNK_BASED if address <= MAX_CHUNK_BITS.into() => {
                DataForm::Chunks((BLOCK_SIZE as u64) << address)
            }
            _ => return Err(ErofsError::Damaged("bad data layout")),
        };
        let head = if extended { EXTENDED } else { COMPACT };
        let xattr_len = match usize::from(le16(&raw, 2)) {
            0 => 0,
            words => XATTR_HEADER + (words - 1) * 4,
        };
        let common = Node {
            mode: le16(&raw, 4),
            uid: le16(&raw, 24).into(),
            gid: le16(&raw, 26).into(),
            mtime: self.epoch,
            size: le32(&raw, 8).into(),
            address,
            data,
            xattr_start: start + head as u64,
            xattr_len,
        };
        if !extended {
            return Ok(common);
        }
        Ok(Node {
            uid: le32(&raw, 24),
            gid: le32(&raw, 28),
            mtime: (le64(&raw, 32).cast_signed(), le32(&raw, 40)),
            size: le64(&raw, 8),
            ..common
        })
    }

    /// The inode a directory has under a name.
    pub(crate) fn lookup(&self, dir: &Node, name: &[u8]) -> Result<Option<Node>, ErofsError> {
        let mut blocks = 0..dir.size.div_ceil(BLOCK_SIZE as u64);
        let mut block = Vec::new();
        while !blocks.is_empty() {
            let middle = blocks.start + (blocks.end - blocks.start) / 2;
            self.dir_block(dir, middle, &mut block)?;
            match find(&block, name)? {
                Found::Here(nid) => return self.node(nid).map(Some),
                Found::Nowhere => return Ok(None),
                Found::Before => blocks.end = middle,
                Found::After => blocks.start = middle + 1,
            }
        }
        Ok(None)
    }

    fn dir_block(&self, dir: &Node, index: u64, block: &mut Vec<u8>) -> Result<(), ErofsError> {
        let offset = index * BLOCK_SIZE as u64;
        let len = (dir.size - offset).min(BLOCK_SIZE as u64);
        block.resize(usize::try_from(len).unwrap_or(BLOCK_SIZE), 0);
        self.read_data(dir, offset, block)
    }

    /// Reads a whole piece of data; it must lie within the size.
    pub(crate) fn read_data(
        &self,
        node: &Node,
        mut offset: u64,
        mut bytes: &mut [u8],
    ) -> Result<(), ErofsError> {
        while !bytes.is_empty() {
            let extent = self.extent(node, offset)?;
            let len = usize::try_from(extent.end.saturating_sub(offset)).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at_mut(len.min(bytes.len()));
            if now.is_empty() {
                return Err(ErofsError::Damaged("data past the end of a file"));
            }
            match extent.place {
                Some(place) => self.read_exact(now, place)?,
                None => now.fill(0),
            }
            offset += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    /// Start and end of the next data of a file from an offset on; holes of the file, and those
    /// that the image itself has, are passed over.
    pub(crate) fn next_data(
        &self,
        node: &Node,
        mut from: u64,
    ) -> Result<Option<(u64, u64)>, ErofsError> {
        let failed = |errno: Errno| ErofsError::Read(errno.into());
        while from < node.size {
            let extent = self.extent(node, from)?;
            let Some(place) = extent.place else {
                from = extent.end;
                continue;
            };
            let stop = place + (extent.end - from);
            match rustix::fs::seek(&self.file, SeekFrom::Data(place)) {
                Ok(data) if data < stop => {
                    let hole = rustix::fs::seek(&self.file, SeekFrom::Hole(data));
                    let hole = hole.map_err(failed)?.clamp(data + 1, stop);
                    return Ok(Some((from + (data - place), from + (hole - place))));
                }
                Ok(_) | Err(Errno::NXIO) => from = extent.end,
                Err(errno) => return Err(failed(errno)),
            }
        }
        Ok(None)
    }

    /// What is at an offset of a file.
    fn extent(&self, node: &Node, offset: u64) -> Result<Extent, ErofsError> {
        let block = BLOCK_SIZE as u64;
        let behind_inode = node.xattr_start + node.xattr_len as u64;
        let plain = Extent {
            place: Some(u64::from(node.address) * block + offset),
            end: node.size,
        };
        let tail_start = node.size - node.size % block;
        Ok(match node.data {
            DataForm::Plain => plain,
            DataForm::Inline if offset < tail_start => Extent {
                end: tail_start,
                ..plain
            },
            DataForm::Inline => Extent {
                place: Some(behind_inode + (offset - tail_start)),
                end: node.size,
            },
            DataForm::Chunks(bytes) => {
                let mut raw = [0; CHUNK_ENTRY];
                let entry = offset / bytes * CHUNK_ENTRY as u64;
                self.read_exact(&mut raw, behind_inode + entry)?;
                let first = u32::from_le_bytes(raw);
                Extent {
                    place: (first != NO_BLOCK).then(|| u64::from(first) * block + offset % bytes),
                    end: (offset - offset % bytes)
                        .saturating_add(bytes)
                        .min(node.size),
                }
            }
        })
    }

    /// Target of a symbolic link.
    pub(crate) fn link_target(&self, node: &Node) -> Result<Vec<u8>, ErofsError> {
        let len = usize::try_from(node.size).unwrap_or(usize::MAX);
        if len > BLOCK_SIZE {
            return Err(ErofsError::Damaged("a link target is too long"));
        }
        let mut target = vec![0; len];
        self.read_data(node, 0, &mut target)?;
        Ok(target)
    }

    /// Extended attributes.
    pub(crate) fn xattrs(&self, node: &Node) -> Result<XattrSet, ErofsError> {
        let mut bytes = vec![0; node.xattr_len.saturating_sub(XATTR_HEADER)];
        if !bytes.is_empty() {
            self.read_exact(&mut bytes, node.xattr_start + XATTR_HEADER as u64)?;
        }
        XattrSet::decode(&bytes).ok_or(ErofsError::Damaged("bad extended attributes"))
    }

    fn read_exact(&self, bytes: &mut [u8], offset: u64) -> Result<(), ErofsError> {
        self.file
            .read_exact_at(bytes, offset)
            .map_err(ErofsError::Read)
    }
}

/// Where a name is, as seen from one block of its directory.
enum Found {
    Here(u64),
    Nowhere,
    Before,
    After,
}

fn find(block: &[u8], name: &[u8]) -> Result<Found, ErofsError> {
    let damaged = || ErofsError::Damaged("bad directory");
    let count = usize::from(block.get(8..10).map_or(0, |b| le16(b, 0))) / DIRENT;
    if count == 0 {
        return Err(damaged());
    }
    let name_offset = |index: usize| -> Option<usize> {
        if index == count {
            return Some(block.len());
        }
        let entry = block.get(index * DIRENT..(index + 1) * DIRENT)?;
        Some(le16(entry, 8).into())
    };
    for index in 0..count {
        let (start, end) = name_offset(index)
            .zip(name_offset(index + 1))
            .ok_or_else(damaged)?;
        let mut entry = block.get(start..end).ok_or_else(damaged)?;
        if index + 1 == count {
            // The last name ends where the block's padding begins.
            let len = entry.iter().position(|&b| b == 0).unwrap_or(entry.len());
            entry = &entry[..len];
        }
        match name.cmp(entry) {
            Ordering::Equal => return Ok(Found::Here(le64(block, index * DIRENT))),
            Ordering::Less if index == 0 => return Ok(Found::Before),
            Ordering::Less => return Ok(Found::Nowhere),
            Ordering::Greater => {}
        }
    }
    Ok(Found::After)
}

fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from(le16(bytes, at)) | u32::from(le16(bytes, at + 2)) << 16
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32
}
