//! Which containers there are: one SQLite database, one directory for each container, and locks
//! that tell the living from the dead.
//!
//! A container that is being made or runs holds an exclusive lock on its own byte of the lock
//! file (the byte's offset is the row's number), taken inside the transaction that inserts the
//! row and handed on to the monitor by inheritance. So a row in such a state whose byte is free
//! belongs to somebody who was killed, and whoever notices cleans up: see [`State::recover`].
//! Rows are the first thing of a container and the last: there is never a directory that no row
//! tells of.

mod change;
mod record;
mod recover;
mod schema;

pub use hullbox_backend::backend::BegunFrom;
pub use record::{Beginning, Filter, NewContainer, Phase, Record, Resolved};
pub use recover::KILLED;

use crate::paths::{DISK_FILE, Roots, short_id};
use crate::plan::names;
use crate::sys::{self, LockKind};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a command waits for another one's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long somebody who only looks may hold a container's lock. Far more than it takes, on a host
/// that is overloaded.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// A log of this size is moved into the database: that of some ten runs.
const SETTLE_BYTES: u64 = 512 * 1024;

/// Why the containers' state cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// SQLite failed.
    #[error("the container database failed")]
    Database(#[from] rusqlite::Error),
    /// A newer program wrote it.
    #[error("the container database has version {found}; this program knows up to {known}")]
    Version {
        /// In the file.
        found: i64,
        /// Here.
        known: i64,
    },
    /// A file or directory of the state.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The name is taken.
    #[error("the name {name:?} is already in use by container {}", short_id(id))]
    NameInUse {
        /// The name.
        name: String,
        /// By whom.
        id: String,
    },
    /// No such container.
    #[error("no such container: {0}")]
    NotFound(String),
    /// An id prefix that fits several.
    #[error("{0} fits more than one container")]
    Ambiguous(String),
    /// It runs.
    #[error("container {0} is running")]
    Running(String),
    /// A record that this program did not write.
    #[error("the record of container {id} is damaged")]
    Damaged {
        /// Of which container.
        id: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl StateError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// The containers of one data directory.
#[derive(Debug)]
pub struct State {
    roots: Roots,
    database: Connection,
    lock_file: PathBuf,
}

/// What the lock of one living container is taken on. Whoever inherits the file, before the lock
/// is taken or after, keeps the container alive.
#[derive(Debug)]
pub struct LifeLock {
    file: File,
}

impl LifeLock {
    /// Opens the lock file anew; nothing is locked yet.
    ///
    /// # Errors
    /// The lock file cannot be opened.
    pub fn open(roots: &Roots) -> Result<Self, StateError> {
        open_lock_file(&lock_path(roots)).map(|file| Self { file })
    }

    /// The same open file once more, to hand to the monitor.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn share(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

/// Who is about to start a container.
#[derive(Debug, Clone, Copy)]
pub struct Starter<'a> {
    /// The container's lock, until the monitor alone holds it.
    pub lock: &'a LifeLock,
    /// The monitor's process: on record before it runs anything, so that it can be told to end.
    pub monitor_pid: u32,
}

fn lock_path(roots: &Roots) -> PathBuf {
    roots.data.join("containers.lock")
}

fn open_lock_file(path: &Path) -> Result<File, StateError> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(StateError::io("open", path))
}

impl State {
    /// Opens the database, and makes it when it is missing.
    ///
    /// # Errors
    /// It cannot be opened, or a newer program wrote it.
    pub fn open(roots: &Roots) -> Result<Self, StateError> {
        let database = schema::open(&roots.data.join("containers.db"), BUSY_TIMEOUT)?;
        Ok(Self {
            roots: roots.clone(),
            database,
            lock_file: lock_path(roots),
        })
    }

    /// Where things are.
    #[must_use]
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    fn open_lock_file(&self) -> Result<File, StateError> {
        open_lock_file(&self.lock_file)
    }

    /// Makes a container: its row and its directories. With a starter it is about to be started: in
    /// phase [`Phase::Starting`], with its byte locked.
    ///
    /// # Errors
    /// [`StateError::NameInUse`] among others; nothing was made then.
    pub fn create(
        &mut self,
        new: &NewContainer,
        starter: Option<Starter<'_>>,
    ) -> Result<Record, StateError> {
        let spec = serde_json::to_string(&new.spec).map_err(|source| StateError::Damaged {
            id: new.id.clone(),
            source,
        })?;
        let transaction = self
            .database
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let name = match &new.name {
            Some(name) => {
                if let Some(id) = schema::id_of_name(&transaction, name)? {
                    let name = name.clone();
                    return Err(StateError::NameInUse { name, id });
                }
                name.clone()
            }
            None => free_name(&transaction, &new.id)?,
        };
        transaction.execute(
            "INSERT INTO containers (id, name, image_id, image_ref, phase, auto_remove, created_ns,
             spec, monitor_pid)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                new.id,
                name,
                new.image_id,
                new.image_ref,
                match starter {
                    Some(_) => Phase::Starting.as_str(),
                    None => Phase::Created.as_str(),
                },
                new.spec.auto_remove,
                now_ns(),
                spec,
                starter.map(|starter| starter.monitor_pid)
            ],
        )?;
        if let Some(Starter { lock, .. }) = starter {
            // The byte of a new row can be held by nobody: numbers are never used twice.
            let row = transaction.last_insert_rowid();
            sys::lock_byte(&lock.file, LockKind::Exclusive, row)
                .map_err(StateError::io("lock", &self.lock_file))?;
        }
        transaction.commit()?;
        let record = self.get(&new.id)?;
        self.make_dirs(&new.id)?;
        Ok(record)
    }

    /// The container's directories. Whoever makes one may be killed between its row and these: they are
    /// made when it is used for the first time, too.
    fn make_dirs(&self, id: &str) -> Result<(), StateError> {
        make_dir(&self.roots.container_dir(id))?;
        make_dir(&self.roots.container_runtime_dir(id))
    }

    /// One container by its full id.
    ///
    /// # Errors
    /// [`StateError::NotFound`] among others.
    pub fn get(&self, id: &str) -> Result<Record, StateError> {
        get(&self.database, id)
    }

    /// Finds a container by name, id, or the beginning of an id.
    ///
    /// # Errors
    /// [`StateError::NotFound`] and [`StateError::Ambiguous`] among others.
    pub fn resolve(&self, text: &str) -> Result<Resolved, StateError> {
        schema::resolve(&self.database, text)
    }

    /// All containers, newest first.
    ///
    /// # Errors
    /// The database fails, or a record is damaged.
    pub fn list(&self) -> Result<Vec<Record>, StateError> {
        let mut statement = self.database.prepare(&format!(
            "SELECT {} FROM containers ORDER BY row DESC",
            record::COLUMNS
        ))?;
        let rows = statement.query_map([], record::from_row)?;
        rows.map(|row| row?).collect()
    }

    /// Containers that use an image.
    ///
    /// # Errors
    /// The database fails.
    pub fn users_of_image(&self, image_id: &str) -> Result<Vec<String>, StateError> {
        let mut statement = self
            .database
            .prepare("SELECT id FROM containers WHERE image_id = ?1 ORDER BY row")?;
        let rows = statement.query_map([image_id], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Notes how the container ended. One that is to be removed is removed.
    ///
    /// # Errors
    /// The database fails, or directories cannot be removed.
    pub fn finish(&self, id: &str, end: &End) -> Result<(), StateError> {
        remove_dir(&self.roots.container_runtime_dir(id))?;
        if self.get(id)?.spec.auto_remove {
            return self.forget(id);
        }
        self.database.execute(
            "UPDATE containers SET phase = ?2, finished_ns = ?3, exit_code = ?4, signal = ?5,
             oom = ?6, error = ?7, stopped = ?8, monitor_pid = NULL WHERE id = ?1",
            params![
                id,
                Phase::Exited.as_str(),
                now_ns(),
                end.exit_code,
                end.signal,
                end.oom,
                end.error,
                end.stopped
            ],
        )?;
        Ok(())
    }

    /// Removes a container that does not run.
    ///
    /// # Errors
    /// [`StateError::Running`] among others.
    pub fn remove(&self, id: &str) -> Result<(), StateError> {
        // Held until the row is gone, so that nobody starts it meanwhile.
        let file = self.open_lock_file()?;
        drop(self.take(&file, id)?);
        self.forget(id)
    }

    /// Locks the byte of a container that does not run. What the caller writes about that belongs
    /// into the transaction: whoever finds the byte locked reads the record after it.
    ///
    /// Whoever looks whether a monitor is dead, or has waited for its end, holds the byte for an
    /// instant: that is not to be taken for a container that runs.
    fn take(&self, file: &File, id: &str) -> Result<Transaction<'_>, StateError> {
        let deadline = Instant::now() + LOOK_LIMIT;
        loop {
            let transaction =
                Transaction::new_unchecked(&self.database, TransactionBehavior::Immediate)?;
            let record = get(&transaction, id)?;
            let free = sys::try_lock_byte(file, LockKind::Exclusive, record.row)
                .map_err(StateError::io("lock", &self.lock_file))?;
            if free {
                return Ok(transaction);
            }
            // The byte may be held for long: nobody else's transaction is to wait for it.
            drop(transaction);
            let left = deadline.saturating_duration_since(Instant::now());
            if record.is_active() || !self.wait_for_end_within(&record, left)? {
                return Err(StateError::Running(short_id(id).to_owned()));
            }
        }
    }

    /// Whether a container has not ended and somebody holds its lock: its monitor, or who starts it.
    ///
    /// # Errors
    /// The lock file cannot be opened or asked.
    pub fn is_alive(&self, record: &Record) -> Result<bool, StateError> {
        Ok(record.is_active() && self.is_held(record)?)
    }

    /// Whether somebody holds a container's lock: its monitor, who starts it, or an errand in it.
    ///
    /// # Errors
    /// The lock file cannot be opened or asked.
    pub fn is_held(&self, record: &Record) -> Result<bool, StateError> {
        let file = self.open_lock_file()?;
        sys::is_byte_locked(&file, record.row).map_err(StateError::io("look at", &self.lock_file))
    }

    /// Waits until nobody holds a container's lock: its monitor is gone.
    ///
    /// # Errors
    /// The lock file cannot be opened or locked.
    pub fn wait_for_end(&self, record: &Record) -> Result<(), StateError> {
        let file = self.open_lock_file()?;
        sys::lock_byte(&file, LockKind::Shared, record.row)
            .map_err(StateError::io("lock", &self.lock_file))
    }

    /// The same, for so long: whether nobody holds it.
    ///
    /// # Errors
    /// The lock file cannot be opened or locked.
    pub fn wait_for_end_within(
        &self,
        record: &Record,
        limit: Duration,
    ) -> Result<bool, StateError> {
        let file = self.open_lock_file()?;
        let row = record.row;
        let failed = || StateError::io("lock", &self.lock_file);
        if sys::try_lock_byte(&file, LockKind::Shared, row).map_err(failed())? {
            return Ok(true);
        }
        // The kernel knows no wait for a lock that ends by itself. A thread that is left behind goes
        // when the lock is free, or with this process.
        let (tell, told) = mpsc::channel();
        let wait = move || {
            let locked = sys::lock_byte(&file, LockKind::Shared, row);
            drop(file);
            // Nobody may listen any more.
            let _ = tell.send(locked);
        };
        thread::Builder::new()
            .name("lock".to_owned())
            .spawn(wait)
            .map_err(failed())?;
        match told.recv_timeout(limit) {
            Ok(locked) => locked.map(|()| true).map_err(failed()),
            Err(_) => Ok(false),
        }
    }

    /// What SQLite finds wrong with the database's file.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn problems(&self) -> Result<Vec<String>, StateError> {
        let mut statement = self.database.prepare("PRAGMA integrity_check(20)")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        let mut problems = rows.collect::<Result<Vec<_>, _>>()?;
        problems.retain(|problem| problem != "ok");
        Ok(problems)
    }

    /// Moves the database's log into the database once it has grown, if nobody else is at work.
    /// Whoever opens it alone reads the whole log first, and whoever begins it anew syncs its header:
    /// so it is neither kept for ever nor emptied each time. For when nobody waits: it syncs.
    pub fn settle(&self) {
        let log = fs::metadata(self.roots.data.join("containers.db-wal"));
        if log.is_ok_and(|log| log.len() < SETTLE_BYTES) {
            return;
        }
        // Not now, then later: the log is bounded anyway.
        let _ = self.database.busy_timeout(Duration::ZERO).and_then(|()| {
            self.database
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        });
    }

    /// Directories first, the row last: killed between, the row still tells what there was.
    fn forget(&self, id: &str) -> Result<(), StateError> {
        remove_dir(&self.roots.container_runtime_dir(id))?;
        let dir = self.roots.container_dir(id);
        // A monitor on its way out still has the disk open, and without room the row cannot be
        // deleted: what is cut is given back at once.
        let disk = File::options().write(true).open(dir.join(DISK_FILE));
        let _ = disk.and_then(|disk| disk.set_len(0));
        remove_dir(&dir)?;
        self.database
            .execute("DELETE FROM containers WHERE id = ?1", [id])?;
        Ok(())
    }
}

