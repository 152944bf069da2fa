//! The files of the log, and appending to them.

use hullbox_host::paths::Roots;
use hullbox_model::event::{Event, attribute};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

/// Size at which a new file is begun, in bytes.
pub(super) const MAX_SIZE: u64 = 4 << 20;
/// Files that are kept, the one that is appended to included.
const FILES: usize = 4;
/// Longest line, in bytes. Labels are left out of a longer one.
const MAX_LINE: usize = 256 * 1024;
/// How often a lock that somebody else holds is tried, and the pause between: 50 ms in all. Whoever
/// holds it longer was stopped, and must not stop others.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// Path of a file: 0 is appended to, higher ones are older.
fn path(roots: &Roots, age: usize) -> PathBuf {
    match age {
        0 => roots.data.join("events.log"),
        age => roots.data.join(format!("events.log.{age}")),
    }
}

/// Appends lines with one write, so that those of several writers do not mix. What a full disk
/// cuts off costs this event alone: readers find the next one behind it.
pub(super) fn append(roots: &Roots, events: &[Event]) -> io::Result<()> {
    let mut bytes = Vec::new();
    for event in events {
        bytes.append(&mut line(event)?);
    }
    let file = newest(roots)?;
    let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, &bytes))?;
    if written < bytes.len() {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

fn line(event: &Event) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(event)?;
    if line.len() >= MAX_LINE {
        let mut bare = event.clone();
        bare.actor
            .attributes
            .retain(|name, value| attribute::ALL.contains(&name.as_str()) && value.len() < 4096);
        bare.action.detail.clear();
        line = serde_json::to_vec(&bare)?;
    }
    line.push(b'\n');
    Ok(line)
}

/// Opens the newest file for appending, made if there is none, and begins another one once it is
/// large. While the file is open it is the newest: its shared lock keeps it from being renamed, so
/// nothing is appended to a file that a reader has done with.
pub(super) fn newest(roots: &Roots) -> io::Result<File> {
    let path = path(roots, 0);
    loop {
        let file = File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)?;
        let locked = lock(&file, FlockOperation::NonBlockingLockShared)?;
        let found = file.metadata()?;
        if !is_at(&found, &path) {
            // Renamed between opening and locking.
            continue;
        }
        if found.len() <= MAX_SIZE || !locked {
            return Ok(file);
        }
        // Not to be had: it grows until somebody else has better luck.
        if !lock(&file, FlockOperation::NonBlockingLockExclusive)? {
            return Ok(file);
        }
        // Another writer may have renamed it while nobody held the lock.
        if is_at(&file.metadata()?, &path) {
            for age in (1..FILES).rev() {
                match fs::rename(self::path(roots, age - 1), self::path(roots, age)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
    }
}

/// Tries to lock; false if another process keeps the lock to itself.
fn lock(file: &File, how: FlockOperation) -> io::Result<bool> {
    for _ in 0..LOCK_TRIES {
        match flock(file, how) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(false)
}

/// Whether this file has this name.
fn is_at(file: &fs::Metadata, path: &std::path::Path) -> bool {
    fs::metadata(path).is_ok_and(|there| is_same(file, &there))
}

/// Whether both are of one file.
pub(super) fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Whether a file is the one that is appended to.
pub(super) fn is_newest(roots: &Roots, file: &File) -> io::Result<bool> {
    Ok(is_at(&file.metadata()?, &path(roots, 0)))
}

/// All files for reading, the oldest first. None is renamed meanwhile.
pub(super) fn files(roots: &Roots) -> io::Result<Vec<File>> {
    let _held = newest(roots)?;
    let mut files = Vec::new();
    for age in (0..FILES).rev() {
        match File::open(path(roots, age)) {
            Ok(file) => files.push(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}
