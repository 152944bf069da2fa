//! Locks that guests take are locks of the host's files, so that they hold among guests and with the host.
//!
//! - `flock` is one of the open file that the guest's stands for.
//! - Record locks (`fcntl`) belong to an owner in the guest, so each owner has an open file of its own for
//!   them (`F_OFD_SETLK`). Where the last one is let go of, by the owner's first `close` of the file, as
//!   POSIX has it, that file is closed.
//!
//! Who waits for a lock holds no thread: one thread tries again for all of them, at once when a lock was
//! let go of here, otherwise every few milliseconds. A thread that blocked in the kernel could not be
//! called back.

use crate::shared::WAL_INDEX_BYTE;
use crate::tree::{Handle, Node, lock, reopen};
use crate::wire::Fields;
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet, VecDeque, hash_map};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Most owners of record locks at a time: each has a descriptor.
const MAX_OWNERS: usize = 1 << 12;
/// Most that wait at a time.
const MAX_WAITING: usize = 256;
/// Interrupted requests that were not waiting yet.
const MAX_EARLY: usize = 64;
/// How often it is tried again, first and at last.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(20);
/// How long the thread stays without anything to do.
const LINGER: Duration = Duration::from_secs(5);

/// Where offsets end (`OFFSET_MAX`).
const END: u64 = i64::MAX as u64;

/// `struct fuse_lk_in`.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    pub handle: u64,
    pub owner: u64,
    start: u64,
    end: u64,
    kind: Kind,
    pub is_flock: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    None,
}

impl From<Kind> for u32 {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Read => libc::F_RDLCK,
            Kind::Write => libc::F_WRLCK,
            Kind::None => libc::F_UNLCK,
        }
        .cast_unsigned()
    }
}

impl Ask {
    /// Reads what is asked.
    pub fn of(mut fields: Fields<'_>) -> Result<Self, Errno> {
        const FLOCK: u32 = 1;
        let (handle, owner) = (fields.u64()?, fields.u64()?);
        let (start, end) = (fields.u64()?, fields.u64()?);
        let kind = match i32::try_from(fields.u32()?) {
            Ok(libc::F_RDLCK) => Kind::Read,
            Ok(libc::F_WRLCK) => Kind::Write,
            Ok(libc::F_UNLCK) => Kind::None,
            _ => return Err(Errno::INVAL),
        };
        let _process = fields.u32()?;
        let flags = fields.u32()?;
        if start > end || end > END {
            return Err(Errno::INVAL);
        }
        Ok(Self {
            handle,
            owner,
            start,
            end,
            kind,
            is_flock: flags & FLOCK != 0,
        })
    }

    /// Whether it is about the byte that users of a WAL index lock, and others may have the file open.
    fn is_wal_index_of(&self, node: &Node) -> bool {
        let is_byte = (self.start, self.end) == (WAL_INDEX_BYTE, WAL_INDEX_BYTE);
        is_byte && !self.is_flock && node.shared.is_wal_index() && !node.policy.exclusive
    }

    /// Whether something would be locked.
    pub fn locks(&self) -> bool {
        self.kind != Kind::None
    }

    fn range(&self) -> Result<libc::flock, Errno> {
        let kind = u32::from(self.kind).cast_signed();
        let narrow = |value: libc::c_int| value.try_into().map_err(|_| Errno::INVAL);
        let len = match self.end {
            // To the end of the file, wherever that will be.
            END => 0,
            end => end - self.start + 1,
        };
        Ok(libc::flock {
            l_type: narrow(kind)?,
            l_whence: narrow(libc::SEEK_SET)?,
            l_start: self.start.try_into().map_err(|_| Errno::INVAL)?,
            l_len: len.try_into().map_err(|_| Errno::INVAL)?,
            l_pid: 0,
        })
    }
}

/// What is locked, and how.
enum Attempt {
    /// A range, in the file of an owner.
    Range {
        file: Arc<OwnedFd>,
        range: libc::flock,
    },
    /// A whole open file.
    Whole {
        handle: Arc<Handle>,
        operation: FlockOperation,
    },
}

