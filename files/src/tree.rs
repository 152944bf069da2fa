//! The tree: what the guest knows of it, and what is open.
//!
//! A file that the guest knows is a descriptor without rights (`O_PATH`), and whatever is asked of it is
//! asked of that descriptor: no path is ever walked twice, so it does not matter what the host renames
//! meanwhile. What has to be done by a path goes through `/proc/self/fd`, which is the working directory.

use crate::export::Export;
use crate::locks::Locks;
use crate::owners::{Owners, Rights};
use crate::shared::{Shared, is_wal_index};
use crate::wire::{Attr, Entry, ROOT};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxFlags, openat, statx};
use rustix::io::Errno;
use std::collections::HashMap;
use std::collections::hash_map;
use std::ffi::CStr;
use std::fmt::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a guest may believe a name or an attribute that others may change. The next command in a
/// container sees what was changed before it; within one command a path's directories are not asked for
/// again and again.
const SHARED_HOLD: Duration = Duration::from_millis(10);
/// The same of files that nobody else changes.
const EXCLUSIVE_HOLD: Duration = Duration::from_secs(3600);

/// Most files that a guest can know at a time, if there are as many descriptors. The kernel's memory for
/// one is about a KiB.
const MAX_NODES: usize = 1 << 20;
/// Most files that it can have open, of those.
const MAX_HANDLES: usize = 1 << 16;
/// Descriptors for everything else.
const OTHERS: usize = 512;

/// A lock whose holder cannot leave anything half done.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How an export is served.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    pub owners: Owners,
    pub hold: Duration,
    pub exclusive: bool,
}

impl Policy {
    /// Of an export, for a server with such rights.
    pub fn of(export: &Export, rights: Rights) -> Self {
        Self {
            owners: Owners::of(export, rights),
            hold: match export.exclusive {
                true => EXCLUSIVE_HOLD,
                false => SHARED_HOLD,
            },
            exclusive: export.exclusive,
        }
    }

    /// Of the tree's root, which never changes.
    const fn root() -> Self {
        Self {
            owners: Owners::Host,
            hold: EXCLUSIVE_HOLD,
            exclusive: true,
        }
    }
}

/// What makes a file the same one: its inode, and the mount that it was found in. The same file in two
/// exports is two, of which one may be read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    mount: u64,
    device: (u32, u32),
    inode: u64,
}

impl Identity {
    const fn of(stat: &Statx) -> Self {
        Self {
            mount: stat.stx_mnt_id,
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
        }
    }
}

/// A file that the guest knows.
pub struct Node {
    /// Without rights.
    file: OwnedFd,
    pub number: u64,
    pub policy: Policy,
    pub kind: FileType,
    identity: Identity,
    pub shared: Shared,
}

impl Node {
    /// How long the guest may believe a name in this directory, or that there is none.
    pub fn names_hold(&self) -> Duration {
        match self.shared.has_turns() {
            true => Duration::ZERO,
            false => self.policy.hold,
        }
    }

