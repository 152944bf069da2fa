//! The database's tables and the questions that several callers ask.

use crate::error::StateError;
use crate::record::Resolved;
use rusqlite::{Connection, OpenFlags, OptionalExtension, config::DbConfig};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// Version of the tables that this program writes, in `user_version`.
const VERSION: i64 = 8;

/// Numbers of rows are never used twice, because the locks' offsets must not be.
const TABLES: &str = "
    CREATE TABLE containers (
        row         INTEGER PRIMARY KEY AUTOINCREMENT,
        id          TEXT NOT NULL UNIQUE,
        name        TEXT NOT NULL UNIQUE,
        image_id    TEXT NOT NULL,
        image_ref   TEXT NOT NULL,
        phase       TEXT NOT NULL,
        auto_remove INTEGER NOT NULL,
        created_ns  INTEGER NOT NULL,
        started_ns  INTEGER,
        finished_ns INTEGER,
        monitor_pid INTEGER,
        exit_code   INTEGER,
        signal      INTEGER,
        oom         INTEGER NOT NULL DEFAULT 0,
        error       TEXT,
        spec        TEXT NOT NULL
    ) STRICT;
    CREATE INDEX containers_by_image ON containers (image_id);
";

/// From one version to the next, beginning with the first.
const STEPS: [&str; 7] = [
    "
    ALTER TABLE containers ADD COLUMN restarts INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE containers ADD COLUMN stopped INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE containers ADD COLUMN health TEXT;
    DROP INDEX IF EXISTS containers_alive;
    CREATE INDEX containers_active ON containers (phase)
        WHERE phase IN ('starting', 'running', 'paused', 'restarting');
",
    "ALTER TABLE containers ADD COLUMN beginning TEXT;",
    "ALTER TABLE containers ADD COLUMN pid INTEGER;",
    "CREATE INDEX containers_begun ON containers (monitor_pid) WHERE monitor_pid IS NOT NULL;",
    "ALTER TABLE containers ADD COLUMN ports TEXT;",
    "
    CREATE TABLE networks (
        row        INTEGER PRIMARY KEY AUTOINCREMENT,
        id         TEXT NOT NULL UNIQUE,
        name       TEXT NOT NULL UNIQUE,
        created_ns INTEGER NOT NULL,
        spec       TEXT NOT NULL
    ) STRICT;
    CREATE TABLE endpoints (
        network   TEXT NOT NULL,
        container TEXT NOT NULL,
        asked     TEXT NOT NULL,
        lease     TEXT,
        PRIMARY KEY (network, container)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX endpoints_by_container ON endpoints (container);
    CREATE TRIGGER endpoints_of_container AFTER DELETE ON containers BEGIN
        DELETE FROM endpoints WHERE container = OLD.id;
    END;
    CREATE TRIGGER endpoints_of_network AFTER DELETE ON networks BEGIN
        DELETE FROM endpoints WHERE network = OLD.id;
    END;
",
    "
    CREATE TABLE volumes (
        row        INTEGER PRIMARY KEY AUTOINCREMENT,
        name       TEXT NOT NULL UNIQUE,
        created_ns INTEGER NOT NULL,
        spec       TEXT NOT NULL
    ) STRICT;
    CREATE TABLE volume_uses (
        volume    TEXT NOT NULL,
        container TEXT NOT NULL,
        anonymous INTEGER NOT NULL,
        PRIMARY KEY (volume, container)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX volume_uses_by_container ON volume_uses (container);
    CREATE TRIGGER volume_uses_of_container AFTER DELETE ON containers BEGIN
        DELETE FROM volume_uses WHERE container = OLD.id;
    END;
",
];

pub(super) fn open(path: &Path, busy: Duration) -> Result<Connection, StateError> {
    let database = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    database.busy_timeout(busy)?;
    // Otherwise the last command to close deletes the log and the next one makes it again.
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let version: i64 = database.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > VERSION {
        return Err(StateError::Version {
            found: version,
            known: VERSION,
        });
    }
    // A commit survives the death of any process; after a power cut the last ones may be gone,
    // but whole ones.
    database.pragma_update(None, "synchronous", "NORMAL")?;
    if version < VERSION {
        // The log and its index take the database's mode.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .map_err(StateError::io("protect", path))?;
        // The journal mode is kept in the file, so it is set once.
        database.pragma_update(None, "journal_mode", "WAL")?;
        migrate(&database)?;
    }
    Ok(database)
}

/// Brings the tables to [`VERSION`], from none or from an older one: all the way or not at all.
fn migrate(database: &Connection) -> Result<(), StateError> {
    database.execute_batch("BEGIN IMMEDIATE")?;
    let migrated = || -> rusqlite::Result<()> {
        // Somebody else may have been faster.
        let version: i64 = database.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version == 0 {
            database.execute_batch(TABLES)?;
        }
        let done = usize::try_from(version.max(1) - 1).unwrap_or(0);
        for step in STEPS.iter().skip(done) {
            database.execute_batch(step)?;
        }
        database.pragma_update(None, "user_version", VERSION)
    };
    match migrated() {
        Ok(()) => Ok(database.execute_batch("COMMIT")?),
        Err(error) => {
            // The first error is the one to tell; the connection is dropped anyway.
            let _ = database.execute_batch("ROLLBACK");
            Err(error.into())
        }
    }
}

pub(super) fn id_of_name(database: &Connection, name: &str) -> Result<Option<String>, StateError> {
    Ok(database
        .query_row("SELECT id FROM containers WHERE name = ?1", [name], |row| {
            row.get(0)
        })
        .optional()?)
}

pub(super) fn resolve(database: &Connection, text: &str) -> Result<Resolved, StateError> {
    let exact: Option<String> = database
        .query_row(
            "SELECT id FROM containers WHERE id = ?1 OR name = ?1 ORDER BY id = ?1 DESC LIMIT 1",
            [text],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(id) = exact {
        return Ok(Resolved { id });
    }
    let hexadecimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hexadecimal {
        return Err(StateError::NotFound(text.to_owned()));
    }
    let mut statement =
        database.prepare("SELECT id FROM containers WHERE id LIKE ?1 || '%' LIMIT 2")?;
    let mut ids = statement
        .query_map([text], |row| row.get::<_, String>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    match (ids.pop(), ids.pop()) {
        (Some(_), Some(_)) => Err(StateError::Ambiguous(text.to_owned())),
        (Some(id), None) => Ok(Resolved { id }),
        _ => Err(StateError::NotFound(text.to_owned())),
    }
}