impl Attempt {
    /// Tries it once.
    fn make(&self) -> Result<(), Errno> {
        match self {
            Self::Range { file, range } => fcntl(file, FcntlArg::F_OFD_SETLK(range))
                .map(drop)
                .map_err(|errno| Errno::from_raw_os_error(errno as i32)),
            Self::Whole { handle, operation } => flock(&handle.file, *operation),
        }
    }
}

struct Waiting {
    unique: u64,
    node: Arc<Node>,
    owner: u64,
    attempt: Attempt,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// Requests that were interrupted before they waited.
    early: VecDeque<u64>,
    /// Who is to be told to have waited for nothing.
    interrupted: Vec<u64>,
    has_thread: bool,
    /// A lock was let go of.
    nudged: bool,
}

/// A lock of [`WAL_INDEX_BYTE`], exclusive on the host, that a guest's processes have together.
struct Guard {
    _file: OwnedFd,
    readers: HashSet<u64>,
    writer: Option<u64>,
}

impl Guard {
    fn on(node: &Node, range: &libc::flock) -> Result<Self, Errno> {
        let file = reopen(node, OFlags::RDWR)?;
        let exclusive = libc::flock {
            l_type: libc::F_WRLCK.try_into().map_err(|_| Errno::INVAL)?,
            ..*range
        };
        fcntl(&file, FcntlArg::F_OFD_SETLK(&exclusive))
            .map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
        Ok(Self {
            _file: file,
            readers: HashSet::new(),
            writer: None,
        })
    }

    /// What is in an owner's way.
    fn conflict(&self, owner: u64, kind: Kind) -> Option<Kind> {
        let is_written = self.writer.is_some_and(|writer| writer != owner);
        let is_read = self.readers.iter().any(|reader| *reader != owner);
        match kind {
            Kind::None => None,
            _ if is_written => Some(Kind::Write),
            Kind::Write if is_read => Some(Kind::Read),
            Kind::Read | Kind::Write => None,
        }
    }

    /// Takes an owner out. True if nobody is left.
    fn let_go(&mut self, owner: u64) -> bool {
        self.readers.remove(&owner);
        self.writer.take_if(|writer| *writer == owner);
        self.readers.is_empty() && self.writer.is_none()
    }
}

/// A guest's locks.
#[derive(Default)]
pub struct Locks {
    /// Of WAL indices.
    guards: Mutex<HashMap<u64, Guard>>,
    owners: Mutex<HashMap<(u64, u64), Arc<OwnedFd>>>,
    queue: Mutex<Queue>,
    change: Condvar,
}

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Done,
    /// It is answered later.
    Waits {
        /// Somebody has to start a thread for [`Locks::attend`].
        needs_thread: bool,
    },
}

impl Locks {
    /// Takes or lets go of a lock, or of a part of it. `waits` is the number of a request that would wait.
    pub fn set(
        &self,
        node: &Arc<Node>,
        handle: Option<Arc<Handle>>,
        ask: Ask,
        waits: Option<u64>,
    ) -> Result<Outcome, Errno> {
        if ask.is_wal_index_of(node) && waits.is_none() {
            return self.guard(node, ask).map(|()| Outcome::Done);
        }
        let attempt = match (ask.is_flock, handle) {
            (true, Some(handle)) => Attempt::Whole {
                handle,
                operation: match ask.kind {
                    Kind::Read => FlockOperation::NonBlockingLockShared,
                    Kind::Write => FlockOperation::NonBlockingLockExclusive,
                    Kind::None => FlockOperation::Unlock,
                },
            },
            (true, None) => return Err(Errno::BADF),
            (false, _) => Attempt::Range {
                file: match self.file_of(node, ask)? {
                    Some(file) => file,
                    None => return Ok(Outcome::Done),
                },
                range: ask.range()?,
            },
        };
        match attempt.make() {
            Ok(()) => {
                node.shared.note_lock();
                // It may have been an unlock, or less than was locked before.
                self.nudge();
                Ok(Outcome::Done)
            }
            Err(Errno::AGAIN | Errno::ACCESS) => match waits {
                None => Err(Errno::AGAIN),
                Some(unique) => self.wait(Waiting {
                    unique,
                    node: node.clone(),
                    owner: ask.owner,
                    attempt,
                }),
            },
            Err(errno) => Err(errno),
        }
    }

