//! Agreeing on what is spoken.

use super::Request;
use crate::tree::Tree;
use crate::wire::MAX_DATA;
use rustix::io::Errno;
use std::sync::atomic::Ordering;

/// The version that these structures are of.
const MAJOR: u32 = 7;
const MINOR: u32 = 38;
/// Before it, replies have other sizes.
const OLDEST_MINOR: u32 = 31;

// Features, as in linux/fuse.h.
const ASYNC_READ: u32 = 1;
const POSIX_LOCKS: u32 = 1 << 1;
const ATOMIC_O_TRUNC: u32 = 1 << 3;
const BIG_WRITES: u32 = 1 << 5;
/// The kernel sends the mask along, and the host's kernel applies it, or an ACL in its place.
const DONT_MASK: u32 = 1 << 6;
const FLOCK_LOCKS: u32 = 1 << 10;
/// Contents that are cached go when a file's size or time says that it has changed.
const AUTO_INVAL_DATA: u32 = 1 << 12;
const DO_READDIRPLUS: u32 = 1 << 13;
const READDIRPLUS_AUTO: u32 = 1 << 14;
const ASYNC_DIO: u32 = 1 << 15;
const WRITEBACK_CACHE: u32 = 1 << 16;
const PARALLEL_DIROPS: u32 = 1 << 18;
const POSIX_ACL: u32 = 1 << 20;
const MAX_PAGES: u32 = 1 << 22;
/// What a symbolic link says never changes: another one in its place is another file.
const CACHE_SYMLINKS: u32 = 1 << 23;
/// Who writes to a setuid program takes the bit away, and the server does it.
const HANDLE_KILLPRIV_V2: u32 = 1 << 28;

const OFFERED: u32 = ASYNC_READ
    | POSIX_LOCKS
    | ATOMIC_O_TRUNC
    | BIG_WRITES
    | DONT_MASK
    | FLOCK_LOCKS
    | AUTO_INVAL_DATA
    | DO_READDIRPLUS
    | READDIRPLUS_AUTO
    | ASYNC_DIO
    | PARALLEL_DIROPS
    | POSIX_ACL
    | MAX_PAGES
    | CACHE_SYMLINKS
    | HANDLE_KILLPRIV_V2;

/// How many requests that nobody waits for the kernel sends at a time, and from where on it slows down.
const BACKGROUND: u16 = 64;
const CONGESTED: u16 = 48;

/// Begins a session, which ends the one before.
pub fn init(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let Request { tree, reply, .. } = request;
    let fields = &mut request.fields;
    let (major, minor) = (fields.u32()?, fields.u32()?);
    if major > MAJOR {
        // The kernel begins anew with the version that it is told.
        reply.u32(MAJOR).u32(MINOR);
        return Ok(());
    }
    if major < MAJOR || minor < OLDEST_MINOR {
        return Err(Errno::PROTO);
    }
    let (read_ahead, capable) = (fields.u32()?, fields.u32()?);
    destroy(tree);
    let mut offered = OFFERED;
    if tree.is_exclusive() {
        offered |= WRITEBACK_CACHE;
    }
    let agreed = offered & capable;
    tree.session
        .writes_back
        .store(agreed & WRITEBACK_CACHE != 0, Ordering::Relaxed);
    tree.session.begun.store(true, Ordering::Relaxed);
    reply.u32(MAJOR).u32(MINOR).u32(read_ahead).u32(agreed);
    reply.u16(BACKGROUND).u16(CONGESTED);
    let max_data = u32::try_from(MAX_DATA).map_err(|_| Errno::OVERFLOW)?;
    let pages = u16::try_from(MAX_DATA >> 12).map_err(|_| Errno::OVERFLOW)?;
    // Times are exact to one nanosecond.
    reply.u32(max_data).u32(1).u16(pages).u16(0);
    reply.bytes(&[0; 32]);
    Ok(())
}

/// Ends a session.
pub fn destroy(tree: &Tree) {
    tree.session.begun.store(false, Ordering::Relaxed);
    tree.clear();
}