    /// How long the guest may believe its attributes.
    pub fn attributes_hold(&self) -> Duration {
        match self.shared.has_turns() {
            true => Duration::ZERO,
            false => self.policy.hold,
        }
    }
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

struct Nodes {
    known: HashMap<u64, (Arc<Node>, u64)>,
    numbers: HashMap<Identity, u64>,
}

/// A file that the guest has open.
pub struct Handle {
    pub file: OwnedFd,
    pub node: u64,
    /// Held while a directory's position is used.
    pub position: Mutex<()>,
    /// Whatever is written through it goes to the file's end.
    pub appends: bool,
    /// Something was written that may be in the host's memory alone.
    pub is_dirty: AtomicBool,
}

/// What a guest's kernel and the server agreed on.
#[derive(Default)]
pub struct Session {
    pub begun: AtomicBool,
    /// The guest writes later, and knows sizes and times better than the host.
    pub writes_back: AtomicBool,
}

/// The tree.
pub struct Tree {
    nodes: Mutex<Nodes>,
    next: AtomicU64,
    handles: Mutex<HashMap<u64, Arc<Handle>>>,
    max_nodes: usize,
    max_handles: usize,
    policies: Vec<Policy>,
    /// File systems that files were found in: inode numbers of each are told apart.
    devices: Mutex<Vec<(u32, u32)>>,
    pub rights: Rights,
    pub session: Session,
    pub locks: Locks,
    /// Most bytes of a file (`RLIMIT_FSIZE`).
    pub file_limit: u64,
}

impl Tree {
    /// The tree below a directory, in which each export has its number for a name; with so many
    /// descriptors.
    ///
    /// # Errors
    /// The directory cannot be looked at.
    pub fn new(
        root: OwnedFd,
        exports: &[Export],
        rights: Rights,
        descriptors: usize,
    ) -> Result<Self, Errno> {
        let stat = stat_of(&root)?;
        let identity = Identity::of(&stat);
        let root = Arc::new(Node {
            file: root,
            number: ROOT,
            policy: Policy::root(),
            kind: FileType::from_raw_mode(stat.stx_mode.into()),
            identity,
            shared: Shared::default(),
        });
        let max_handles = MAX_HANDLES.min(descriptors / 4);
        Ok(Self {
            nodes: Mutex::new(Nodes {
                numbers: HashMap::from([(identity, ROOT)]),
                known: HashMap::from([(ROOT, (root, 1))]),
            }),
            next: AtomicU64::new(ROOT + 1),
            handles: Mutex::default(),
            max_nodes: MAX_NODES.min(descriptors.saturating_sub(max_handles + OTHERS)),
            max_handles,
            policies: exports
                .iter()
                .map(|export| Policy::of(export, rights))
                .collect(),
            devices: Mutex::default(),
            rights,
            session: Session::default(),
            locks: Locks::default(),
            file_limit: rustix::process::getrlimit(rustix::process::Resource::Fsize)
                .current
                .unwrap_or(u64::MAX),
        })
    }

    /// Whether nobody else uses any of these files.
    pub fn is_exclusive(&self) -> bool {
        !self.policies.is_empty() && self.policies.iter().all(|policy| policy.exclusive)
    }

    /// Forgets everything, as after a guest's unmount.
    pub fn clear(&self) {
        let closed = std::mem::take(&mut *lock(&self.handles));
        drop(closed);
        self.locks.clear();
        let mut nodes = lock(&self.nodes);
        let root = nodes.known.remove(&ROOT);
        let known = std::mem::take(&mut nodes.known);
        nodes.numbers.clear();
        if let Some((root, _)) = root {
            nodes.numbers.insert(root.identity, ROOT);
            nodes.known.insert(ROOT, (root, 1));
        }
        drop(nodes);
        drop(known);
    }

    /// A file that the guest knows.
    pub fn node(&self, number: u64) -> Result<Arc<Node>, Errno> {
        let nodes = lock(&self.nodes);
        let known = nodes.known.get(&number).map(|(node, _)| node.clone());
        known.ok_or(Errno::STALE)
    }

    /// How an entry of a directory is served.
    fn policy_below(&self, parent: &Node, name: &CStr) -> Policy {
        if parent.number != ROOT {
            return parent.policy;
        }
        let number = name.to_str().ok().and_then(|name| name.parse().ok());
        let policy = number.and_then(|number: usize| self.policies.get(number));
        policy.copied().unwrap_or_else(Policy::root)
    }

    /// Looks up a name, which is no more than a name. The guest knows one more time what it leads to.
    pub fn look_up(&self, parent: &Node, name: &CStr) -> Result<Entry, Errno> {
        let policy = self.policy_below(parent, name);
        let mut entry = self.look_up_with(parent, name, policy)?;
        self.note_name(parent, name, &mut entry);
        Ok(entry)
    }