    /// Takes or lets go of a WAL index's lock.
    fn guard(&self, node: &Node, ask: Ask) -> Result<(), Errno> {
        let mut guards = lock(&self.guards);
        if ask.kind == Kind::None {
            let guard = guards.get_mut(&node.number);
            if guard.is_some_and(|guard| guard.let_go(ask.owner)) {
                guards.remove(&node.number);
            }
            return Ok(());
        }
        let guard = match guards.entry(node.number) {
            hash_map::Entry::Occupied(guard) => guard.into_mut(),
            hash_map::Entry::Vacant(place) => place.insert(Guard::on(node, &ask.range()?)?),
        };
        if guard.conflict(ask.owner, ask.kind).is_some() {
            return Err(Errno::AGAIN);
        }
        guard.let_go(ask.owner);
        match ask.kind {
            Kind::Write => guard.writer = Some(ask.owner),
            _ => {
                guard.readers.insert(ask.owner);
            }
        }
        Ok(())
    }

    /// An owner's file for a node's locks. None if it has none to let go of.
    fn file_of(&self, node: &Node, ask: Ask) -> Result<Option<Arc<OwnedFd>>, Errno> {
        let key = (node.number, ask.owner);
        let mut owners = lock(&self.owners);
        if let Some(file) = owners.get(&key) {
            return Ok(Some(file.clone()));
        }
        if ask.kind == Kind::None {
            return Ok(None);
        }
        if owners.len() >= MAX_OWNERS {
            return Err(Errno::NOLCK);
        }
        let file = Arc::new(open_for_locks(node)?);
        owners.insert(key, file.clone());
        Ok(Some(file))
    }

    fn wait(&self, waiting: Waiting) -> Result<Outcome, Errno> {
        let mut queue = lock(&self.queue);
        let unique = waiting.unique;
        if let Some(place) = queue.early.iter().position(|early| *early == unique) {
            queue.early.remove(place);
            return Err(Errno::INTR);
        }
        if queue.waiting.len() >= MAX_WAITING {
            return Err(Errno::NOLCK);
        }
        queue.waiting.push(waiting);
        queue.nudged = true;
        let needs_thread = !std::mem::replace(&mut queue.has_thread, true);
        drop(queue);
        self.change.notify_all();
        Ok(Outcome::Waits { needs_thread })
    }