/// How a container ended, as it is recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// As `docker run` gives it.
    pub exit_code: u8,
    /// The signal that ended the workload.
    pub signal: Option<u8>,
    /// The out-of-memory killer ended it.
    pub oom: bool,
    /// Cause of death in words, where it was not the workload's own end.
    pub error: Option<String>,
    /// Somebody wanted it to end.
    pub stopped: bool,
}

fn get(database: &Connection, id: &str) -> Result<Record, StateError> {
    database
        .query_row(
            &format!("SELECT {} FROM containers WHERE id = ?1", record::COLUMNS),
            [id],
            record::from_row,
        )
        .optional()?
        .ok_or_else(|| StateError::NotFound(id.to_owned()))?
}

fn free_name(database: &Connection, id: &str) -> Result<String, StateError> {
    for attempt in 0..8 {
        let at = usize::try_from(attempt).unwrap_or(0) * 8;
        let digits = id.get(at..at + 8).unwrap_or("0");
        let random = u32::from_str_radix(digits, 16).unwrap_or(0);
        let name = names::generate(random.to_le_bytes(), attempt);
        if schema::id_of_name(database, &name)?.is_none() {
            return Ok(name);
        }
    }
    // Ids are unique, and so are names made of them.
    Ok(format!("box_{id}"))
}

