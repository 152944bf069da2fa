//! From tar entries to a tree, with data going to disk as it streams by.

use super::file::{FileSink, inline_len};
use super::path::{self, MAX_SYMLINKS, Marker};
use super::tree::{
    Content, DentryId, Inode, InodeId, ROOT, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG,
    Tree,
};
use super::{LayerError, Problem, WalkError, shown};
use crate::erofs::{
    BLOCK_SIZE, DataWriter, NO_BLOCK, Spool, Written, XattrSet, encode_device, write_metadata,
};
use crate::limits::Limits;
use hullbox_tar::{Entry, Kind, TarReader, TarSource};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

/// Bytes of link targets that may wait for the layers below.
const MAX_PENDING_BYTES: usize = 4 * 1024 * 1024;
/// Names that may be followed behind symbolic links, all entries together: each entry alone may
/// lead through forty links of two thousand names.
const MAX_LINK_STEPS: u64 = 10_000_000;
/// Longest target of a symbolic link (PATH_MAX with its NUL).
const MAX_TARGET: usize = 4095;

/// A layer whose tar was read to the end.
#[derive(Debug)]
pub(crate) enum Converted {
    /// It means the same everywhere: its image is finished, though not synced.
    Independent { file: File, written: Written },
    /// It needs the layers below before its image can be finished.
    Dependent(Draft),
}

/// What [`super::finish`] needs of a dependent layer. Its files are closed meanwhile: an archive may
/// have more such layers than a process descriptors.
#[derive(Debug)]
pub(crate) struct Draft {
    /// The image so far: data.
    pub data: PathBuf,
    pub blocks: u32,
    /// Tails and link targets.
    pub spool: PathBuf,
    pub spool_len: u64,
    /// The tree.
    pub tree: PathBuf,
    pub links: Vec<PendingLink>,
    /// Whether the image is finished in the file that has its data: nobody else finishes it there.
    pub in_place: bool,
}

/// A hard link to a name that this layer does not have.
#[derive(Debug, Clone)]
pub(crate) struct PendingLink {
    /// The name of one such link, for errors.
    pub path: Vec<u8>,
    /// The name it leads to.
    pub target: Vec<u8>,
}

/// Where a layer's bytes go: three fresh files of the staging area.
pub(crate) struct Workspace {
    pub image: (File, PathBuf),
    pub spool: (File, PathBuf),
    pub tree: (File, PathBuf),
}

/// Reads `tar` to the end of the archive and makes of it what can be made without other layers.
pub(crate) fn convert<R: TarSource>(
    tar: &mut TarReader<R>,
    space: Workspace,
    limits: &Limits,
) -> Result<Converted, LayerError> {
    let mut converter = Converter {
        tree: Tree::new(limits),
        // Block 0 is the superblock's.
        data: DataWriter::new(space.image.0, 1),
        spool: Spool::new(space.spool.0, 0),
        limits,
        links: Vec::new(),
        links_by_target: HashMap::new(),
        pending_bytes: 0,
        implied: 0,
        whiteouts: false,
        link_steps: 0,
    };
    while let Some(entry) = tar.next_entry()? {
        converter.entry(tar, &entry)?;
    }
    converter.into_converted(space.image.1, space.spool.1, space.tree)
}

struct Converter<'a> {
    tree: Tree,
    data: DataWriter,
    spool: Spool,
    limits: &'a Limits,
    links: Vec<PendingLink>,
    links_by_target: HashMap<Vec<u8>, InodeId>,
    pending_bytes: usize,
    /// Directories below the root that no entry has described yet.
    implied: u64,
    whiteouts: bool,
    link_steps: u64,
}

