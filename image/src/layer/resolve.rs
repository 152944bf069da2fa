//! Finishing a dependent layer on top of the layers below it.

use super::below::{Below, Chain, Child};
use super::convert::{Draft, PendingLink, read_target};
use super::file::FileSink;
use super::path::{self, MAX_SYMLINKS};
use super::tree::{Inode, NONE, ROOT, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, Tree, flag};
use super::{LayerError, Problem, WalkError, shown};
use crate::erofs::{BLOCK_SIZE, DataWriter, Node, Spool, Written, write_metadata};
use crate::limits::Limits;
use hullbox_tar::MAX_SEGMENTS;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::BufReader;

/// Completes a layer's image in `image`, which has the draft's data already. `chain` is what lies
/// below, highest layer first.
pub(crate) fn finish(
    draft: &Draft,
    image: File,
    chain: &Chain,
    limits: &Limits,
    budget: &mut CopyBudget,
) -> Result<(File, Written), LayerError> {
    let mut input = BufReader::new(File::open(&draft.tree).map_err(LayerError::Write)?);
    let tree = Tree::restore(&mut input, limits).map_err(LayerError::Write)?;
    let spool = File::options().read(true).write(true).open(&draft.spool);
    let spool = spool.map_err(LayerError::Write)?;
    let sealed_from = draft.blocks;
    let mut resolver = Resolver {
        tree,
        data: DataWriter::new(image, draft.blocks),
        spool: Spool::new(spool, draft.spool_len),
        chain,
        budget,
    };
    resolver.settle_until_quiet()?;
    resolver.links(&draft.links)?;
    // What links bring from below stands behind this layer's own data: its tar does not have it.
    write_metadata(
        &mut resolver.tree,
        resolver.data,
        &mut resolver.spool,
        Some(sealed_from),
    )
}

struct Resolver<'a> {
    tree: Tree,
    data: DataWriter,
    spool: Spool,
    chain: &'a Chain,
    budget: &'a mut CopyBudget,
}

/// A directory on the way down, and what of it is below.
#[derive(Clone)]
struct Step {
    dir: u32,
    below: Below,
}

/// A directory whose entries are being settled.
struct Frame {
    step: Step,
    name: Vec<u8>,
    todo: Vec<u32>,
}

