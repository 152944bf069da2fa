//! Making, linking, moving and removing.

use super::Request;
use super::file::{FileFlags, open_known};
use super::look::directory;
use crate::owners::{ActAs, Owner, Owners};
use crate::tree::{Node, Tree, reopen, stat_of};
use crate::wire::{Entry, Header};
use rustix::fs::{
    AtFlags, CWD, Dev, FileType, Mode, OFlags, RenameFlags, linkat, mkdirat, mknodat, openat,
    renameat_with, symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

const SETGID: u32 = 0o2000;

/// What is about to be made.
struct Making {
    parent: Arc<Node>,
    kind: FileType,
    owner: Owner,
    /// On the host.
    mode: Mode,
    /// What is made belongs to whoever asks.
    _acting: ActAs,
}

impl Making {
    /// Prepares this thread for it.
    fn prepare(
        tree: &Tree,
        header: Header,
        kind: FileType,
        mode: u32,
        mask: u32,
    ) -> Result<Self, Errno> {
        let parent = directory(tree.node(header.node)?)?;
        let owners = parent.policy.owners;
        let mut owner = Owner {
            user: header.user,
            group: header.group,
            mode: mode & 0o7777,
        };
        if owners == Owners::Kept {
            owner.mode &= !(mask & 0o777);
            let above = owners.told(&parent, &stat_of(&*parent)?)?;
            if above.mode & SETGID != 0 {
                owner.group = above.group;
                if kind == FileType::Directory {
                    owner.mode |= SETGID;
                }
            }
        }
        // The host's kernel applies the mask, unless the directory's ACL is to be applied in its place.
        // Each thread has its own.
        rustix::process::umask(Mode::from_raw_mode(match owners {
            Owners::Kept => 0,
            Owners::Host | Owners::Caller { .. } => mask & 0o777,
        }));
        let mode = Mode::from_raw_mode(owners.mode_to_make(kind, owner.mode));
        Ok(Self {
            kind,
            owner,
            mode,
            _acting: ActAs::user(tree.rights, header.user, header.group)?,
            parent,
        })
    }

    /// Takes up what was made.
    fn finish(self, tree: &Tree, name: &CStr) -> Result<Entry, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let parent = self.parent.clone();
        let file = openat(&*parent, name, flags, Mode::empty())?;
        let mut entry = self.enter(tree, file)?;
        tree.note_name(&parent, name, &mut entry);
        Ok(entry)
    }

    fn enter(self, tree: &Tree, file: OwnedFd) -> Result<Entry, Errno> {
        let stat = stat_of(&file)?;
        if FileType::from_raw_mode(stat.stx_mode.into()) != self.kind {
            // Somebody on the host has put something else there.
            return Err(Errno::STALE);
        }
        let policy = self.parent.policy;
        policy.owners.made(&file, self.kind, self.owner)?;
        tree.enter(file, policy)
    }
}

/// `MKDIR`.
pub fn new_directory(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let (mode, mask) = (request.fields.u32()?, request.fields.u32()?);
    let name = request.fields.name()?;
    let making = Making::prepare(
        request.tree,
        request.header,
        FileType::Directory,
        mode,
        mask,
    )?;
    mkdirat(&*making.parent, name, making.mode)?;
    request.reply.entry(&making.finish(request.tree, name)?);
    Ok(())
}

/// `MKNOD`. No devices: the container would see a device of the guest's, and the host one of its own.
/// FIFOs and sockets are names to the host, at which nobody listens; the device 0 of overlayfs is none.
pub fn node(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let (mode, device, mask) = (
        request.fields.u32()?,
        request.fields.u32()?,
        request.fields.u32()?,
    );
    request.fields.u32()?;
    let name = request.fields.name()?;
    let kind = match FileType::from_raw_mode(mode) {
        kind @ (FileType::RegularFile | FileType::Fifo | FileType::Socket) => kind,
        FileType::CharacterDevice if device == 0 => FileType::CharacterDevice,
        FileType::CharacterDevice | FileType::BlockDevice => return Err(Errno::PERM),
        _ => return Err(Errno::INVAL),
    };
    let making = Making::prepare(request.tree, request.header, kind, mode, mask)?;
    let no_device: Dev = 0;
    mknodat(&*making.parent, name, kind, making.mode, no_device)?;
    request.reply.entry(&making.finish(request.tree, name)?);
    Ok(())
}

/// `SYMLINK`.
pub fn symbolic_link(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let name = request.fields.name()?;
    let text = request.fields.text()?;
    let making = Making::prepare(request.tree, request.header, FileType::Symlink, 0o777, 0)?;
    symlinkat(text, &*making.parent, name)?;
    request.reply.entry(&making.finish(request.tree, name)?);
    Ok(())
}