fn make_dir(path: &Path) -> Result<(), StateError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(StateError::io("create", path))
}

fn remove_dir(path: &Path) -> Result<(), StateError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StateError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn now_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|now| i64::try_from(now.as_nanos()).ok())
        .unwrap_or(0)
}

/// A fresh container id: 64 hexadecimal digits of which the first twelve are not all decimal, so
/// that the host name they give is not a number.
///
/// # Errors
/// The kernel gives no random bytes.
pub fn new_id() -> io::Result<String> {
    loop {
        let mut bytes = [0u8; 32];
        let read = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        if read != bytes.len() {
            continue;
        }
        let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if !short_id(&id).bytes().all(|digit| digit.is_ascii_digit()) {
            return Ok(id);
        }
    }
}

/// Takes what [`new_id`] makes, and nothing else.
///
/// # Errors
/// It is not an id.
pub fn parse_id(text: &str) -> Result<String, crate::plan::units::ValueError> {
    let is_digit = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
    let is_id = text.len() == 64
        && text.bytes().all(is_digit)
        && !short_id(text).bytes().all(|digit| digit.is_ascii_digit());
    if is_id {
        Ok(text.to_owned())
    } else {
        Err(crate::plan::units::ValueError::new(
            "not the id of a container",
        ))
    }
}

#[cfg(test)]
mod tests;