impl Resolver<'_> {
    /// Settles the tree, again if subtrees moved: what moved may meet further links.
    fn settle_until_quiet(&mut self) -> Result<(), LayerError> {
        for _ in 0..MAX_SYMLINKS {
            if !self.settle()? {
                return Ok(());
            }
        }
        Err(Problem::SymlinkLoop.of(b"/"))
    }

    /// One walk over the tree. Whiteouts of nothing go, undescribed directories take after those
    /// below, and those that are symbolic links below move to where the link leads (true).
    fn settle(&mut self) -> Result<bool, LayerError> {
        let mut moved = false;
        self.take_after(ROOT, &Below::root(self.chain)?)?;
        let root = self.root_step()?;
        let mut frames = vec![self.frame(root, Vec::new())];
        while let Some(frame) = frames.last_mut() {
            let Some(dentry) = frame.todo.pop() else {
                frames.pop();
                continue;
            };
            let inode = self.tree.dentry(dentry).inode;
            if inode != NONE && !self.tree.inode(inode).is_dir() {
                continue;
            }
            let step = frame.step.clone();
            let name = self.tree.name(dentry).to_vec();
            if inode == NONE {
                if self.tree.is_whited_out(dentry)
                    && matches!(step.below.child(self.chain, &name)?, Child::Nothing)
                {
                    self.tree.set_whited_out(dentry, false);
                }
                continue;
            }
            match self.below_dir(&step, dentry)? {
                Child::Other(layer, node) if self.tree.inode(inode).has(flag::IMPLIED) => {
                    if node.mode & S_IFMT != S_IFLNK && self.holds_only_whiteouts(inode) {
                        self.tree.dentries[dentry as usize].inode = NONE;
                        continue;
                    }
                    if node.mode & S_IFMT != S_IFLNK {
                        return Err(Problem::NotADirectory.of(&path_of(&frames, &name)));
                    }
                    let target = self.chain[layer].link_target(&node)?;
                    let trail = frames.iter().map(|frame| frame.step.clone()).collect();
                    self.relocate(dentry, trail, &target)
                        .map_err(|e| e.at(&path_of(&frames, &name)))?;
                    moved = true;
                }
                Child::Nothing | Child::Other(..) => {
                    let below = Below::default();
                    frames.push(self.frame(Step { dir: inode, below }, name));
                }
                Child::Dir(below) => {
                    self.take_after(inode, &below)?;
                    let step = self.step(inode, below);
                    frames.push(self.frame(step, name));
                }
            }
        }
        Ok(moved)
    }

    /// Whether nothing is in an undescribed directory that would make it one.
    fn holds_only_whiteouts(&self, dir: u32) -> bool {
        let mut dirs = vec![dir];
        while let Some(dir) = dirs.pop() {
            for child in self.tree.children(dir) {
                let inode = self.tree.dentry(child).inode;
                if inode == NONE {
                    continue;
                }
                if !self.tree.inode(inode).has(flag::IMPLIED) {
                    return false;
                }
                dirs.push(inode);
            }
        }
        true
    }

    fn root_step(&self) -> Result<Step, LayerError> {
        Ok(self.step(ROOT, Below::root(self.chain)?))
    }

    /// A directory of this layer over one below, which it hides if it is opaque.
    fn step(&self, dir: u32, below: Below) -> Step {
        if self.tree.inode(dir).has(flag::OPAQUE) {
            let below = Below::default();
            return Step { dir, below };
        }
        Step { dir, below }
    }

    fn frame(&self, step: Step, name: Vec<u8>) -> Frame {
        let todo = self.tree.children(step.dir).collect();
        Frame { step, name, todo }
    }

    /// What stands below in the place of a directory of this layer, unless it is whited out.
    fn below_dir(&self, parent: &Step, dentry: u32) -> Result<Child, LayerError> {
        if self.tree.is_whited_out(dentry) {
            return Ok(Child::Nothing);
        }
        let name = self.tree.name(dentry);
        Ok(parent.below.child(self.chain, name)?)
    }

    /// Gives an undescribed directory the looks of the one below.
    fn take_after(&mut self, dir: u32, below: &Below) -> Result<(), LayerError> {
        let Some(&(layer, node)) = below.top() else {
            return Ok(());
        };
        if !self.tree.inode(dir).has(flag::IMPLIED) {
            return Ok(());
        }
        let description = self.describe(layer, &node)?;
        self.tree.describe_dir(dir, description);
        Ok(())
    }

    /// An inode like one below, without its data.
    fn describe(&mut self, layer: usize, node: &Node) -> Result<Inode, LayerError> {
        let mut xattrs = self.chain[layer].xattrs(node)?;
        xattrs.remove_markers();
        Ok(Inode {
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            mtime: node.mtime.0,
            mtime_ns: node.mtime.1,
            xattr: self.tree.intern(&xattrs)?,
            data: NONE,
            ..Inode::default()
        })
    }

    /// Moves what is in an undescribed directory to where the link of its name below leads.
    fn relocate(&mut self, dentry: u32, trail: Vec<Step>, target: &[u8]) -> Result<(), WalkError> {
        let from = self.tree.dentry(dentry).inode;
        self.tree.dentries[dentry as usize].inode = NONE;
        let mut walk = Walk {
            trail,
            todo: VecDeque::new(),
            links: 1,
        };
        walk.expand(target)?;
        let to = self.walk(walk)?.dir;
        self.merge(from, to)?;
        Ok(())
    }

    /// Moves the entries of one directory into another; what is there already stays.
    fn merge(&mut self, from: u32, to: u32) -> Result<(), LayerError> {
        let mut pairs = vec![(from, to)];
        while let Some((from, to)) = pairs.pop() {
            let opaque = self.tree.inode(from).flags & flag::OPAQUE;
            self.tree.inode_mut(to).flags |= opaque;
            let children: Vec<u32> = self.tree.children(from).collect();
            for child in children {
                let name = self.tree.name(child).to_vec();
                let inode = self.tree.dentry(child).inode;
                let there = self.tree.entry(to, &name)?;
                if self.tree.is_whited_out(child) {
                    self.tree.set_whited_out(there, true);
                }
                let old = self.tree.dentry(there).inode;
                if old == NONE {
                    self.tree.dentries[there as usize].inode = inode;
                } else if inode != NONE
                    && self.tree.inode(old).is_dir()
                    && self.tree.inode(inode).is_dir()
                {
                    if self.tree.inode(old).has(flag::IMPLIED) {
                        let description = *self.tree.inode(inode);
                        self.tree.describe_dir(old, description);
                        let implied = description.flags & flag::IMPLIED;
                        self.tree.inode_mut(old).flags |= implied;
                    }
                    pairs.push((inode, old));
                }
            }
        }
        Ok(())
    }

    /// Follows names through this layer and those below, making directories in this one.
    fn walk(&mut self, mut walk: Walk) -> Result<Step, WalkError> {
        while let Some(name) = walk.todo.pop_front() {
            if name == b".." {
                if walk.trail.len() > 1 {
                    walk.trail.pop();
                }
                continue;
            }
            let Some(here) = walk.trail.last().cloned() else {
                break;
            };
            let dentry = self.tree.lookup(here.dir, &name);
            let inode = dentry.map_or(NONE, |dentry| self.tree.dentry(dentry).inode);
            if let Some(dentry) = dentry
                && inode != NONE
            {
                let node = *self.tree.inode(inode);
                match node.mode & S_IFMT {
                    S_IFDIR => {
                        let below = match self.below_dir(&here, dentry)? {
                            Child::Dir(below) => below,
                            Child::Nothing | Child::Other(..) => Below::default(),
                        };
                        walk.trail.push(self.step(inode, below));
                    }
                    S_IFLNK => {
                        let target = read_target(&mut self.data, &mut self.spool, &node)?;
                        walk.expand(&target)?;
                    }
                    _ => return Err(WalkError::Problem(Problem::NotADirectory)),
                }
                continue;
            }
            let gone = dentry.is_some_and(|dentry| self.tree.is_whited_out(dentry));
            let child = if gone {
                Child::Nothing
            } else {
                here.below.child(self.chain, &name)?
            };
            match child {
                Child::Other(layer, node) if node.mode & S_IFMT == S_IFLNK => {
                    let target = self.chain[layer].link_target(&node)?;
                    walk.expand(&target)?;
                }
                Child::Other(..) => return Err(WalkError::Problem(Problem::NotADirectory)),
                Child::Nothing => {
                    walk.trail
                        .push(self.make_dir(here.dir, &name, Below::default())?)
                }
                Child::Dir(below) => walk.trail.push(self.make_dir(here.dir, &name, below)?),
            }
        }
        walk.trail
            .pop()
            .ok_or(WalkError::Problem(Problem::NotADirectory))
    }

    fn make_dir(&mut self, parent: u32, name: &[u8], below: Below) -> Result<Step, LayerError> {
        let dentry = self.tree.entry(parent, name)?;
        let dir = self.tree.add_implied_dir(dentry)?;
        self.take_after(dir, &below)?;
        Ok(Step { dir, below })
    }

    /// Brings the files that hard links lead to into this layer, each once.
    fn links(&mut self, links: &[PendingLink]) -> Result<(), LayerError> {
        let mut wanted: HashMap<u32, u32> = HashMap::new();
        for dentry in &self.tree.dentries {
            if dentry.inode != NONE && self.tree.inode(dentry.inode).has(flag::PENDING) {
                let inode = dentry.inode;
                wanted.insert(inode, inode);
            }
        }
        let mut copies: HashMap<(usize, u64), u32> = HashMap::new();
        let mut order: Vec<u32> = wanted.keys().copied().collect();
        order.sort_unstable();
        for inode in order {
            let link = links
                .get(self.tree.inode(inode).data as usize)
                .ok_or(LayerError::TooLarge)?;
            let (target, layer, node) = self.link_source(link).map_err(|e| e.at(&link.path))?;
            let copy = match copies.get(&(layer, node.xattr_start)) {
                Some(&copy) => copy,
                None => {
                    *self.tree.inode_mut(inode) = self.copy(layer, &node)?;
                    copies.insert((layer, node.xattr_start), inode);
                    inode
                }
            };
            wanted.insert(inode, copy);
            // overlayfs copies the old name up as well, so the two stay one file.
            if !self.tree.is_whited_out(target) && self.tree.dentry(target).inode == NONE {
                self.tree.dentries[target as usize].inode = copy;
            }
        }
        for dentry in &mut self.tree.dentries {
            if let Some(&copy) = wanted.get(&dentry.inode) {
                dentry.inode = copy;
            }
        }
        Ok(())
    }

    /// The entry a link's target has or would have here, and the inode it leads to below.
    fn link_source(&mut self, link: &PendingLink) -> Result<(u32, usize, Node), WalkError> {
        let names = path::components(&link.target).map_err(WalkError::Problem)?;
        let Some((last, parents)) = names.split_last() else {
            return Err(WalkError::Problem(Problem::LinkToDirectory));
        };
        let step = self.walk(Walk {
            trail: vec![self.root_step()?],
            todo: parents.iter().map(|name| name.to_vec()).collect(),
            links: 0,
        })?;
        match step.below.child(self.chain, last)? {
            Child::Other(layer, node) => {
                let target = self.tree.entry(step.dir, last)?;
                Ok((target, layer, node))
            }
            Child::Dir(_) => Err(WalkError::Problem(Problem::LinkToDirectory)),
            Child::Nothing => {
                let target = shown(&link.target);
                Err(WalkError::Problem(Problem::LinkMissing(target)))
            }
        }
    }

    /// A copy of a file below, in this layer.
    fn copy(&mut self, layer: usize, node: &Node) -> Result<Inode, LayerError> {
        let mut inode = self.describe(layer, node)?;
        if !matches!(node.mode & S_IFMT, S_IFREG | S_IFLNK) {
            inode.data = node.address;
            return Ok(inode);
        }
        inode.size = node.size;
        if node.size == 0 {
            return Ok(inode);
        }
        let pieces = self.pieces(layer, node)?;
        let mut sink = FileSink::new(&self.tree, &mut self.data, &inode, &pieces)?;
        let mut buffer = vec![0; 16 * BLOCK_SIZE];
        for (offset, len) in pieces {
            let (mut at, end) = (offset, offset + len);
            while at < end {
                let left = usize::try_from(end - at).unwrap_or(usize::MAX);
                let piece = left.min(buffer.len());
                let chunk = &mut buffer[..piece];
                self.chain[layer].read_data(node, at, chunk)?;
                at += sink.write(at, chunk)?.len as u64;
            }
        }
        sink.finish(&mut self.spool, &mut inode)?;
        Ok(inode)
    }

    /// Where a file below has its data, all of which the budget must have room for.
    fn pieces(&mut self, layer: usize, node: &Node) -> Result<Vec<(u64, u64)>, LayerError> {
        let mut pieces: Vec<(u64, u64)> = Vec::new();
        let mut from = 0;
        while let Some((start, end)) = self.chain[layer].next_data(node, from)? {
            self.budget.take(end - start)?;
            let full = pieces.len() >= MAX_SEGMENTS;
            match pieces.last_mut() {
                // A file with more holes than a tar may have keeps its first.
                Some((offset, len)) if full => {
                    self.budget.take(start - (*offset + *len))?;
                    *len = end - *offset;
                }
                _ => pieces.push((start, end - start)),
            }
            from = end;
        }
        Ok(pieces)
    }
}

