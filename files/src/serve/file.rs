//! Open files.

use super::Request;
use crate::owners::{Change, Owners, without_privileges};
use crate::tree::{Handle, Node, Tree, reopen, stat_of};
use crate::wire::MAX_DATA;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{FallocateFlags, FileType, OFlags, SeekFrom};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The guest may keep what it has of the file's contents (`FOPEN_KEEP_CACHE`).
const KEEP_CACHE: u32 = 1 << 1;
/// The open also takes away what gives a program its owner's rights (`FUSE_OPEN_KILL_SUIDGID`).
const OPEN_KILL_PRIVILEGES: u32 = 1;
/// The same of a write (`FUSE_WRITE_KILL_SUIDGID`).
const WRITE_KILL_PRIVILEGES: u32 = 1 << 2;
/// A write is of the guest's cache, which knows where it belongs (`FUSE_WRITE_CACHE`).
const WRITE_CACHE: u32 = 1;
/// So much is copied in one go.
const COPY_AT_ONCE: u64 = 64 << 20;

/// How a guest opens a file, and how the host does for it.
#[derive(Debug, Clone, Copy)]
pub struct FileFlags {
    host: OFlags,
    exclusive: bool,
}

impl FileFlags {
    /// Of `open(2)`'s flags. Whatever is not named here means nothing to the server: `O_DIRECT` is for the
    /// guest's own cache, and `O_NOATIME` is an owner's privilege.
    pub fn of(tree: &Tree, flags: u32) -> Result<Self, Errno> {
        let asked = OFlags::from_bits_retain(flags);
        let writes_back = tree.session.writes_back.load(Ordering::Relaxed);
        let mut host = match asked & OFlags::ACCMODE {
            // What is written later is read first, where it is not a whole page.
            OFlags::WRONLY if writes_back => OFlags::RDWR,
            access @ (OFlags::RDONLY | OFlags::WRONLY | OFlags::RDWR) => access,
            _ => return Err(Errno::INVAL),
        };
        host |= asked & (OFlags::TRUNC | OFlags::SYNC | OFlags::DSYNC);
        if !writes_back {
            host |= asked & OFlags::APPEND;
        }
        Ok(Self {
            host,
            exclusive: asked.contains(OFlags::EXCL),
        })
    }

    /// The host's.
    pub const fn host(self) -> OFlags {
        self.host
    }

    /// `O_APPEND`, which is the host's to see to.
    pub const fn appends(self) -> bool {
        self.host.contains(OFlags::APPEND)
    }

    /// `O_EXCL`.
    pub const fn is_exclusive(self) -> bool {
        self.exclusive
    }

    /// What the guest is told of the file. What it has cached stays: it knows by the file's time and size
    /// whether that is right.
    pub const fn answer(self) -> u32 {
        KEEP_CACHE
    }
}

/// Opens a file that the guest knows: its number, and what the guest is told.
pub fn open_known(
    tree: &Tree,
    node: &Node,
    flags: FileFlags,
    open_flags: u32,
) -> Result<(u64, u32), Errno> {
    let host = flags.host();
    let file = match reopen(node, host) {
        // May be written, but not read.
        Err(Errno::ACCESS) if host.contains(OFlags::RDWR) => {
            reopen(node, (host - OFlags::RDWR) | OFlags::WRONLY)?
        }
        opened => opened?,
    };
    if open_flags & OPEN_KILL_PRIVILEGES != 0 && host.contains(OFlags::TRUNC) {
        drop_privileges(node)?;
    }
    let handle = tree.keep(file, node.number, flags.appends())?;
    Ok((handle, flags.answer()))
}

/// `OPEN`.
pub fn open(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let tree = request.tree;
    let (flags, open_flags) = (request.fields.u32()?, request.fields.u32()?);
    let flags = FileFlags::of(tree, flags)?;
    let node = tree.node(request.header.node)?;
    match node.kind {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Errno::ISDIR),
        // FIFOs, sockets and devices are the guest's own affair.
        _ => return Err(Errno::NXIO),
    }
    let (handle, answer) = open_known(tree, &node, flags, open_flags)?;
    request.reply.open(handle, answer);
    Ok(())
}