    /// Somebody else's lock that is in the way of one, if there is one: how it locks, and where.
    pub fn test(&self, node: &Node, ask: Ask) -> Result<Conflict, Errno> {
        if ask.kind == Kind::None {
            return Err(Errno::INVAL);
        }
        if ask.is_wal_index_of(node)
            && let Some(guard) = lock(&self.guards).get(&node.number)
        {
            return Ok(Conflict {
                start: ask.start,
                end: ask.end,
                kind: u32::from(guard.conflict(ask.owner, ask.kind).unwrap_or(Kind::None)),
            });
        }
        let known = lock(&self.owners).get(&(node.number, ask.owner)).cloned();
        let file = match known {
            Some(file) => file,
            None => Arc::new(open_for_locks(node)?),
        };
        let mut range = ask.range()?;
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut range))
            .map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
        let number = |value: i64| u64::try_from(value).unwrap_or(0);
        let start = number(range.l_start);
        Ok(Conflict {
            start,
            end: match number(range.l_len) {
                0 => END,
                len => start.saturating_add(len - 1),
            },
            kind: u32::try_from(range.l_type).unwrap_or(0),
        })
    }

    /// An owner has closed a file: its locks of it are gone.
    pub fn let_go(&self, node: u64, owner: u64) {
        let mut guards = lock(&self.guards);
        if guards
            .get_mut(&node)
            .is_some_and(|guard| guard.let_go(owner))
        {
            guards.remove(&node);
        }
        drop(guards);
        let gone = lock(&self.owners).remove(&(node, owner));
        if gone.is_none() {
            return;
        }
        drop(gone);
        let mut queue = lock(&self.queue);
        let (over, waiting) = std::mem::take(&mut queue.waiting)
            .into_iter()
            .partition::<Vec<_>, _>(|waiting| {
                (waiting.node.number, waiting.owner) == (node, owner)
                    && matches!(waiting.attempt, Attempt::Range { .. })
            });
        queue.waiting = waiting;
        queue
            .interrupted
            .extend(over.iter().map(|waiting| waiting.unique));
        drop(queue);
        self.nudge();
    }

    /// A file is forgotten: nobody can have locks of it.
    pub fn forget(&self, node: u64) {
        lock(&self.guards).remove(&node);
        let mut owners = lock(&self.owners);
        if owners.is_empty() {
            return;
        }
        let gone: Vec<_> = owners.extract_if(|(of, _), _| *of == node).collect();
        drop(owners);
        drop(gone);
    }

    /// A request need not be answered any more, if it waits.
    pub fn interrupt(&self, unique: u64) {
        let mut queue = lock(&self.queue);
        let place = queue
            .waiting
            .iter()
            .position(|waiting| waiting.unique == unique);
        match place {
            Some(place) => {
                queue.waiting.swap_remove(place);
                queue.interrupted.push(unique);
                queue.nudged = true;
                drop(queue);
                self.change.notify_all();
            }
            // It may not have come as far as that.
            None => {
                if queue.early.len() >= MAX_EARLY {
                    queue.early.pop_front();
                }
                queue.early.push_back(unique);
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        lock(&self.guards).clear();
        let gone = std::mem::take(&mut *lock(&self.owners));
        drop(gone);
        let mut queue = lock(&self.queue);
        queue.early.clear();
        let over: Vec<_> = queue.waiting.drain(..).map(|w| w.unique).collect();
        queue.interrupted.extend(over);
        drop(queue);
        self.nudge();
    }

    /// A lock may be free.
    pub fn nudge(&self) {
        let mut queue = lock(&self.queue);
        if queue.has_thread {
            queue.nudged = true;
            drop(queue);
            self.change.notify_all();
        }
    }

    /// Tries again for all who wait, until nobody does any more. What came of each goes to `answer`.
    pub fn attend(&self, mut answer: impl FnMut(u64, Result<(), Errno>)) {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut answers = Vec::new();
            let mut queue = lock(&self.queue);
            if std::mem::take(&mut queue.nudged) {
                pause = FIRST_PAUSE;
            }
            let interrupted = std::mem::take(&mut queue.interrupted);
            answers.extend(
                interrupted
                    .into_iter()
                    .map(|unique| (unique, Err(Errno::INTR))),
            );
            queue.waiting.retain(|waiting| {
                let result = waiting.attempt.make();
                if matches!(result, Err(Errno::AGAIN | Errno::ACCESS)) {
                    return true;
                }
                if result.is_ok() {
                    waiting.node.shared.note_lock();
                }
                answers.push((waiting.unique, result));
                false
            });
            let is_idle = queue.waiting.is_empty() && answers.is_empty();
            if is_idle || answers.is_empty() {
                let limit = if is_idle { LINGER } else { pause };
                if !queue.nudged {
                    let waited = self.change.wait_timeout(queue, limit);
                    queue = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                let is_over = is_idle && queue.waiting.is_empty() && queue.interrupted.is_empty();
                if is_over && !queue.nudged {
                    queue.has_thread = false;
                    return;
                }
                pause = (pause * 2).min(LAST_PAUSE);
            }
            drop(queue);
            for (unique, result) in answers {
                answer(unique, result);
            }
        }
    }
}

/// A lock that is in the way, or none (`F_UNLCK`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    pub start: u64,
    pub end: u64,
    pub kind: u32,
}

/// An exclusive lock takes a writable file, a shared one a readable one.
fn open_for_locks(node: &Node) -> Result<OwnedFd, Errno> {
    if node.kind != rustix::fs::FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    match reopen(node, OFlags::RDWR) {
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY) => {
            reopen(node, OFlags::RDONLY)
        }
        opened => opened,
    }
}