/// Bytes that hard links may still bring from the layers below, for one image: each costs its
/// author a line and the host a copy.
#[derive(Debug)]
pub(crate) struct CopyBudget {
    left: u64,
    limit: u64,
}

impl CopyBudget {
    pub(crate) const fn new(limits: &Limits) -> Self {
        let limit = limits.max_linked_bytes;
        Self { left: limit, limit }
    }

    fn take(&mut self, bytes: u64) -> Result<(), LayerError> {
        self.left = self.left.checked_sub(bytes).ok_or(LayerError::TooMany {
            what: "bytes that hard links bring from layers below",
            limit: self.limit,
        })?;
        Ok(())
    }
}

/// Names still to follow, and the directories that led here.
struct Walk {
    trail: Vec<Step>,
    todo: VecDeque<Vec<u8>>,
    links: usize,
}

impl Walk {
    /// Puts a link's target before the names still to follow.
    fn expand(&mut self, target: &[u8]) -> Result<(), WalkError> {
        self.links += 1;
        if self.links > MAX_SYMLINKS {
            return Err(WalkError::Problem(Problem::SymlinkLoop));
        }
        if target.starts_with(b"/") {
            self.trail.truncate(1);
        }
        path::expand(target, &mut self.todo).map_err(WalkError::Problem)
    }
}

fn path_of(frames: &[Frame], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::new();
    for part in frames.iter().skip(1).map(|frame| &frame.name[..]) {
        path.extend_from_slice(part);
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}
