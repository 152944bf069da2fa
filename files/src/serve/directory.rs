//! Directories.

use super::Request;
use super::look::directory;
use crate::tree::{Node, Tree, lock, reopen};
use crate::wire::{ENTRY, MAX_DATA, Reply};
use rustix::fs::{FileType, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::time::Duration;

/// How much is read of a directory at once, on the stack.
const PIECE: usize = 16 << 10;
/// `struct fuse_dirent` without its name.
const DIRENT: usize = 24;

/// `OPENDIR`.
pub fn open(request: Request<'_, '_>) -> Result<(), Errno> {
    let tree = request.tree;
    let node = directory(tree.node(request.header.node)?)?;
    let file = reopen(&*node, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let handle = tree.keep(file, node.number, false)?;
    request.reply.open(handle, 0);
    Ok(())
}

/// `READDIR`, `READDIRPLUS`.
pub fn read(mut request: Request<'_, '_>, with_entries: bool) -> Result<(), Errno> {
    let fields = &mut request.fields;
    let (handle, offset, size) = (fields.u64()?, fields.u64()?, fields.u32()?);
    let size = usize::try_from(size).unwrap_or(MAX_DATA).min(MAX_DATA);
    i64::try_from(offset).map_err(|_| Errno::INVAL)?;
    let Request { tree, reply, .. } = request;
    let node = directory(tree.node(request.header.node)?)?;
    let handle = tree.handle(handle, node.number)?;
    let _position = lock(&handle.position);
    rustix::fs::seek(&handle.file, SeekFrom::Start(offset))?;
    let mut piece = [MaybeUninit::uninit(); PIECE];
    let mut list = RawDir::new(&handle.file, &mut piece);
    while let Some(listed) = list.next() {
        let listed = match listed {
            Ok(listed) => listed,
            // What was listed is told; the error comes again.
            Err(_) if reply.len() > 0 => return Ok(()),
            Err(errno) => return Err(errno),
        };
        let one = Listed {
            name: listed.file_name(),
            inode: listed.ino(),
            kind: listed.file_type(),
            next: listed.next_entry_cookie(),
        };
        if one.size(with_entries) > size - reply.len() {
            break;
        }
        if with_entries {
            one.tell_entry(tree, &node, reply);
        }
        one.tell(tree, &node, reply)?;
    }
    Ok(())
}

/// One entry.
struct Listed<'a> {
    name: &'a CStr,
    inode: u64,
    kind: FileType,
    /// Where the next one is.
    next: u64,
}

impl Listed<'_> {
    fn size(&self, with_entry: bool) -> usize {
        let entry = if with_entry { ENTRY } else { 0 };
        entry + (DIRENT + self.name.to_bytes().len()).next_multiple_of(8)
    }

    /// `struct fuse_entry_out`. The guest asks again for one of which nothing is told.
    fn tell_entry(&self, tree: &Tree, directory: &Node, reply: &mut Reply<'_>) {
        let is_name = !matches!(self.name.to_bytes(), b"." | b"..");
        let entry = is_name.then(|| tree.look_up(directory, self.name));
        match entry {
            Some(Ok(entry)) => reply.entry(&entry),
            Some(Err(_)) | None => reply.no_entry(Duration::ZERO),
        };
    }

    /// `struct fuse_dirent`.
    fn tell(&self, tree: &Tree, directory: &Node, reply: &mut Reply<'_>) -> Result<(), Errno> {
        let name = self.name.to_bytes();
        let len = u32::try_from(name.len()).map_err(|_| Errno::NAMETOOLONG)?;
        reply.u64(tree.listed_number(directory, self.inode));
        reply.u64(self.next).u32(len).u32(kind_number(self.kind));
        reply.bytes(name).align();
        Ok(())
    }
}

/// As `readdir(3)` has it (`DT_REG` and so on): a mode's upper bits.
fn kind_number(kind: FileType) -> u32 {
    match kind {
        FileType::Unknown => 0,
        kind => kind.as_raw_mode() >> 12,
    }
}
