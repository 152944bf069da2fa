//! Volumes: their records, who has them, and their directories.
//!
//! ```text
//! volumes/NAME/_data       the files
//! volumes/NAME/disk.ext4   or the image of a block volume
//! volumes/.removed-ROW     what is about to be gone
//! ```
//!
//! A row is the first thing of a volume. Its directory is made by whoever uses it, and found there
//! whoever was killed meanwhile. To remove one its directory is renamed and its row deleted in one
//! transaction; then nobody finds it any more, and what is left is cleared up by whoever comes by. Where
//! the transaction was lost after the renaming, the row still is there and the directory goes back.

use crate::database::{self, State};
use crate::error::StateError;
use crate::record::Record;
use crate::time::now_ns;
use hullbox_plan::ContainerSpec;
use hullbox_plan::mounts::{VolumeSource, volume_options};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The directory of a volume's files in its own.
const DATA: &str = "_data";
/// The image of a block volume, in its directory.
const DISK: &str = "disk.ext4";
/// What names of directories that are to be gone begin with, which no volume's can.
const REMOVED: &str = ".removed-";

/// What is kept of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeSpec {
    /// Labels, if any were given.
    pub labels: Option<BTreeMap<String, String>>,
    /// Options of the driver, as they were given.
    pub options: BTreeMap<String, String>,
    /// Paths in the options are of the host outside the helper machine.
    pub outside: bool,
}

/// A volume as the database knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeRecord {
    row: i64,
    /// Its name.
    pub name: String,
    /// Nanoseconds since 1970.
    pub created_ns: i64,
    /// Everything else.
    pub spec: VolumeSpec,
    /// Its own directory.
    dir: PathBuf,
}

impl VolumeRecord {
    /// Where its files are, unless its options say something else.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.join(DATA)
    }

    /// The image of its file system, if it is a block volume.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.dir.join(DISK)
    }

    /// Its own directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// It is a disk image of ours, and no directory.
    #[must_use]
    pub fn is_disk(&self) -> bool {
        volume_options::is_disk(&self.spec.options)
    }
}

/// Something of volumes that should not be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StrayVolume {
    /// A directory that no volume has.
    Directory(PathBuf),
    /// A volume whose record cannot be understood.
    Record(String),
    /// A container that has a volume which there is not: the volume's name and the container's id.
    Use(String, String),
}

const COLUMNS: &str = "row, name, created_ns, spec";

impl State {
    /// Makes a volume; one that there is already is left as it is. Returns whether it is new.
    ///
    /// # Errors
    /// [`StateError::VolumeDiffers`] among others; nothing was made then.
    pub fn create_volume(
        &self,
        name: &str,
        spec: &VolumeSpec,
    ) -> Result<(VolumeRecord, bool), StateError> {
        // It is to be there after a power cut, like a container.
        self.database.pragma_update(None, "synchronous", "FULL")?;
        let transaction = self.begin_volumes()?;
        let (record, new) = ensure(&transaction, &self.roots.volumes_dir(), name, spec)?;
        if !new && !spec.options.is_empty() && record.spec.options != spec.options {
            return Err(StateError::VolumeDiffers(name.to_owned()));
        }
        transaction.commit()?;
        Ok((record, new))
    }

    /// One volume by its name.
    ///
    /// # Errors
    /// [`StateError::VolumeNotFound`] among others.
    pub fn volume(&self, name: &str) -> Result<VolumeRecord, StateError> {
        let found = find(&self.database, &self.roots.volumes_dir(), name)?;
        found.ok_or_else(|| StateError::VolumeNotFound(name.to_owned()))
    }

    /// All volumes, in the order of their names.
    ///
    /// # Errors
    /// The database fails, or a record is damaged.
    pub fn volumes(&self) -> Result<Vec<VolumeRecord>, StateError> {
        let dir = self.roots.volumes_dir();
        let mut statement = self
            .database
            .prepare(&format!("SELECT {COLUMNS} FROM volumes ORDER BY name"))?;
        let rows = statement.query_map([], |row| from_row(row, &dir))?;
        rows.map(|row| row?).collect()
    }

    /// Full ids of the containers that have a volume, the oldest first.
    ///
    /// # Errors
    /// The database fails.
    pub fn volume_users(&self, name: &str) -> Result<Vec<String>, StateError> {
        users(&self.database, name)
    }

