//! Names, attributes, and what the guest forgets.

use super::Request;
use super::file::{drop_privileges, writable};
use crate::owners::Change;
use crate::tree::{Link, Node, stat_of};
use crate::wire::{Fields, Reply};
use rustix::fs::{AtFlags, FileType, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;

/// `LOOKUP`.
pub fn look_up(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let tree = request.tree;
    let name = request.fields.name()?;
    let parent = directory(tree.node(request.header.node)?)?;
    match tree.look_up(&parent, name) {
        Ok(entry) => {
            request.reply.entry(&entry);
            Ok(())
        }
        // The guest may believe for a while that it is not there.
        Err(Errno::NOENT) => {
            request.reply.no_entry(parent.names_hold());
            Ok(())
        }
        Err(errno) => Err(errno),
    }
}

/// The same file, if names can be in it.
pub fn directory<N: AsRef<Node>>(node: N) -> Result<N, Errno> {
    match node.as_ref().kind {
        FileType::Directory => Ok(node),
        _ => Err(Errno::NOTDIR),
    }
}

/// `FORGET`.
pub fn forget(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let times = request.fields.u64()?;
    request.tree.forget(request.header.node, times);
    Ok(())
}

/// `BATCH_FORGET`.
pub fn forget_many(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let count = request.fields.u32()?;
    request.fields.u32()?;
    // As many as there are, whatever the number says.
    for _ in 0..count {
        let (node, times) = (request.fields.u64()?, request.fields.u64()?);
        request.tree.forget(node, times);
    }
    Ok(())
}

/// `GETATTR`.
pub fn get_attributes(request: Request<'_, '_>) -> Result<(), Errno> {
    let node = request.tree.node(request.header.node)?;
    tell(request.tree, &node, request.reply)
}

/// `struct fuse_attr_out`.
fn tell(tree: &crate::tree::Tree, node: &Node, reply: &mut Reply<'_>) -> Result<(), Errno> {
    let attr = tree.attr(node, stat_of(node)?)?;
    let hold = node.attributes_hold();
    reply.u64(hold.as_secs()).u32(hold.subsec_nanos()).u32(0);
    reply.attr(&attr);
    Ok(())
}

// What `struct fuse_setattr_in` changes.
const MODE: u32 = 1;
const USER: u32 = 1 << 1;
const GROUP: u32 = 1 << 2;
const SIZE: u32 = 1 << 3;
const ATIME: u32 = 1 << 4;
const MTIME: u32 = 1 << 5;
const HANDLE: u32 = 1 << 6;
const ATIME_NOW: u32 = 1 << 7;
const MTIME_NOW: u32 = 1 << 8;
const KILL_PRIVILEGES: u32 = 1 << 11;

/// `struct fuse_setattr_in`.
struct Wanted {
    valid: u32,
    handle: u64,
    size: u64,
    atime: (u64, u32),
    mtime: (u64, u32),
    mode: u32,
    user: u32,
    group: u32,
}

impl Wanted {
    fn of(mut fields: Fields<'_>) -> Result<Self, Errno> {
        let valid = fields.u32()?;
        fields.u32()?;
        let (handle, size, _owner) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let seconds = [fields.u64()?, fields.u64()?, fields.u64()?];
        let nanoseconds = [fields.u32()?, fields.u32()?, fields.u32()?];
        let mode = fields.u32()?;
        fields.u32()?;
        let (user, group) = (fields.u32()?, fields.u32()?);
        Ok(Self {
            valid,
            handle,
            size,
            atime: (seconds[0], nanoseconds[0]),
            mtime: (seconds[1], nanoseconds[1]),
            mode,
            user,
            group,
        })
    }

    const fn has(&self, what: u32) -> bool {
        self.valid & what != 0
    }

    fn change(&self) -> Change {
        Change {
            user: self.has(USER).then_some(self.user),
            group: self.has(GROUP).then_some(self.group),
            mode: self.has(MODE).then_some(self.mode & 0o7777),
        }
    }

    fn times(&self) -> Result<Option<Timestamps>, Errno> {
        if !self.has(ATIME | MTIME | ATIME_NOW | MTIME_NOW) {
            return Ok(None);
        }
        let time = |set, now, (seconds, nanoseconds): (u64, u32)| {
            let nanoseconds = match (self.has(set), self.has(now)) {
                (_, true) => UTIME_NOW,
                (false, false) => UTIME_OMIT,
                (true, false) if nanoseconds < 1_000_000_000 => nanoseconds.into(),
                (true, false) => return Err(Errno::INVAL),
            };
            Ok(Timespec {
                tv_sec: seconds.cast_signed(),
                tv_nsec: nanoseconds,
            })
        };
        Ok(Some(Timestamps {
            last_access: time(ATIME, ATIME_NOW, self.atime)?,
            last_modification: time(MTIME, MTIME_NOW, self.mtime)?,
        }))
    }
}

/// `SETATTR`.
pub fn set_attributes(request: Request<'_, '_>) -> Result<(), Errno> {
    let tree = request.tree;
    let wanted = Wanted::of(request.fields)?;
    let node = tree.node(request.header.node)?;
    let times = wanted.times()?;
    let change = wanted.change();
    if change != Change::default() {
        node.policy
            .owners
            .change(&node, &stat_of(&*node)?, change)?;
    }
    if wanted.has(SIZE) {
        if wanted.size > tree.file_limit || i64::try_from(wanted.size).is_err() {
            return Err(Errno::FBIG);
        }
        let handle = wanted.has(HANDLE).then_some(wanted.handle);
        let file = writable(tree, &node, handle)?;
        rustix::fs::ftruncate(&file, wanted.size)?;
        if wanted.has(KILL_PRIVILEGES) {
            drop_privileges(&node)?;
        }
    }
    if let Some(times) = times {
        let link = Link::to(&*node);
        rustix::fs::utimensat(rustix::fs::CWD, link.name(), &times, AtFlags::empty())?;
    }
    tell(tree, &node, request.reply)
}

/// `READLINK`.
pub fn read_link(request: Request<'_, '_>) -> Result<(), Errno> {
    let node = request.tree.node(request.header.node)?;
    if node.kind != FileType::Symlink {
        return Err(Errno::INVAL);
    }
    let text = rustix::fs::readlinkat(&*node, c"", Vec::new())?;
    request.reply.bytes(text.to_bytes());
    Ok(())
}

/// `STATFS`.
pub fn file_system(request: Request<'_, '_>) -> Result<(), Errno> {
    let node = request.tree.node(request.header.node)?;
    let stat = rustix::fs::fstatvfs(&*node)?;
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let reply = request.reply;
    reply
        .u64(stat.f_blocks)
        .u64(stat.f_bfree)
        .u64(stat.f_bavail);
    reply.u64(stat.f_files).u64(stat.f_ffree);
    reply.u32(small(stat.f_bsize)).u32(small(stat.f_namemax));
    reply.u32(small(stat.f_frsize));
    reply.bytes(&[0; 28]);
    Ok(())
}
