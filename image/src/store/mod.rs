//! The content store: what is in it, and the few operations on it.
//!
//! ```text
//! $root/images.db          index (SQLite)
//!       blobs/sha256/HEX   configurations and manifests
//!       layers/KEY.erofs   layers; KEY is the DiffID, or the ChainID where the layer's meaning
//!                          depends on what lies below it
//!       recipes/KEY        how to make the layer's tar again
//!       staging/           one directory for every operation at work
//!       partial/           what pulls have fetched of images that are not complete
//!       staging.lock       held shared by operations that stage, exclusively by the sweeper
//!       use.lock           held shared while a container is made, exclusively by removal
//! ```
//!
//! Files appear by rename after `fsync`, rows by one transaction after the files. An operation
//! keeps its staging directory for as long as files and rows may disagree; a directory without
//! an owner tells the next command to sweep.

mod check;
mod commit;
mod error;
mod history;
mod lock;
mod names;
mod partial;
mod prune;
mod query;
mod remove;
mod schema;
mod staging;
mod travel;

pub use check::{CheckOptions, CheckReport, Finding, Severity};
pub(crate) use commit::{Facts, NewImage, NewLayer, Proof, StagedFiles};
pub use error::StoreError;
pub use history::HistoryEntry;
pub use partial::PartialUse;
pub(crate) use partial::{BlobLock, Partials};
pub use prune::{LabelFilter, PruneOptions, Pruned, Usage};
pub(crate) use query::Found;
pub use query::{ConfigError, Image, ImageSummary, LayerFile, ResolveError};
pub use remove::{ImageUse, RemoveError, Removed};
pub use staging::Lease;
pub(crate) use staging::Staging;
pub use travel::LayerInfo;
pub(crate) use travel::{KnownBlob, NewBlob, NewRepoDigest, Travel};

use crate::limits::Limits;
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a command waits for another's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// A content store that is open. Opening is cheap enough for the start path of every container.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    db: Connection,
    limits: Limits,
}

impl Store {
    /// Opens the store under `root`, creating it when there is none, and sweeps away what a
    /// killed operation left half done.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(root: impl AsRef<Path>) -> Result<Self, StoreError> {
        let root = root.as_ref();
        let path = root.join("images.db");
        let db = match open_index(&path) {
            Ok(db) => db,
            // The one error a missing directory causes; asking beforehand would cost every start.
            Err(rusqlite::Error::SqliteFailure(error, _))
                if error.code == rusqlite::ErrorCode::CannotOpen =>
            {
                make_dir(root)?;
                open_index(&path)?
            }
            Err(error) => return Err(error.into()),
        };
        let mut store = Self {
            root: root.to_owned(),
            db,
            limits: Limits::default(),
        };
        store.initialise()?;
        store.sweep_if_needed()?;
        Ok(store)
    }

    /// Replaces the limits on what is loaded.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The directory it is in.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) const fn db(&self) -> &Connection {
        &self.db
    }

    pub(crate) const fn limits(&self) -> &Limits {
        &self.limits
    }

    fn initialise(&mut self) -> Result<(), StoreError> {
        if schema::version(&self.db)? == schema::VERSION {
            return Ok(());
        }
        make_dir(&self.root)?;
        // Changing the journal mode does not honour the busy timeout, so first users queue here.
        let _alone = lock::exclusive(&self.use_lock_path())?;
        // The log and the shared memory, made later, take after the index.
        let index = self.root.join("images.db");
        std::fs::set_permissions(&index, std::fs::Permissions::from_mode(0o600))
            .map_err(StoreError::io("protect", &index))?;
        for dir in ["blobs/sha256", "layers", "recipes", "staging", "partial"] {
            make_dir(&self.root.join(dir))?;
        }
        schema::migrate(&mut self.db)?;
        self.checkpoint()
    }

    /// Brings the log into the index, unless another command reads there: then a later one does.
    fn checkpoint(&self) -> Result<(), StoreError> {
        self.db
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }

    fn use_lock_path(&self) -> PathBuf {
        self.root.join("use.lock")
    }

    fn staging_lock_path(&self) -> PathBuf {
        self.root.join("staging.lock")
    }

    fn staging_path(&self) -> PathBuf {
        self.root.join("staging")
    }

    pub(crate) fn layer_path(&self, key: &str) -> PathBuf {
        self.root.join("layers").join(format!("{key}.erofs"))
    }

    pub(crate) fn recipe_path(&self, key: &str) -> PathBuf {
        self.root.join("recipes").join(key)
    }

    fn blob_path(&self, digest: &crate::Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }
}

fn open_index(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    // The last command to close would otherwise delete the log, and the next one make it again.
    // What changes the index empties the log itself, so that the next to open finds nothing to
    // read there.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // FULL, not NORMAL: files are unlinked after the transaction that forgets them. Were that
    // transaction lost in a power cut and the unlinking not, an image would lack its layers.
    // Readers never sync, so only load, tag and rmi pay for it.
    db.pragma_update(None, "synchronous", "FULL")?;
    Ok(db)
}

/// Creates a directory and its parents, ours open to nobody else.
fn make_dir(path: &Path) -> Result<(), StoreError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(StoreError::io("create", path))
}
