//! Directories: blocks of entries sorted by name, `.` and `..` among them.

use super::format::{BLOCK_SIZE, DIRENT, dirent_type};
use crate::layer::tree::{DentryId, InodeId, Tree};
use std::io;

/// One entry as it will stand in its directory.
struct Entry<'a> {
    name: &'a [u8],
    nid: u32,
    mode: u16,
}

/// Bytes of the directory whose sorted names these are.
pub(super) fn size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut full = 0u64;
    let mut used = 0;
    for name in names {
        let need = DIRENT + name.len();
        if used + need > BLOCK_SIZE {
            full += 1;
            used = 0;
        }
        used += need;
    }
    full * BLOCK_SIZE as u64 + used as u64
}

/// The sorted names of a laid-out directory: `.` and `..` go between those around them.
pub(super) fn names<'a>(
    tree: &'a Tree,
    children: &'a [DentryId],
) -> impl Iterator<Item = &'a [u8]> {
    let dots = [&b"."[..], b".."];
    let split = children.partition_point(|&child| tree.name(child) < &b"."[..]);
    // No name lies between "." and "..": both are not names, and NUL is in none.
    let (before, after) = children.split_at(split);
    before
        .iter()
        .map(|&child| tree.name(child))
        .chain(dots)
        .chain(after.iter().map(|&child| tree.name(child)))
}

/// Calls `put` with every block of a directory; the last is as long as its contents. `nid` gives the
/// number under which an inode is found.
pub(super) fn blocks(
    tree: &Tree,
    dir: InodeId,
    parent: InodeId,
    nid: impl Fn(InodeId) -> u32,
    mut put: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let special = |name, inode| Entry {
        name,
        nid: nid(inode),
        mode: tree.inode(inode).mode,
    };
    let mut dots = vec![special(&b".."[..], parent), special(b".", dir)];
    let mut children = tree.children(dir).peekable();
    let mut block: Vec<Entry<'_>> = Vec::new();
    let mut used = 0;
    let mut bytes = Vec::with_capacity(BLOCK_SIZE);
    loop {
        let child_is_next = children
            .peek()
            .is_some_and(|&child| dots.is_empty() || tree.name(child) < &b"."[..]);
        let entry = if child_is_next {
            children.next().and_then(|child| {
                let inode = tree.dentry(child).inode?;
                Some(special(tree.name(child), inode))
            })
        } else {
            dots.pop()
        };
        let Some(entry) = entry else { break };
        let need = DIRENT + entry.name.len();
        if used + need > BLOCK_SIZE {
            encode(&block, &mut bytes);
            bytes.resize(BLOCK_SIZE, 0);
            put(&bytes)?;
            block.clear();
            used = 0;
        }
        used += need;
        block.push(entry);
    }
    encode(&block, &mut bytes);
    put(&bytes)
}

fn encode(entries: &[Entry<'_>], bytes: &mut Vec<u8>) {
    bytes.clear();
    let mut name_offset = entries.len() * DIRENT;
    for entry in entries {
        bytes.extend_from_slice(&u64::from(entry.nid).to_le_bytes());
        let offset = u16::try_from(name_offset).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&offset.to_le_bytes());
        bytes.extend_from_slice(&[dirent_type(entry.mode), 0]);
        name_offset += entry.name.len();
    }
    for entry in entries {
        bytes.extend_from_slice(entry.name);
    }
}
