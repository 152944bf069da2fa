//! Extended attributes, ACLs among them.

use super::Request;
use crate::owners::{Owners, RESERVED};
use crate::tree::{Link, Node};
use crate::wire::Fields;
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::ffi::CStr;
use std::sync::Arc;

/// Most bytes of a value, and of a list (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const MOST: usize = 64 << 10;

fn name<'a>(fields: &mut Fields<'a>) -> Result<&'a CStr, Errno> {
    let name = fields.text()?;
    match name.to_bytes().len() {
        0 | 256.. => Err(Errno::RANGE),
        _ => Ok(name),
    }
}

fn is_reserved(name: &CStr) -> bool {
    name.to_bytes().starts_with(RESERVED)
}

/// An ACL says what the host's users may do, and none of them is one of the guest's.
fn is_foreign(node: &Node, name: &CStr) -> bool {
    node.policy.owners == Owners::Kept && name.to_bytes().starts_with(b"system.posix_acl_")
}

fn node_of(request: &Request<'_, '_>) -> Result<Arc<Node>, Errno> {
    request.tree.node(request.header.node)
}

/// `SETXATTR`.
pub fn set(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let fields = &mut request.fields;
    let (size, flags) = (fields.u32()?, fields.u32()?);
    let size = usize::try_from(size).map_err(|_| Errno::TOOBIG)?;
    if size > MOST {
        return Err(Errno::TOOBIG);
    }
    let name = name(fields)?;
    let value = fields.bytes(size)?;
    let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
    let node = node_of(&request)?;
    if is_reserved(name) {
        return Err(Errno::PERM);
    }
    if is_foreign(&node, name) {
        return Err(Errno::OPNOTSUPP);
    }
    rustix::fs::setxattr(Link::to(&*node).name(), name, value, flags)
}

/// `GETXATTR`.
pub fn get(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let size = size(&mut request.fields)?;
    let name = name(&mut request.fields)?;
    let node = node_of(&request)?;
    if is_reserved(name) || is_foreign(&node, name) {
        return Err(Errno::NODATA);
    }
    let link = Link::to(&*node);
    if size == 0 {
        let mut nothing: [u8; 0] = [];
        let size = rustix::fs::getxattr(link.name(), name, &mut nothing[..])?;
        return tell_size(request, size);
    }
    let fill = |bytes: &mut [u8]| rustix::fs::getxattr(link.name(), name, bytes);
    request.reply.fill(size, fill)
}

/// `LISTXATTR`.
pub fn list(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let size = size(&mut request.fields)?;
    let node = node_of(&request)?;
    let mut all = vec![0; MOST];
    let len = rustix::fs::listxattr(Link::to(&*node).name(), &mut all[..])?;
    let names = all[..len].split_inclusive(|byte| *byte == 0);
    let told: Vec<u8> = names
        .filter(|name| !name.starts_with(RESERVED))
        .flatten()
        .copied()
        .collect();
    if size == 0 {
        return tell_size(request, told.len());
    }
    if told.len() > size {
        return Err(Errno::RANGE);
    }
    request.reply.bytes(&told);
    Ok(())
}

/// `REMOVEXATTR`.
pub fn remove(mut request: Request<'_, '_>) -> Result<(), Errno> {
    let name = name(&mut request.fields)?;
    let node = node_of(&request)?;
    if is_reserved(name) {
        return Err(Errno::PERM);
    }
    if is_foreign(&node, name) {
        return Err(Errno::NODATA);
    }
    rustix::fs::removexattr(Link::to(&*node).name(), name)
}

/// `struct fuse_getxattr_in`: how much room there is; none, to hear how much it takes.
fn size(fields: &mut Fields<'_>) -> Result<usize, Errno> {
    let size = fields.u32()?;
    fields.u32()?;
    usize::try_from(size)
        .map(|size| size.min(MOST))
        .map_err(|_| Errno::INVAL)
}

fn tell_size(request: Request<'_, '_>, size: usize) -> Result<(), Errno> {
    let size = u32::try_from(size).map_err(|_| Errno::TOOBIG)?;
    request.reply.u32(size).u32(0);
    Ok(())
}