/// Takes away what gives a program its owner's rights.
pub fn drop_privileges(node: &Node) -> Result<(), Errno> {
    let stat = stat_of(node)?;
    let owners = node.policy.owners;
    let mode = match owners {
        Owners::Kept => owners.told(node, &stat)?.mode,
        Owners::Host | Owners::Caller { .. } => stat.stx_mode.into(),
    };
    let mode = mode & 0o7777;
    let without = without_privileges(mode);
    if mode == without {
        return Ok(());
    }
    let change = Change {
        mode: Some(without),
        ..Change::default()
    };
    owners.change(node, &stat, change)
}

/// A file to write to: an open one, or one that is opened for it.
pub enum Writable {
    Open(Arc<Handle>),
    Opened(OwnedFd),
}

impl AsFd for Writable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Open(handle) => handle.file.as_fd(),
            Self::Opened(file) => file.as_fd(),
        }
    }
}

/// A file to cut or extend.
pub fn writable(tree: &Tree, node: &Node, handle: Option<u64>) -> Result<Writable, Errno> {
    match node.kind {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Errno::ISDIR),
        _ => return Err(Errno::INVAL),
    }
    match handle {
        Some(handle) => tree.handle(handle, node.number).map(Writable::Open),
        None => reopen(node, OFlags::WRONLY).map(Writable::Opened),
    }
}

/// The end of a range that a file may have.
fn end_of(tree: &Tree, offset: u64, len: u64) -> Result<(), Errno> {
    let end = offset.checked_add(len).ok_or(Errno::FBIG)?;
    if end > tree.file_limit || i64::try_from(end).is_err() {
        return Err(Errno::FBIG);
    }
    Ok(())
}

/// `READ`.
pub fn read(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let fields = &mut request.fields;
    let (handle, offset, size) = (fields.u64()?, fields.u64()?, fields.u32()?);
    let size = usize::try_from(size).map_err(|_| Errno::INVAL)?;
    if size > MAX_DATA {
        return Err(Errno::INVAL);
    }
    let handle = request.tree.handle(handle, request.header.node)?;
    request
        .reply
        .fill(size, |bytes| rustix::io::pread(&handle.file, bytes, offset))
}