impl Converter<'_> {
    fn entry<R: TarSource>(
        &mut self,
        tar: &mut TarReader<R>,
        entry: &Entry,
    ) -> Result<(), LayerError> {
        let fail = |problem: Problem| problem.of(&entry.path);
        let names = path::components(&entry.path).map_err(fail)?;
        let marker = path::marker(&names).map_err(fail)?;
        let Some((last, parents)) = names.split_last() else {
            return self.root(entry);
        };
        match marker {
            Marker::Aufs => Ok(()),
            Marker::Opaque => self.whiteout(&entry.path, parents, None),
            Marker::Whiteout(name) => self.whiteout(&entry.path, parents, Some(name)),
            Marker::Plain => {
                let dir = self.walk(parents).map_err(|e| e.at(&entry.path))?;
                self.plain(tar, entry, dir, last)
            }
        }
    }

    /// Whites out one name of a directory, or all.
    fn whiteout(
        &mut self,
        path: &[u8],
        parents: &[&[u8]],
        name: Option<&[u8]>,
    ) -> Result<(), LayerError> {
        self.whiteouts = true;
        let dir = match self.walk(parents) {
            Ok(dir) => dir,
            // umoci writes these when a file takes a directory's place: nothing is left to hide.
            Err(WalkError::Problem(Problem::NotADirectory)) => return Ok(()),
            Err(error) => return Err(error.at(path)),
        };
        match name {
            None => self.tree.inode_mut(dir).set_opaque(),
            Some(name) => {
                let dentry = self.tree.entry(dir, name)?;
                self.tree.set_whited_out(dentry, true);
            }
        }
        Ok(())
    }

    fn root(&mut self, entry: &Entry) -> Result<(), LayerError> {
        if entry.kind != Kind::Dir {
            return Err(Problem::RootNotADirectory.of(&entry.path));
        }
        let description = self.describe(entry)?;
        self.tree.describe_dir(ROOT, description);
        Ok(())
    }

    fn plain<R: TarSource>(
        &mut self,
        tar: &mut TarReader<R>,
        entry: &Entry,
        dir: InodeId,
        name: &[u8],
    ) -> Result<(), LayerError> {
        if entry.kind == Kind::HardLink {
            return self.hard_link(entry, dir, name);
        }
        let mut inode = self.describe(entry)?;
        match entry.kind {
            Kind::File => self.file(tar, entry, &mut inode)?,
            Kind::Symlink => self.symlink(entry, &mut inode)?,
            Kind::Char | Kind::Block => inode.content = Content::Device(device(entry)?),
            Kind::Dir => inode.content = Content::EMPTY_DIRECTORY,
            Kind::Fifo | Kind::HardLink => {}
        }
        let dentry = self.entry_to_fill(dir, name)?;
        self.tree.place(dentry, inode)
    }

    /// The entry of this name, which gets a described inode now.
    fn entry_to_fill(&mut self, dir: InodeId, name: &[u8]) -> Result<DentryId, LayerError> {
        let dentry = self.tree.entry(dir, name)?;
        if let Some(old) = self.tree.dentry(dentry).inode
            && self.tree.inode(old).is_implied()
        {
            self.implied -= 1;
        }
        Ok(dentry)
    }

    /// Type, permissions, owner, time and attributes of an entry.
    fn describe(&mut self, entry: &Entry) -> Result<Inode, LayerError> {
        let kind = match entry.kind {
            Kind::File | Kind::HardLink => S_IFREG,
            Kind::Symlink => S_IFLNK,
            Kind::Char => S_IFCHR,
            Kind::Block => S_IFBLK,
            Kind::Dir => S_IFDIR,
            Kind::Fifo => S_IFIFO,
        };
        // Linux ignores a symbolic link's permissions and shows them all.
        let permissions = if kind == S_IFLNK { 0o777 } else { entry.mode };
        Ok(Inode {
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime.0,
            mtime_ns: entry.mtime.1,
            xattr: self.xattrs(entry)?,
            ..Inode::of_mode(kind | permissions)
        })
    }

    fn xattrs(&mut self, entry: &Entry) -> Result<u32, LayerError> {
        /// More than the kernel would list of one inode.
        const MAX_BYTES: usize = 64 * 1024;
        let mut set = XattrSet::default();
        let mut bytes = 0;
        for (name, value) in &entry.xattrs {
            if !is_kept(name, entry.kind) {
                continue;
            }
            bytes += name.len() + value.len() + 8;
            if bytes > MAX_BYTES || !set.insert(name, value) {
                return Err(Problem::Xattr.of(&entry.path));
            }
        }
        self.tree.intern(&set)
    }

    fn symlink(&mut self, entry: &Entry, inode: &mut Inode) -> Result<(), LayerError> {
        if entry.link.is_empty() || entry.link.len() > MAX_TARGET {
            return Err(Problem::LinkTarget.of(&entry.path));
        }
        inode.size = entry.link.len() as u64;
        if inline_len(&self.tree, inode) > 0 {
            let position = self.spool.put(NO_BLOCK, &entry.link);
            inode.content = Content::Inline(position.map_err(LayerError::Write)?);
        } else {
            let block = self.data.next_block().map_err(LayerError::Write)?;
            inode.content = Content::Blocks(block);
            self.data.write(&entry.link).map_err(LayerError::Write)?;
        }
        Ok(())
    }

    fn file<R: TarSource>(
        &mut self,
        tar: &mut TarReader<R>,
        entry: &Entry,
        inode: &mut Inode,
    ) -> Result<(), LayerError> {
        if entry.size > self.limits.max_file_bytes {
            return Err(Problem::FileTooLarge.of(&entry.path));
        }
        inode.size = entry.size;
        if entry.size == 0 {
            return Ok(());
        }
        let whole = [(0, entry.size)];
        let pieces = entry.sparse.as_deref().unwrap_or(&whole);
        let mut sink = FileSink::new(&self.tree, &mut self.data, inode, pieces)?;
        for &(offset, len) in pieces {
            let (mut at, end) = (offset, offset + len);
            while at < end {
                let chunk = tar.fill_data()?;
                let len = usize::try_from(end - at).map_or(chunk.len(), |n| n.min(chunk.len()));
                let taken = sink.write(at, &chunk[..len])?;
                tar.consume_kept(taken.kept, taken.offset);
                tar.consume_data(taken.len - taken.kept);
                at += taken.len as u64;
            }
        }
        sink.finish(&mut self.spool, inode)
    }

    fn hard_link(&mut self, entry: &Entry, dir: InodeId, name: &[u8]) -> Result<(), LayerError> {
        let fail = |problem: Problem| problem.of(&entry.path);
        let names = path::components(&entry.link).map_err(fail)?;
        let Some((last, parents)) = names.split_last() else {
            return Err(fail(Problem::LinkToDirectory));
        };
        let found = self
            .find_dir(parents)
            .map_err(|e| e.at(&entry.path))?
            .and_then(|dir| self.tree.lookup(dir, last))
            .and_then(|dentry| self.tree.dentry(dentry).inode);
        let inode = match found {
            Some(inode) if self.tree.inode(inode).is_dir() => {
                return Err(fail(Problem::LinkToDirectory));
            }
            Some(inode) => inode,
            None => self.pending(entry)?,
        };
        let dentry = self.entry_to_fill(dir, name)?;
        self.tree.set_inode(dentry, Some(inode));
        Ok(())
    }

    /// The inode that stands for a name of the layers below.
    fn pending(&mut self, entry: &Entry) -> Result<InodeId, LayerError> {
        if let Some(&inode) = self.links_by_target.get(&entry.link) {
            return Ok(inode);
        }
        self.pending_bytes += entry.link.len() + entry.path.len() + 64;
        if self.pending_bytes > MAX_PENDING_BYTES {
            let target = shown(&entry.link);
            return Err(Problem::LinkMissing(target).of(&entry.path));
        }
        // `MAX_PENDING_BYTES` bounds the list.
        let number = u32::try_from(self.links.len()).unwrap_or(u32::MAX);
        let inode = self.tree.add_inode(Inode {
            content: Content::PendingLink(number),
            ..Inode::of_mode(S_IFREG)
        })?;
        self.links.push(PendingLink {
            path: entry.path.clone(),
            target: entry.link.clone(),
        });
        self.links_by_target.insert(entry.link.clone(), inode);
        Ok(inode)
    }

    /// The directory these names lead to, made if need be.
    fn walk(&mut self, names: &[&[u8]]) -> Result<InodeId, WalkError> {
        self.follow(names, true)
            .and_then(|dir| dir.ok_or(WalkError::Problem(Problem::NotADirectory)))
    }

    /// The directory these names lead to, if it is there.
    fn find_dir(&mut self, names: &[&[u8]]) -> Result<Option<InodeId>, WalkError> {
        self.follow(names, false)
    }

    fn follow(&mut self, names: &[&[u8]], make: bool) -> Result<Option<InodeId>, WalkError> {
        let mut todo: VecDeque<Vec<u8>> = VecDeque::new();
        let mut direct = names.iter();
        let mut trail = vec![ROOT];
        let mut links = 0;
        loop {
            // Names that a link brought come before the rest of the path.
            let from_link = todo.pop_front();
            if from_link.is_some() {
                self.link_steps += 1;
                if self.link_steps > MAX_LINK_STEPS {
                    return Err(WalkError::Layer(LayerError::TooMany {
                        what: "names behind symbolic links",
                        limit: MAX_LINK_STEPS,
                    }));
                }
            }
            let name: &[u8] = match &from_link {
                Some(name) => name,
                None => match direct.next() {
                    Some(name) => name,
                    None => break,
                },
            };
            let here = trail.last().copied().unwrap_or(ROOT);
            if name == b".." {
                if trail.len() > 1 {
                    trail.pop();
                }
                continue;
            }
            let existing = self.tree.lookup(here, name);
            let Some(inode) = existing.and_then(|dentry| self.tree.dentry(dentry).inode) else {
                if !make {
                    return Ok(None);
                }
                let dentry = self.tree.entry(here, name)?;
                trail.push(self.tree.add_implied_dir(dentry)?);
                self.implied += 1;
                continue;
            };
            let node = *self.tree.inode(inode);
            match node.kind() {
                S_IFDIR => trail.push(inode),
                S_IFLNK => {
                    links += 1;
                    if links > MAX_SYMLINKS {
                        return Err(WalkError::Problem(Problem::SymlinkLoop));
                    }
                    let target = read_target(&mut self.data, &mut self.spool, &node)?;
                    if target.starts_with(b"/") {
                        trail.truncate(1);
                    }
                    path::expand(&target, &mut todo).map_err(WalkError::Problem)?;
                }
                _ => return Err(WalkError::Problem(Problem::NotADirectory)),
            }
        }
        Ok(trail.last().copied())
    }

    fn into_converted(
        mut self,
        data: PathBuf,
        spool: PathBuf,
        (tree_file, tree_path): (File, PathBuf),
    ) -> Result<Converted, LayerError> {
        if self.implied == 0 && !self.whiteouts && self.links.is_empty() {
            let (file, written) = write_metadata(&mut self.tree, self.data, &mut self.spool, None)?;
            return Ok(Converted::Independent { file, written });
        }
        let mut out = BufWriter::new(tree_file);
        self.tree
            .dump(&mut out)
            .and_then(|()| out.flush())
            .map_err(LayerError::Write)?;
        self.spool.flush().map_err(LayerError::Write)?;
        let spool_len = self.spool.position();
        let (_, blocks) = self.data.finish().map_err(LayerError::Write)?;
        Ok(Converted::Dependent(Draft {
            data,
            blocks,
            spool,
            spool_len,
            tree: tree_path,
            links: self.links,
            in_place: false,
        }))
    }
}