/// `LINK`.
pub fn link(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let tree = request.tree;
    let number = request.fields.u64()?;
    let name = request.fields.name()?;
    let node = tree.node(number)?;
    let parent = directory(tree.node(request.header.node)?)?;
    if node.kind == FileType::Directory {
        return Err(Errno::PERM);
    }
    let from = crate::tree::Link::to(&*node);
    linkat(CWD, from.name(), &*parent, name, AtFlags::SYMLINK_FOLLOW)?;
    // The same file, whatever the name leads to by now.
    let file = rustix::io::fcntl_dupfd_cloexec(&*node, 3)?;
    let mut entry = tree.enter(file, node.policy)?;
    tree.note_name(&parent, name, &mut entry);
    request.reply.entry(&entry);
    Ok(())
}

/// `UNLINK`, `RMDIR`.
pub fn remove(mut request: Request<'_, '_>, what: AtFlags) -> Result<(), Errno> {
    let name = request.fields.name()?;
    let parent = directory(request.tree.node(request.header.node)?)?;
    unlinkat(&*parent, name, what)
}

/// `RENAME`, `RENAME2`.
pub fn rename(mut request: Request<'_, '_>, has_flags: bool) -> Result<(), Errno> {
    let fields = &mut request.fields;
    let target = fields.u64()?;
    let mut flags = RenameFlags::empty();
    if has_flags {
        flags = RenameFlags::from_bits(fields.u32()?).ok_or(Errno::INVAL)?;
        fields.u32()?;
    }
    let (from, to) = (fields.name()?, fields.name()?);
    let old = directory(request.tree.node(request.header.node)?)?;
    let new = directory(request.tree.node(target)?)?;
    renameat_with(&*old, from, &*new, to, flags)
}

/// `struct fuse_create_in`.
struct Create {
    flags: u32,
    mode: u32,
    mask: u32,
    open_flags: u32,
}

impl Create {
    fn of(request: &mut Request<'_, '_>) -> Result<Self, Errno> {
        let fields = &mut request.fields;
        Ok(Self {
            flags: fields.u32()?,
            mode: fields.u32()?,
            mask: fields.u32()?,
            open_flags: fields.u32()?,
        })
    }
}

/// `CREATE`.
pub fn file(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let tree = request.tree;
    let create = Create::of(&mut request)?;
    let name = request.fields.name()?;
    let flags = FileFlags::of(tree, create.flags)?;
    let making = Making::prepare(
        tree,
        request.header,
        FileType::RegularFile,
        create.mode,
        create.mask,
    )?;
    let new = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(&*making.parent, name, flags.host() | new, making.mode) {
        Ok(file) => made(request, making, file, flags, Some(name)),
        Err(Errno::EXIST) if !flags.is_exclusive() => {
            let parent = making.parent.clone();
            drop(making);
            let entry = tree.look_up(&parent, name)?;
            let opened = tree
                .node(entry.node)
                .and_then(|node| match node.kind {
                    FileType::RegularFile => open_known(tree, &node, flags, create.open_flags),
                    // The guest's kernel looks again, and finds it.
                    _ => Err(Errno::STALE),
                })
                .inspect_err(|_| tree.forget(entry.node, 1))?;
            request.reply.entry(&entry).open(opened.0, opened.1);
            Ok(())
        }
        Err(errno) => Err(errno),
    }
}

/// `TMPFILE`.
pub fn nameless_file(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let tree = request.tree;
    let create = Create::of(&mut request)?;
    let flags = FileFlags::of(tree, create.flags)?;
    let making = Making::prepare(
        tree,
        request.header,
        FileType::RegularFile,
        create.mode,
        create.mask,
    )?;
    let mut new = OFlags::TMPFILE | OFlags::CLOEXEC;
    if flags.is_exclusive() {
        new |= OFlags::EXCL;
    }
    let file = openat(&*making.parent, c".", flags.host() | new, making.mode)?;
    made(request, making, file, flags, None)
}

/// Answers with a file that is open and was made just now.
fn made(
    request: Request<'_, '_>,
    making: Making,
    file: OwnedFd,
    flags: FileFlags,
    name: Option<&CStr>,
) -> Result<(), Errno> {
    let tree = request.tree;
    let parent = making.parent.clone();
    let mut entry = making.enter(tree, reopen(&file, OFlags::PATH)?)?;
    if let Some(name) = name {
        tree.note_name(&parent, name, &mut entry);
    }
    let handle = tree
        .keep(file, entry.node, flags.appends())
        .inspect_err(|_| tree.forget(entry.node, 1))?;
    request.reply.entry(&entry).open(handle, flags.answer());
    Ok(())
}