    /// How many containers have each volume that any has.
    ///
    /// # Errors
    /// The database fails.
    pub fn volume_use_counts(&self) -> Result<BTreeMap<String, i64>, StateError> {
        let mut statement = self
            .database
            .prepare("SELECT volume, count(*) FROM volume_uses GROUP BY volume")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Makes the directory of a volume's files where it is missing.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn prepare_volume(&self, record: &VolumeRecord) -> Result<(), StateError> {
        if !record.dir.exists() {
            let removed = removed_dir(&self.roots.volumes_dir(), record.row);
            match fs::rename(&removed, &record.dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StateError::io("restore", &record.dir)(error));
                }
                _ => {}
            }
        }
        // Others reach their files through the mounts of a container alone.
        make_dir(&record.dir, 0o700)?;
        match record.is_disk() {
            true => Ok(()),
            false => make_dir(&record.data(), 0o755),
        }
    }

    /// Changes the options of a volume that is there.
    ///
    /// # Errors
    /// [`StateError::VolumeNotFound`] among others.
    pub fn change_volume(
        &self,
        name: &str,
        change: impl FnOnce(&mut VolumeSpec),
    ) -> Result<VolumeRecord, StateError> {
        let transaction = self.begin_volumes()?;
        let found = find(&transaction, &self.roots.volumes_dir(), name)?;
        let mut record = found.ok_or_else(|| StateError::VolumeNotFound(name.to_owned()))?;
        change(&mut record.spec);
        transaction.execute(
            "UPDATE volumes SET spec = ?2 WHERE name = ?1",
            params![name, to_json(&record.spec)],
        )?;
        transaction.commit()?;
        Ok(record)
    }

    /// Removes a volume that no container has.
    ///
    /// # Errors
    /// [`StateError::VolumeInUse`] and [`StateError::VolumeNotFound`] among others.
    pub fn remove_volume(&self, name: &str) -> Result<(), StateError> {
        let transaction = self.begin_volumes()?;
        let gone = remove(&transaction, &self.roots.volumes_dir(), name)?;
        transaction.commit()?;
        clear(&gone)
    }

    /// What should not be there. With `repair` it is removed, but for what somebody may miss.
    ///
    /// # Errors
    /// The database fails.
    pub fn stray_volumes(&self, repair: bool) -> Result<Vec<(StrayVolume, bool)>, StateError> {
        let dir = self.roots.volumes_dir();
        // Directories first: of a volume that is made meanwhile there is a row by then.
        let mut seen = Vec::new();
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            seen.push((
                entry.file_name().to_string_lossy().into_owned(),
                entry.path(),
            ));
        }
        let transaction = self.begin_volumes()?;
        let mut strays = Vec::new();
        let mut known = Vec::new();
        let mut statement =
            transaction.prepare(&format!("SELECT {COLUMNS} FROM volumes ORDER BY name"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (number, name): (i64, String) = (row.get(0)?, row.get(1)?);
            if from_row(row, &dir)?.is_err() {
                strays.push((StrayVolume::Record(name.clone()), false));
            }
            known.push(format!("{REMOVED}{number}"));
            known.push(name);
        }
        drop(rows);
        drop(statement);
        for (name, path) in seen {
            if !known.contains(&name) {
                // A leftover of our own goes; of what else there is nobody knows whose it is.
                let ours = name.starts_with(REMOVED);
                let repaired = repair && ours && fs::remove_dir_all(&path).is_ok();
                strays.push((StrayVolume::Directory(path), repaired));
            }
        }
        let mut statement = transaction.prepare(
            "SELECT volume, container FROM volume_uses
             WHERE volume NOT IN (SELECT name FROM volumes)
                 OR container NOT IN (SELECT id FROM containers)",
        )?;
        let uses = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let uses = uses.collect::<Result<Vec<(String, String)>, _>>()?;
        drop(statement);
        for (volume, container) in uses {
            if repair {
                transaction.execute(
                    "DELETE FROM volume_uses WHERE volume = ?1 AND container = ?2",
                    [&volume, &container],
                )?;
            }
            strays.push((StrayVolume::Use(volume, container), repair));
        }
        transaction.commit()?;
        Ok(strays)
    }

    /// Clears up what removals that were killed have left.
    pub fn tidy_volumes(&self) {
        let Ok(entries) = fs::read_dir(self.roots.volumes_dir()) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let row = name.strip_prefix(REMOVED);
            let row = row.and_then(|row| row.parse::<i64>().ok());
            let Some(row) = row else { continue };
            let has_row = self
                .database
                .query_row(
                    "SELECT 1 FROM volumes WHERE row = ?1",
                    [row],
                    |_: &Row<'_>| Ok(()),
                )
                .optional();
            if matches!(has_row, Ok(None)) {
                // Later, then.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    fn begin_volumes(&self) -> Result<Transaction<'_>, StateError> {
        let behavior = TransactionBehavior::Immediate;
        Ok(Transaction::new_unchecked(&self.database, behavior)?)
    }
}

/// The volumes of a new container: those that there are not yet are made. Returns the names of those.
pub(crate) fn join(
    transaction: &Transaction<'_>,
    dir: &Path,
    id: &str,
    spec: &ContainerSpec,
) -> Result<Vec<String>, StateError> {
    let mut made = Vec::new();
    for volume in spec.mounts.iter().filter_map(|mount| mount.volume()) {
        let (_, new) = ensure(transaction, dir, &volume.name, &spec_of(volume))?;
        if new {
            made.push(volume.name.clone());
        }
        transaction.execute(
            "INSERT INTO volume_uses (volume, container, anonymous) VALUES (?1, ?2, ?3)
             ON CONFLICT (volume, container) DO UPDATE
                 SET anonymous = min(anonymous, excluded.anonymous)",
            params![volume.name, id, volume.anonymous],
        )?;
    }
    Ok(made)
}

