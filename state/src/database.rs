//! The containers of a data directory: one row of a SQLite database and two directories for each.

use crate::error::StateError;
use crate::lock::{Starter, lock_path, open_lock_file};
use crate::networks;
use crate::record::{self, End, NewContainer, Phase, Record, Resolved};
use crate::schema;
use crate::time::now_ns;
use crate::volumes;
use hullbox_host::paths::{DISK_FILE, Roots, short_id};
use hullbox_host::sys::{self, LockKind};
use hullbox_plan::names;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long a command waits for another one's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long somebody who only looks may hold a container's lock. Far more than it takes, on a host
/// that is overloaded.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// A log of this size is moved into the database: that of some three runs. The next command to open
/// the database reads it all, and digests it, while its user waits.
const SETTLE_BYTES: u64 = 128 * 1024;

/// The containers of one data directory.
#[derive(Debug)]
pub struct State {
    pub(crate) roots: Roots,
    pub(crate) database: Connection,
    pub(crate) lock_file: PathBuf,
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

    pub(crate) fn open_lock_file(&self) -> Result<File, StateError> {
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
        if !new.spec.auto_remove {
            // What is to be there after a power cut is on the disk before it is told of. What other
            // connections change later may be lost, and is found out.
            self.database.pragma_update(None, "synchronous", "FULL")?;
        }
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
        let mut record = Record::new(new, name, starter.map(|starter| starter.monitor_pid));
        transaction.execute(
            "INSERT INTO containers (id, name, image_id, image_ref, phase, auto_remove, created_ns,
             spec, monitor_pid)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                record.id,
                record.name,
                record.image_id,
                record.image_ref,
                record.phase.as_str(),
                record.spec.auto_remove,
                record.created_ns,
                spec,
                record.monitor_pid
            ],
        )?;
        record.row = transaction.last_insert_rowid();
        networks::join(&transaction, &record.id, &record.spec)?;
        record.changed_volumes = volumes::join(
            &transaction,
            &self.roots.volumes_dir(),
            &record.id,
            &record.spec,
        )?;
        if starter.is_some() {
            record.endpoints = networks::lease_all(&transaction, &record.id, &record.spec)?;
        }
        if let Some(Starter { lock, .. }) = starter {
            // The byte of a new row can be held by nobody: numbers are never used twice.
            sys::lock_byte(&lock.file, LockKind::Exclusive, record.row)
                .map_err(StateError::io("lock", &self.lock_file))?;
        }
        transaction.commit()?;
        self.make_dirs(&new.id)?;
        Ok(record)
    }

    /// The container's directories. Whoever makes one may be killed between its row and these: they are
    /// made when it is used for the first time, too.
    pub(crate) fn make_dirs(&self, id: &str) -> Result<(), StateError> {
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
        // Names begin with a slash in Docker's API, and may where they are typed.
        schema::resolve(&self.database, text.strip_prefix('/').unwrap_or(text))
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

    /// Notes how the container ended. One that is to be removed is removed, and with it the volumes that nobody
    /// named and no other container has: returns their names.
    ///
    /// # Errors
    /// The database fails, or directories cannot be removed.
    pub fn finish(&self, id: &str, end: &End) -> Result<Vec<String>, StateError> {
        remove_dir(&self.roots.container_runtime_dir(id))?;
        let auto_remove = self
            .database
            .query_row(
                "SELECT auto_remove FROM containers WHERE id = ?1",
                [id],
                |row| row.get(0),
            )
            .optional()?
            .ok_or_else(|| StateError::NotFound(id.to_owned()))?;
        if auto_remove {
            return self.forget(id, true);
        }
        self.database.execute(
            "UPDATE containers SET phase = ?2, finished_ns = ?3, exit_code = ?4, signal = ?5,
             oom = ?6, error = ?7, stopped = ?8, monitor_pid = NULL, ports = NULL WHERE id = ?1",
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
        Ok(Vec::new())
    }

    /// Removes a container that does not run, and with it, if that is wanted, its volumes that nobody named
    /// and no other container has: returns their names. `release` frees what outlives a monitor that was
    /// killed, if it was and nobody has found out.
    ///
    /// # Errors
    /// [`StateError::Running`] among others.
    pub fn remove(
        &self,
        id: &str,
        with_volumes: bool,
        release: &dyn Fn(&Record) -> std::io::Result<()>,
    ) -> Result<Vec<String>, StateError> {
        // Held until the row is gone, so that nobody starts it meanwhile.
        let file = self.open_lock_file()?;
        drop(self.take(&file, id)?);
        let record = self.get(id)?;
        if record.was_begun() {
            let runtime = self.roots.container_runtime_dir(id);
            release(&record).map_err(StateError::io("clean up", &runtime))?;
        }
        self.forget(id, with_volumes)
    }

    /// Locks the byte of a container that does not run. What the caller writes about that belongs
    /// into the transaction: whoever finds the byte locked reads the record after it.
    ///
    /// Whoever looks whether a monitor is dead, or has waited for its end, holds the byte for an
    /// instant: that is not to be taken for a container that runs.
    pub(crate) fn take(&self, file: &File, id: &str) -> Result<Transaction<'_>, StateError> {
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
    pub(crate) fn forget(&self, id: &str, with_volumes: bool) -> Result<Vec<String>, StateError> {
        remove_dir(&self.roots.container_runtime_dir(id))?;
        let dir = self.roots.container_dir(id);
        // A monitor on its way out still has the disk open, and without room the row cannot be
        // deleted: what is cut is given back at once.
        let disk = File::options().write(true).open(dir.join(DISK_FILE));
        let _ = disk.and_then(|disk| disk.set_len(0));
        remove_dir(&dir)?;
        let behavior = TransactionBehavior::Immediate;
        let transaction = Transaction::new_unchecked(&self.database, behavior)?;
        let volumes = self.roots.volumes_dir();
        let (names, gone) = volumes::forget(&transaction, &volumes, id, with_volumes)?;
        transaction.commit()?;
        for dir in gone {
            volumes::clear(&dir)?;
        }
        Ok(names)
    }
}

pub(crate) fn get(database: &Connection, id: &str) -> Result<Record, StateError> {
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

pub(crate) fn remove_dir(path: &Path) -> Result<(), StateError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StateError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