    /// Remembers where a file was found, and what its name says of it.
    pub fn note_name(&self, parent: &Node, name: &CStr, entry: &mut Entry) {
        let Ok(node) = self.node(entry.node) else {
            return;
        };
        node.shared.note_parent(parent.number);
        if is_wal_index(name) {
            node.shared.note_wal_index();
        }
        if parent.shared.has_turns() {
            node.shared.note_turns();
        }
        entry.hold = parent.names_hold();
        entry.attributes_hold = node.attributes_hold();
    }

    /// The guest is about to take a lock of a file that others change, too. True if it is the first one: then
    /// what it was told before holds for another moment.
    pub fn note_first_lock(&self, node: &Node) -> bool {
        if node.policy.exclusive || !node.shared.is_first_lock() {
            return false;
        }
        // Programs take turns with what lies beside it, too: a journal, for one, that is there or not.
        if let Ok(parent) = self.node(node.shared.parent()) {
            parent.shared.note_turns();
        }
        true
    }

    fn look_up_with(&self, parent: &Node, name: &CStr, policy: Policy) -> Result<Entry, Errno> {
        let seen = statx(parent, name, AtFlags::SYMLINK_NOFOLLOW, wanted())?;
        if let Some(node) = self.known_again(&Identity::of(&seen)) {
            return self.entry(&node, seen);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(parent, name, flags, Mode::empty())?;
        self.enter(file, policy)
    }

    /// The file of this identity, if it is known. It is known one more time then.
    fn known_again(&self, identity: &Identity) -> Option<Arc<Node>> {
        let mut nodes = lock(&self.nodes);
        let number = *nodes.numbers.get(identity)?;
        let (node, times) = nodes.known.get_mut(&number)?;
        *times = times.saturating_add(1);
        Some(node.clone())
    }

    /// Takes a file up that is served in such a way, unless it is known; its descriptor has no rights.
    pub fn enter(&self, file: OwnedFd, policy: Policy) -> Result<Entry, Errno> {
        let stat = stat_of(&file)?;
        let identity = Identity::of(&stat);
        let mut nodes = lock(&self.nodes);
        let Nodes { known, numbers } = &mut *nodes;
        let is_full = known.len() >= self.max_nodes;
        let node = match numbers.entry(identity) {
            hash_map::Entry::Occupied(number) => {
                let (node, times) = known.get_mut(number.get()).ok_or(Errno::IO)?;
                *times = times.saturating_add(1);
                node.clone()
            }
            hash_map::Entry::Vacant(_) if is_full => return Err(Errno::NFILE),
            hash_map::Entry::Vacant(place) => {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                let node = Arc::new(Node {
                    file,
                    number,
                    policy,
                    kind: FileType::from_raw_mode(stat.stx_mode.into()),
                    identity,
                    shared: Shared::default(),
                });
                place.insert(number);
                known.insert(number, (node.clone(), 1));
                node
            }
        };
        drop(nodes);
        self.entry(&node, stat)
    }

    fn entry(&self, node: &Node, stat: Statx) -> Result<Entry, Errno> {
        match self.attr(node, stat) {
            Ok(attr) => Ok(Entry {
                node: node.number,
                hold: node.policy.hold,
                attributes_hold: node.attributes_hold(),
                attr,
            }),
            Err(errno) => {
                self.forget(node.number, 1);
                Err(errno)
            }
        }
    }

    /// The guest knows a file so many times less.
    pub fn forget(&self, number: u64, times: u64) {
        if number == ROOT {
            return;
        }
        let mut nodes = lock(&self.nodes);
        let Some((_, known)) = nodes.known.get_mut(&number) else {
            return;
        };
        *known = known.saturating_sub(times);
        if *known > 0 {
            return;
        }
        let gone = nodes.known.remove(&number);
        if let Some((node, _)) = &gone {
            nodes.numbers.remove(&node.identity);
        }
        drop(nodes);
        self.locks.forget(number);
        // Closing may take its time.
        drop(gone);
    }

    /// What the guest hears of a file.
    pub fn attr(&self, node: &Node, mut stat: Statx) -> Result<Attr, Errno> {
        let owner = node.policy.owners.told(node, &stat)?;
        if !node.policy.exclusive {
            node.shared.tell(&mut stat.stx_mtime);
        }
        Ok(Attr {
            number: self.inode_number(&stat),
            mode: owner.mode,
            user: owner.user,
            group: owner.group,
            stat,
        })
    }

    /// An inode's number, as the guest has it. The guest sees one file system, so numbers of all but the
    /// first are made different, above those that file systems give.
    fn inode_number(&self, stat: &Statx) -> u64 {
        let device = (stat.stx_dev_major, stat.stx_dev_minor);
        stat.stx_ino ^ (self.device_number(device) << 48)
    }

    fn device_number(&self, device: (u32, u32)) -> u64 {
        /// More are not told apart: a guest cannot make the host mount any.
        const MOST: usize = 1 << 12;
        let mut devices = lock(&self.devices);
        let known = devices.iter().position(|known| *known == device);
        let number = known.unwrap_or_else(|| {
            if devices.len() < MOST {
                devices.push(device);
            }
            devices.len() - 1
        });
        u64::try_from(number).unwrap_or(0)
    }

    /// An inode's number in a directory's list, as [`Self::attr`] has it unless something is mounted
    /// there.
    pub fn listed_number(&self, directory: &Node, inode: u64) -> u64 {
        inode ^ (self.device_number(directory.identity.device) << 48)
    }

    /// Keeps a file open for the guest.
    pub fn keep(&self, file: OwnedFd, node: u64, appends: bool) -> Result<u64, Errno> {
        let handle = Arc::new(Handle {
            file,
            node,
            appends,
            position: Mutex::default(),
            is_dirty: AtomicBool::default(),
        });
        let mut handles = lock(&self.handles);
        if handles.len() >= self.max_handles {
            return Err(Errno::NFILE);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        handles.insert(number, handle);
        Ok(number)
    }

    /// A file that the guest has open, of this node.
    pub fn handle(&self, number: u64, node: u64) -> Result<Arc<Handle>, Errno> {
        let handles = lock(&self.handles);
        let handle = handles.get(&number).filter(|handle| handle.node == node);
        handle.cloned().ok_or(Errno::BADF)
    }

    /// What was written through files that are open, and not brought to the disk since.
    pub fn dirty(&self) -> Vec<Arc<Handle>> {
        let handles = lock(&self.handles);
        let dirty = handles.values();
        dirty
            .filter(|handle| handle.is_dirty.swap(false, Ordering::Relaxed))
            .cloned()
            .collect()
    }

    /// Closes a file that the guest has open. It is closed when nobody is busy with it.
    pub fn close(&self, number: u64, node: u64) -> Result<(), Errno> {
        let mut handles = lock(&self.handles);
        match handles.entry(number) {
            hash_map::Entry::Occupied(entry) if entry.get().node == node => {
                let gone = entry.remove();
                drop(handles);
                drop(gone);
                Ok(())
            }
            _ => Err(Errno::BADF),
        }
    }
}

/// The attributes of a file.
pub fn stat_of(file: impl AsFd) -> Result<Statx, Errno> {
    statx(
        file,
        c"",
        AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW,
        wanted(),
    )
}

fn wanted() -> StatxFlags {
    StatxFlags::BASIC_STATS | StatxFlags::MNT_ID
}

/// A descriptor's name in the working directory.
pub struct Link {
    text: String,
}

impl Link {
    /// Of this descriptor.
    pub fn to(file: impl AsFd) -> Self {
        let mut text = String::with_capacity(12);
        // Writing to a string does not fail.
        let _ = write!(text, "{}", file.as_fd().as_raw_fd());
        Self { text }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.text
    }
}

/// Opens a file once more, with rights.
pub fn reopen(file: impl AsFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = (flags | OFlags::CLOEXEC | OFlags::NOCTTY) - (OFlags::NOFOLLOW | OFlags::CREATE);
    openat(rustix::fs::CWD, Link::to(file).name(), flags, Mode::empty())
}
