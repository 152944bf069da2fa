//! What each request does. Nothing here trusts a number or a name of a request: numbers of files and of
//! open files are looked up among this guest's own, names are names, sizes are bounded, and where a file
//! leads is the kernel's to say, within the mounts that the process sees.

mod begin;
mod directory;
mod file;
mod look;
mod make;
mod xattr;

use crate::locks::{Ask, Outcome};
use crate::tree::Tree;
use crate::wire::{Fields, Header, Reply, opcode};
use rustix::io::Errno;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a guest may still believe what it was told before a file's first lock: it counts ticks of up to
/// 10 ms.
const SETTLING: Duration = Duration::from_millis(25);

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// Its reply is complete but for the header.
    Now,
    /// It will be answered by [`crate::locks::Locks::attend`].
    Later {
        /// Somebody has to start a thread for that.
        needs_thread: bool,
    },
}

/// A request on its way.
pub struct Request<'a, 'b> {
    pub tree: &'a Tree,
    pub header: Header,
    pub fields: Fields<'a>,
    pub reply: &'a mut Reply<'b>,
}

/// Serves one request.
///
/// # Errors
/// What the guest's caller gets to see.
pub fn serve(request: Request<'_, '_>) -> Result<Served, Errno> {
    use opcode::{DESTROY, INIT};
    let code = request.header.opcode;
    if code == INIT {
        return begin::init(request).map(|()| Served::Now);
    }
    if !request.tree.session.begun.load(Ordering::Relaxed) {
        return Err(Errno::IO);
    }
    if code == DESTROY {
        begin::destroy(request.tree);
        return Ok(Served::Now);
    }
    match code {
        opcode::SETLK | opcode::SETLKW => set_lock(request),
        _ => at_once(request).map(|()| Served::Now),
    }
}

fn at_once(request: Request<'_, '_>) -> Result<(), Errno> {
    match request.header.opcode {
        opcode::LOOKUP => look::look_up(request),
        opcode::FORGET => look::forget(request),
        opcode::BATCH_FORGET => look::forget_many(request),
        opcode::GETATTR => look::get_attributes(request),
        opcode::SETATTR => look::set_attributes(request),
        opcode::READLINK => look::read_link(request),
        opcode::STATFS => look::file_system(request),
        opcode::SYMLINK => make::symbolic_link(request),
        opcode::MKNOD => make::node(request),
        opcode::MKDIR => make::new_directory(request),
        opcode::LINK => make::link(request),
        opcode::CREATE => make::file(request),
        opcode::TMPFILE => make::nameless_file(request),
        opcode::UNLINK => make::remove(request, rustix::fs::AtFlags::empty()),
        opcode::RMDIR => make::remove(request, rustix::fs::AtFlags::REMOVEDIR),
        opcode::RENAME => make::rename(request, false),
        opcode::RENAME2 => make::rename(request, true),
        opcode::OPEN => file::open(request),
        opcode::READ => file::read(request),
        opcode::WRITE => file::write(request),
        opcode::FLUSH => file::flush(request),
        opcode::RELEASE | opcode::RELEASEDIR => file::release(request),
        opcode::FSYNC | opcode::FSYNCDIR => file::sync(request),
        opcode::SYNCFS => file::sync_file_system(request),
        opcode::FALLOCATE => file::allocate(request),
        opcode::LSEEK => file::seek(request),
        opcode::COPY_FILE_RANGE => file::copy(request),
        opcode::OPENDIR => directory::open(request),
        opcode::READDIR => directory::read(request, false),
        opcode::READDIRPLUS => directory::read(request, true),
        opcode::SETXATTR => xattr::set(request),
        opcode::GETXATTR => xattr::get(request),
        opcode::LISTXATTR => xattr::list(request),
        opcode::REMOVEXATTR => xattr::remove(request),
        opcode::GETLK => get_lock(request),
        opcode::INTERRUPT => interrupt(request),
        _ => Err(Errno::NOSYS),
    }
}

fn set_lock(request: Request<'_, '_>) -> Result<Served, Errno> {
    let Request { tree, header, .. } = request;
    let ask = Ask::of(request.fields)?;
    let node = tree.node(header.node)?;
    let handle = match ask.is_flock {
        true => Some(tree.handle(ask.handle, header.node)?),
        false => None,
    };
    if ask.locks() && tree.note_first_lock(&node) {
        std::thread::sleep(SETTLING);
    }
    let waits = (header.opcode == opcode::SETLKW).then_some(header.unique);
    Ok(match tree.locks.set(&node, handle, ask, waits)? {
        Outcome::Done => Served::Now,
        Outcome::Waits { needs_thread } => Served::Later { needs_thread },
    })
}

fn get_lock(request: Request<'_, '_>) -> Result<(), Errno> {
    let Request { tree, header, .. } = request;
    let ask = Ask::of(request.fields)?;
    let node = tree.node(header.node)?;
    let conflict = tree.locks.test(&node, ask)?;
    // Whose it is the host does not say, and its processes are nobody in the guest.
    let reply = request.reply;
    reply.u64(conflict.start).u64(conflict.end);
    reply.u32(conflict.kind).u32(0);
    Ok(())
}

fn interrupt(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let unique = request.fields.u64()?;
    request.tree.locks.interrupt(unique);
    Ok(())
}