/// `WRITE`.
pub fn write(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let tree = request.tree;
    let fields = &mut request.fields;
    let (handle, offset, size) = (fields.u64()?, fields.u64()?, fields.u32()?);
    let flags = fields.u32()?;
    let (_owner, _flags, _padding) = (fields.u64()?, fields.u32()?, fields.u32()?);
    let data = fields.bytes(usize::try_from(size).map_err(|_| Errno::INVAL)?)?;
    let handle = tree.handle(handle, request.header.node)?;
    end_of(tree, offset, size.into())?;
    handle.is_dirty.store(true, Ordering::Relaxed);
    // Pages of a mapping are written through whichever file is open.
    let file = match flags & WRITE_CACHE != 0 && handle.appends {
        true => {
            let node = tree.node(request.header.node)?;
            Writable::Opened(reopen(&*node, OFlags::WRONLY)?)
        }
        false => Writable::Open(handle),
    };
    let mut written = 0;
    while written < data.len() {
        let at = offset + u64::try_from(written).map_err(|_| Errno::FBIG)?;
        match rustix::io::pwrite(&file, &data[written..], at) {
            Ok(0) => break,
            Ok(len) => written += len,
            // What has been written has been.
            Err(_) if written > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    if flags & WRITE_KILL_PRIVILEGES != 0 {
        drop_privileges(&*tree.node(request.header.node)?)?;
    }
    let written = u32::try_from(written).map_err(|_| Errno::FBIG)?;
    request.reply.u32(written).u32(0);
    Ok(())
}

/// `FLUSH`: a descriptor of the guest's is closed.
pub fn flush(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let tree = request.tree;
    let node = request.header.node;
    let handle = request.fields.u64()?;
    request.fields.u64()?;
    let owner = request.fields.u64()?;
    tree.handle(handle, node)?;
    tree.locks.let_go(node, owner);
    Ok(())
}

/// `RELEASE`, `RELEASEDIR`.
pub fn release(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let handle = request.fields.u64()?;
    request.tree.close(handle, request.header.node)?;
    request.tree.locks.nudge();
    Ok(())
}

/// `FSYNC`, `FSYNCDIR`.
pub fn sync(mut request: Request<'_, '_>) -> Result<(), Errno> {
    const DATA_ALONE: u32 = 1;
    let (handle, flags) = (request.fields.u64()?, request.fields.u32()?);
    let handle = request.tree.handle(handle, request.header.node)?;
    match flags & DATA_ALONE {
        0 => rustix::fs::fsync(&handle.file),
        _ => rustix::fs::fdatasync(&handle.file),
    }
}

/// `SYNCFS`. The guest's pages have been written when its kernel asks. What they were written to is
/// brought to the disk, as far as it is still open; the host's whole file system is more than a guest may
/// have written at once, and is asked for whenever a guest ends.
pub fn sync_file_system(request: Request<'_, '_>) -> Result<(), Errno> {
    let tree = request.tree;
    tree.node(request.header.node)?;
    let mut outcome = Ok(());
    for handle in tree.dirty() {
        outcome = rustix::fs::fdatasync(&handle.file).and(outcome);
    }
    outcome
}

/// `FALLOCATE`.
pub fn allocate(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let fields = &mut request.fields;
    let (handle, offset, len) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let mode = FallocateFlags::from_bits_retain(fields.u32()?);
    let known = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
    if !known.contains(mode) {
        return Err(Errno::OPNOTSUPP);
    }
    end_of(request.tree, offset, len)?;
    let handle = request.tree.handle(handle, request.header.node)?;
    rustix::fs::fallocate(&handle.file, mode, offset, len)
}

/// `LSEEK`: for data and holes alone.
pub fn seek(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let fields = &mut request.fields;
    let (handle, offset, whence) = (fields.u64()?, fields.u64()?, fields.u32()?);
    let to = match i32::try_from(whence) {
        Ok(libc::SEEK_DATA) => SeekFrom::Data(offset),
        Ok(libc::SEEK_HOLE) => SeekFrom::Hole(offset),
        _ => return Err(Errno::INVAL),
    };
    i64::try_from(offset).map_err(|_| Errno::NXIO)?;
    let handle = request.tree.handle(handle, request.header.node)?;
    let _position = crate::tree::lock(&handle.position);
    let found = rustix::fs::seek(&handle.file, to)?;
    request.reply.u64(found);
    Ok(())
}

/// `COPY_FILE_RANGE`.
pub fn copy(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let tree = request.tree;
    let fields = &mut request.fields;
    let (handle, mut offset) = (fields.u64()?, fields.u64()?);
    let (to_node, to_handle, mut to_offset) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let (len, flags) = (fields.u64()?, fields.u64()?);
    if flags != 0 {
        return Err(Errno::INVAL);
    }
    let len = len.min(COPY_AT_ONCE);
    end_of(tree, to_offset, len)?;
    end_of(tree, offset, 0)?;
    let from = tree.handle(handle, request.header.node)?;
    let to = tree.handle(to_handle, to_node)?;
    let len = usize::try_from(len).map_err(|_| Errno::FBIG)?;
    let copied = rustix::fs::copy_file_range(
        &from.file,
        Some(&mut offset),
        &to.file,
        Some(&mut to_offset),
        len,
    )?;
    let copied = u32::try_from(copied).map_err(|_| Errno::FBIG)?;
    request.reply.u32(copied).u32(0);
    Ok(())
}