/// Target of a symbolic link that was written already.
pub(super) fn read_target(
    data: &mut DataWriter,
    spool: &mut Spool,
    link: &Inode,
) -> Result<Vec<u8>, LayerError> {
    let mut target = vec![0; usize::try_from(link.size).unwrap_or(0).min(MAX_TARGET)];
    let read = match link.content {
        Content::Inline(position) => spool.get(position, &mut target).map(drop),
        Content::Blocks(block) => data.read_at(&mut target, u64::from(block) * BLOCK_SIZE as u64),
        // A link's target is never empty, nor made of chunks.
        _ => Ok(()),
    };
    read.map_err(LayerError::Write)?;
    Ok(target)
}

fn device(entry: &Entry) -> Result<u32, LayerError> {
    if entry.kind == Kind::Char && entry.device == (0, 0) {
        return Err(Problem::ForgedWhiteout.of(&entry.path));
    }
    encode_device(entry.device.0, entry.device.1).ok_or_else(|| Problem::Device.of(&entry.path))
}

/// Which attributes enter the image: see the module's documentation.
fn is_kept(name: &[u8], kind: Kind) -> bool {
    let file_or_dir = matches!(kind, Kind::File | Kind::Dir);
    if name.starts_with(b"user.") {
        // The kernel knows no user attributes of anything else.
        return file_or_dir && !name.starts_with(b"user.overlay.") && name != b"user.";
    }
    if name.starts_with(b"trusted.") {
        return !name.starts_with(b"trusted.overlay.") && name != b"trusted.";
    }
    match name {
        b"security.capability" => kind == Kind::File,
        b"system.posix_acl_access" => kind != Kind::Symlink,
        b"system.posix_acl_default" => kind == Kind::Dir,
        _ => false,
    }
}