/// Forgets a container, and with it, if that is wanted, the volumes that nobody named and no other
/// container has. Returns their names, and their directories, which are to be cleared.
pub(crate) fn forget(
    transaction: &Transaction<'_>,
    dir: &Path,
    id: &str,
    with_volumes: bool,
) -> Result<(Vec<String>, Vec<PathBuf>), StateError> {
    let mut statement = transaction.prepare_cached(
        "SELECT volume FROM volume_uses WHERE container = ?1 AND anonymous
             AND volume IN (SELECT name FROM volumes)
             AND NOT EXISTS (SELECT 1 FROM volume_uses AS other
                 WHERE other.volume = volume_uses.volume AND other.container != ?1)",
    )?;
    let names = match with_volumes {
        true => statement
            .query_map([id], |row| row.get::<_, String>(0))?
            .collect::<Result<Vec<_>, _>>()?,
        false => Vec::new(),
    };
    transaction.execute("DELETE FROM containers WHERE id = ?1", [id])?;
    let mut gone = Vec::new();
    for name in &names {
        gone.push(remove(transaction, dir, name)?);
    }
    Ok((names, gone))
}

/// Clears a directory that is nobody's any more.
pub(crate) fn clear(dir: &Path) -> Result<(), StateError> {
    database::remove_dir(dir)
}

fn spec_of(volume: &VolumeSource) -> VolumeSpec {
    let mut labels = volume.make.labels.clone();
    if volume.anonymous {
        labels.insert(ANONYMOUS.to_owned(), String::new());
    }
    VolumeSpec {
        labels: (!labels.is_empty()).then_some(labels),
        options: volume.make.options.clone(),
        outside: false,
    }
}

/// Docker's label of a volume that nobody named.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// The volume of this name, made if there is none.
fn ensure(
    transaction: &Transaction<'_>,
    dir: &Path,
    name: &str,
    spec: &VolumeSpec,
) -> Result<(VolumeRecord, bool), StateError> {
    if let Some(found) = find(transaction, dir, name)? {
        return Ok((found, false));
    }
    let created_ns = now_ns();
    transaction.execute(
        "INSERT INTO volumes (name, created_ns, spec) VALUES (?1, ?2, ?3)",
        params![name, created_ns, to_json(spec)],
    )?;
    let record = VolumeRecord {
        row: transaction.last_insert_rowid(),
        name: name.to_owned(),
        created_ns,
        spec: spec.clone(),
        dir: dir.join(name),
    };
    Ok((record, true))
}

/// Deletes a volume's row and renames its directory, to what is returned.
fn remove(transaction: &Transaction<'_>, dir: &Path, name: &str) -> Result<PathBuf, StateError> {
    let row: Option<i64> = transaction
        .query_row("SELECT row FROM volumes WHERE name = ?1", [name], |row| {
            row.get(0)
        })
        .optional()?;
    let row = row.ok_or_else(|| StateError::VolumeNotFound(name.to_owned()))?;
    let users = users(transaction, name)?;
    if !users.is_empty() {
        let name = name.to_owned();
        return Err(StateError::VolumeInUse { name, users });
    }
    transaction.execute("DELETE FROM volumes WHERE row = ?1", [row])?;
    let (from, to) = (dir.join(name), removed_dir(dir, row));
    match fs::rename(&from, &to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StateError::io("remove", &from)(error))
        }
        _ => Ok(to),
    }
}

fn removed_dir(dir: &Path, row: i64) -> PathBuf {
    dir.join(format!("{REMOVED}{row}"))
}

fn users(database: &Connection, name: &str) -> Result<Vec<String>, StateError> {
    let mut statement = database.prepare_cached(
        "SELECT id FROM containers JOIN volume_uses ON container = id
         WHERE volume = ?1 ORDER BY row",
    )?;
    let rows = statement.query_map([name], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn find(database: &Connection, dir: &Path, name: &str) -> Result<Option<VolumeRecord>, StateError> {
    database
        .query_row(
            &format!("SELECT {COLUMNS} FROM volumes WHERE name = ?1"),
            [name],
            |row| from_row(row, dir),
        )
        .optional()?
        .transpose()
}

fn from_row(row: &Row<'_>, dir: &Path) -> rusqlite::Result<Result<VolumeRecord, StateError>> {
    let name: String = row.get(1)?;
    let spec: String = row.get(3)?;
    let spec = match serde_json::from_str(&spec) {
        Ok(spec) => spec,
        Err(source) => return Ok(Err(StateError::VolumeDamaged { name, source })),
    };
    Ok(Ok(VolumeRecord {
        row: row.get(0)?,
        created_ns: row.get(2)?,
        spec,
        dir: dir.join(&name),
        name,
    }))
}

fn make_dir(path: &Path, mode: u32) -> Result<(), StateError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(path);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parent)
        .map_err(StateError::io("create", parent))?;
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(StateError::io("create", path)(error));
        }
        _ => {}
    }
    // Whatever umask we run under.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(StateError::io("create", path))
}

/// Of plain data, which always can.
fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

impl Record {
    /// The volumes that the container has.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeSource> {
        self.spec.mounts.iter().filter_map(|mount| mount.volume())
    }
}

#[cfg(test)]
mod tests;
