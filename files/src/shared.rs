//! Files that others change, too: other guests, and the host.
//!
//! A guest's kernel caches what it reads, and drops it when the file's size or time says that it changed. It
//! asks for those again after a while ([`crate::tree`]), which is soon enough for people and too late for
//! programs that take turns by locks: who has got a lock must see what its last holder wrote. So from a file's
//! first lock on, its attributes and the names beside it hold for no time (a database's journal that is believed
//! to be there would be rolled back once more), and a lock that is taken shortly after the file was written,
//! within what a file's time tells apart, changes the time that the guest is told.
//!
//! No lock helps where programs share memory by a file (`mmap`): each guest has its own copy of it. `SQLite`
//! does so in its WAL mode, with a file whose name ends in `-shm`, and there two guests would destroy the
//! database. All who use it hold a shared lock of one byte; a guest's is an exclusive one on the host, so that
//! whoever comes second is told that the database is locked ([`crate::locks`]).

use rustix::fs::StatxTimestamp;
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Within this time of one another, two changes may have the same time. Kernels before 6.13 count ticks.
const SAME_TIME: Duration = Duration::from_millis(50);

/// The byte that all users of a WAL index lock (`UNIX_SHM_DMS` of `SQLite`'s `os_unix.c`).
pub const WAL_INDEX_BYTE: u64 = 128;

/// Whether a name is a WAL index's.
pub fn is_wal_index(name: &CStr) -> bool {
    name.to_bytes().ends_with(b"-shm")
}

/// What is known of a file that others change, too.
#[derive(Debug, Default)]
pub struct Shared {
    is_locked: AtomicBool,
    /// Programs take turns with it, or, if it is a directory, with what is in it.
    has_turns: AtomicBool,
    /// Where it was found last.
    parent: AtomicU64,
    is_wal_index: AtomicBool,
    /// The guest was told a time that a later change may have as well.
    is_uncertain: AtomicBool,
    /// What the time is made different by.
    salt: AtomicU32,
}

impl Shared {
    /// Where its name was found.
    pub fn note_parent(&self, parent: u64) {
        self.parent.store(parent, Ordering::Relaxed);
    }

    /// The directory in which its name was found last.
    pub fn parent(&self) -> u64 {
        self.parent.load(Ordering::Relaxed)
    }

    /// From now on a guest may believe nothing of it for longer than it takes to hear of it.
    pub fn note_turns(&self) {
        self.has_turns.store(true, Ordering::Release);
    }

    /// Whether it is so.
    pub fn has_turns(&self) -> bool {
        self.has_turns.load(Ordering::Acquire)
    }

    /// Whether a guest has taken a lock of it.
    fn is_locked(&self) -> bool {
        self.is_locked.load(Ordering::Acquire)
    }

    /// A guest is about to take a lock. True if it is the first one.
    pub fn is_first_lock(&self) -> bool {
        let is_first = !self.is_locked.swap(true, Ordering::AcqRel);
        if is_first {
            self.note_turns();
            // Nobody took notice of what it was told before.
            self.is_uncertain.store(true, Ordering::Release);
        }
        is_first
    }

    /// A guest has taken a lock.
    pub fn note_lock(&self) {
        if self.is_uncertain.swap(false, Ordering::AcqRel) {
            self.salt.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The file's name is a WAL index's.
    pub fn note_wal_index(&self) {
        self.is_wal_index.store(true, Ordering::Relaxed);
    }

    /// Whether the file's name was a WAL index's.
    pub fn is_wal_index(&self) -> bool {
        self.is_wal_index.load(Ordering::Relaxed)
    }

    /// Makes of a file's time what the guest is told.
    pub fn tell(&self, time: &mut StatxTimestamp) {
        if !self.is_locked() {
            return;
        }
        // The time of a clock that was set back is in the future.
        let is_old = u64::try_from(time.tv_sec).is_ok_and(|seconds| {
            let time = Duration::new(seconds, time.tv_nsec);
            let age = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .ok()
                .and_then(|now| now.checked_sub(time));
            age.is_some_and(|age| age >= SAME_TIME)
        });
        if !is_old {
            self.is_uncertain.store(true, Ordering::Release);
        }
        // Of the time's last three digits.
        let salt = self.salt.load(Ordering::Acquire) % 1000;
        time.tv_nsec = time.tv_nsec / 1000 * 1000 + (time.tv_nsec % 1000 + salt) % 1000;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::stat_of;

    #[test]
    fn a_lock_after_a_late_change_changes_the_time() {
        let file = tempfile::tempfile().unwrap();
        let told = |shared: &Shared| {
            let mut time = stat_of(&file).unwrap().stx_mtime;
            shared.tell(&mut time);
            time.tv_nsec
        };
        let shared = Shared::default();
        let real = told(&shared);
        assert!(shared.is_first_lock() && !shared.is_first_lock());
        shared.note_lock();
        let first = told(&shared);
        assert_ne!(first, real);
        // It was told just after it was made.
        shared.note_lock();
        let second = told(&shared);
        assert_ne!(second, first);
        let old = rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec::default(),
            last_modification: rustix::fs::Timespec::default(),
        };
        rustix::fs::futimens(&file, &old).unwrap();
        shared.note_lock();
        let third = told(&shared);
        for _ in 0..3 {
            shared.note_lock();
            assert_eq!(told(&shared), third);
        }
    }

    #[test]
    fn a_wal_index_has_its_name() {
        assert!(is_wal_index(c"a.db-shm"));
        assert!(!is_wal_index(c"a.db-wal") && !is_wal_index(c"shm"));
    }
}
