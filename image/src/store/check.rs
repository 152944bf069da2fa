//! Looking for damage, and mending what can be mended.
//!
//! What vouches for what: an image's id for its configuration, the configuration for its DiffIDs,
//! a DiffID (through the recipe) for the data of a layer's files, the seal for everything else in
//! a layer's image. Nothing vouches for the index but SQLite.

use super::commit::Facts;
use super::lock;
use super::staging::MANIFESTS;
use super::{ImageUse, Store, StoreError};
use crate::digest::{DiffId, Digest, ImageId};
use crate::erofs::check_superblock;
use crate::limits::Limits;
use crate::load::image_config;
use crate::save::{RegenerateError, layer_tar};
use rusqlite::params;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

/// How to look.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// Remove unreferenced_files and what was left half done, and drop images that are damaged.
    pub repair: bool,
    /// Do not read the layers' contents, only what is cheap to read.
    pub quick: bool,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Something does not work as it should, but images run.
    Warning,
    /// An image is damaged.
    Error,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is, in a sentence without its end.
    pub what: String,
    /// The file it is about.
    pub path: Option<PathBuf>,
    /// Whether it is no longer so.
    pub repaired: bool,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckReport {
    /// In the order it was found.
    pub findings: Vec<Finding>,
    /// Images looked at.
    pub images: u64,
    /// Layers looked at.
    pub layers: u64,
    /// Bytes of layers' tars whose digests were compared.
    pub verified_bytes: u64,
}

impl CheckReport {
    /// Whether nothing worse than a note is left.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.repaired || finding.severity == Severity::Note)
    }

    /// Adds a finding and answers its number.
    fn add(&mut self, severity: Severity, what: impl Into<String>, path: Option<&Path>) -> usize {
        self.findings.push(Finding {
            severity,
            what: what.into(),
            path: path.map(Path::to_owned),
            repaired: false,
        });
        self.findings.len() - 1
    }
}

/// What is wrong with a layer.
enum Fault {
    /// Its tar cannot be made again.
    Recipe(String),
    /// It is not what it was.
    Layer(String),
}

/// A check at work.
struct Check {
    options: CheckOptions,
    report: CheckReport,
    /// Damaged images and the finding that says so.
    bad_images: BTreeMap<ImageId, usize>,
    /// Damaged layers, by key, and the finding that says so.
    bad_layers: BTreeMap<String, usize>,
}

impl Store {
    /// Looks through the whole store, and with `repair` mends it: unreferenced_files go, and so do images
    /// that are damaged, unless `in_use` names a container that is made from one.
    ///
    /// # Errors
    /// [`StoreError`], if the store cannot be looked at.
    pub fn check(
        &mut self,
        options: CheckOptions,
        in_use: &mut dyn FnMut(&ImageId) -> Option<ImageUse>,
    ) -> Result<CheckReport, StoreError> {
        let mut check = Check {
            options,
            report: CheckReport::default(),
            bad_images: BTreeMap::new(),
            bad_layers: BTreeMap::new(),
        };
        if !check.index(self)? {
            return Ok(check.report);
        }
        check.unreferenced_files(self)?;
        check.partial_downloads(self)?;
        {
            // While this is held no file goes.
            let _staging = self.stage()?;
            check.images(self)?;
            check.layers(self)?;
        }
        check.damaged_images(self, in_use)?;
        Ok(check.report)
    }
}

impl Check {
    /// The index itself; whether it is worth asking further.
    fn index(&mut self, store: &Store) -> Result<bool, StoreError> {
        let path = store.root.join("images.db");
        let lines = strings(store, "PRAGMA integrity_check(20)")?;
        if lines != ["ok"] {
            for line in lines {
                let what = format!("the image index is damaged: {line}");
                self.report.add(Severity::Error, what, Some(&path));
            }
            return Ok(false);
        }
        let orphans = [
            (
                "a name points at no image",
                "names",
                "image NOT IN (SELECT id FROM images)",
            ),
            (
                "an image that does not exist has a layer",
                "image_layers",
                "image NOT IN (SELECT id FROM images)",
            ),
            (
                "an image has a layer that does not exist",
                "image_layers",
                "layer NOT IN (SELECT key FROM layers)",
            ),
            (
                "a digest of a repository belongs to no image",
                "repo_digests",
                "image NOT IN (SELECT id FROM images)",
            ),
            (
                "a layer belongs to no image",
                "layers",
                "key NOT IN (SELECT layer FROM image_layers)",
            ),
        ];
        for (what, table, condition) in orphans {
            let count: u64 = store.db.query_row(
                &format!("SELECT count(*) FROM {table} WHERE {condition}"),
                [],
                |row| row.get::<_, i64>(0).map(i64::unsigned_abs),
            )?;
            if count == 0 {
                continue;
            }
            let what = format!("{what} ({count} times)");
            let finding = self.report.add(Severity::Warning, what, Some(&path));
            if self.options.repair {
                let sql = format!("DELETE FROM {table} WHERE {condition}");
                store.db.execute(&sql, [])?;
                self.report.findings[finding].repaired = true;
            }
        }
        Ok(true)
    }

    /// Files that no row speaks of.
    fn unreferenced_files(&mut self, store: &Store) -> Result<(), StoreError> {
        let Some(_alone) = store.try_alone()? else {
            let what = "another command is at work, so stray files were not looked for";
            self.report.add(Severity::Note, what, None);
            return Ok(());
        };
        let first = self.report.findings.len();
        for (dir, keep) in store.referenced_files()? {
            for entry in std::fs::read_dir(&dir).map_err(StoreError::io("read", &dir))? {
                let entry = entry.map_err(StoreError::io("read", &dir))?;
                let name = entry.file_name();
                if !name.to_str().is_some_and(|name| keep.contains(name)) {
                    let what = "a file belongs to nothing";
                    self.report
                        .add(Severity::Warning, what, Some(&entry.path()));
                }
            }
        }
        if self.options.repair && self.report.findings.len() > first {
            store.sweep()?;
            for finding in &mut self.report.findings[first..] {
                finding.repaired = true;
            }
        }
        Ok(())
    }

    /// What pulls have left. Only what is no part of any download is wrong.
    fn partial_downloads(&mut self, store: &Store) -> Result<(), StoreError> {
        let partials = store.partials();
        for path in partials.strays()? {
            let what = "a file is no part of any partial download";
            let finding = self.report.add(Severity::Warning, what, Some(&path));
            self.report.findings[finding].repaired = self.options.repair;
        }
        if self.options.repair {
            partials.remove_strays()?;
        }
        let usage = partials.usage()?;
        if usage.count > usage.active {
            let what = format!(
                "{} partial downloads take {} bytes: pulling their images goes on with them, and \
                 \"image prune\" removes them",
                usage.count - usage.active,
                usage.reclaimable_bytes
            );
            self.report.add(Severity::Note, what, None);
        }
        Ok(())
    }

    /// Configurations and manifests.
    fn images(&mut self, store: &Store) -> Result<(), StoreError> {
        for id in store.image_ids()? {
            self.report.images += 1;
            let path = store.blob_path(id.digest());
            if let Err(what) = image_fault(store, &id)? {
                let what = format!("image {}: {what}", id.short());
                let finding = self.report.add(Severity::Error, what, Some(&path));
                self.bad_images.insert(id, finding);
            }
            self.manifests(store, &id)?;
        }
        Ok(())
    }

    /// The manifests that an image has by its names.
    fn manifests(&mut self, store: &Store, id: &ImageId) -> Result<(), StoreError> {
        let sql = format!("SELECT manifest FROM ({MANIFESTS}) WHERE image = ?1 ORDER BY 1");
        let mut statement = store.db.prepare(&sql)?;
        let rows = statement.query_map(params![id.digest().as_bytes()], |row| {
            row.get(0).map(Digest::from_bytes)
        })?;
        let digests: Vec<Digest> = rows.collect::<Result<_, _>>()?;
        for digest in digests {
            self.manifest(store, id, &digest)?;
        }
        Ok(())
    }

    fn manifest(&mut self, store: &Store, id: &ImageId, digest: &Digest) -> Result<(), StoreError> {
        let path = store.blob_path(digest);
        if std::fs::read(&path).is_ok_and(|bytes| Digest::of(&bytes) == *digest) {
            return Ok(());
        }
        let what = format!(
            "image {}: its manifest is missing or damaged, so it is pushed with another one",
            id.short()
        );
        let finding = self.report.add(Severity::Warning, what, Some(&path));
        if self.options.repair {
            for (table, image, digests) in [
                ("images", "id", "manifest = NULL"),
                // What the registry has is not what is there any more: the next pull brings it.
                ("names", "image", "manifest = NULL, digest = NULL"),
                ("repo_digests", "image", "manifest = NULL"),
            ] {
                let sql =
                    format!("UPDATE {table} SET {digests} WHERE {image} = ?1 AND manifest = ?2");
                let row = params![id.digest().as_bytes(), digest.as_bytes()];
                store.db.execute(&sql, row)?;
            }
            remove(&path)?;
            self.report.findings[finding].repaired = true;
        }
        Ok(())
    }

    fn layers(&mut self, store: &Store) -> Result<(), StoreError> {
        for key in strings(store, "SELECT key FROM layers ORDER BY key")? {
            let Some(known) = store.known_layer(&key)? else {
                continue;
            };
            self.report.layers += 1;
            match self.layer_fault(store, &key, &known.diff_id, &known.facts) {
                Ok(()) => {}
                Err(Fault::Layer(what)) => {
                    let what = format!("layer {}: {what}", &key[..key.len().min(12)]);
                    let path = store.layer_path(&key);
                    let finding = self.report.add(Severity::Error, what, Some(&path));
                    self.bad_layers.insert(key, finding);
                }
                Err(Fault::Recipe(what)) => self.recipe(store, &key, &what)?,
            }
        }
        Ok(())
    }

    fn layer_fault(
        &mut self,
        store: &Store,
        key: &str,
        diff_id: &DiffId,
        facts: &Facts,
    ) -> Result<(), Fault> {
        let layer = |error: &dyn std::error::Error| Fault::Layer(chain(error));
        let path = store.layer_path(key);
        let file = File::open(&path).map_err(|e| Fault::Layer(format!("cannot be opened: {e}")))?;
        let len = file.metadata().map_err(|e| layer(&e))?.len();
        if len != facts.file_bytes {
            let what = format!("has {len} bytes, not {}", facts.file_bytes);
            return Err(Fault::Layer(what));
        }
        check_superblock(&file, len).map_err(|e| layer(&e))?;
        let Some(proof) = &facts.proof else {
            let what = format!(
                "layer {}: it has no record of its tar, so its contents cannot be verified nor \
                 saved; loading its image again makes one",
                &key[..key.len().min(12)]
            );
            self.report.add(Severity::Note, what, Some(&path));
            return Ok(());
        };
        let recipe = store.recipe_path(key);
        let recipe_len = recipe
            .metadata()
            .map_err(|e| Fault::Recipe(format!("cannot be opened: {e}")))?
            .len();
        if recipe_len != proof.recipe_bytes {
            let what = format!("has {recipe_len} bytes, not {}", proof.recipe_bytes);
            return Err(Fault::Recipe(what));
        }
        if self.options.quick {
            return Ok(());
        }
        if !proof.seal.holds(&file, len).map_err(|e| layer(&e))? {
            return Err(Fault::Layer("its metadata was changed on disk".to_owned()));
        }
        match layer_tar(store, key, diff_id, facts, &mut std::io::sink()) {
            Ok(bytes) => {
                self.report.verified_bytes += bytes;
                Ok(())
            }
            Err(error) if error.blames_recipe() => Err(Fault::Recipe(chain(&error))),
            Err(RegenerateError::Changed { .. }) => {
                Err(Fault::Layer("its contents were changed on disk".to_owned()))
            }
            Err(error) => Err(layer(&error)),
        }
    }

    /// A recipe that does not work is forgotten: the layer itself may be well.
    fn recipe(&mut self, store: &Store, key: &str, what: &str) -> Result<(), StoreError> {
        let path = store.recipe_path(key);
        let what = format!(
            "layer {}: the record of its tar is damaged ({what}), so its images cannot be saved; \
             loading one again makes a new record",
            &key[..key.len().min(12)]
        );
        let finding = self.report.add(Severity::Warning, what, Some(&path));
        if self.options.repair {
            store.db.execute(
                "UPDATE layers SET tar_bytes = NULL, recipe_bytes = NULL, sealed_from = NULL,
                                   seal = NULL WHERE key = ?1",
                params![key],
            )?;
            remove(&path)?;
            self.report.findings[finding].repaired = true;
        }
        Ok(())
    }

    /// Says which images the damage concerns, and drops them if asked to.
    fn damaged_images(
        &mut self,
        store: &mut Store,
        in_use: &mut dyn FnMut(&ImageId) -> Option<ImageUse>,
    ) -> Result<(), StoreError> {
        if self.bad_layers.is_empty() && self.bad_images.is_empty() {
            return Ok(());
        }
        let _no_new_users = lock::exclusive(&store.use_lock_path())?;
        for id in store.image_ids()? {
            let layers: BTreeSet<String> =
                store.stack_of(&id)?.into_iter().map(|l| l.key).collect();
            let has_bad_layer = layers.iter().any(|key| self.bad_layers.contains_key(key));
            if !has_bad_layer && !self.bad_images.contains_key(&id) {
                continue;
            }
            let names: Vec<String> = store.names_of(&id)?.iter().map(|n| n.familiar()).collect();
            let names = if names.is_empty() {
                String::new()
            } else {
                format!(" ({})", names.join(", "))
            };
            let user = in_use(&id);
            let repaired = self.options.repair && user.is_none();
            let rest = match user {
                Some(ImageUse::Stopped { container } | ImageUse::Running { container }) => {
                    format!("container {container} uses it: remove that first")
                }
                None if repaired => "it was removed: load it again".to_owned(),
                None => "a repair removes it".to_owned(),
            };
            let what = format!("image {}{names} is damaged; {rest}", id.short());
            let finding = self.report.add(Severity::Error, what, None);
            if repaired {
                store.delete(&[id], true)?;
                self.report.findings[finding].repaired = true;
                if let Some(&config) = self.bad_images.get(&id) {
                    self.report.findings[config].repaired = true;
                }
            }
        }
        for (key, &finding) in &self.bad_layers {
            self.report.findings[finding].repaired = store.known_layer(key)?.is_none();
        }
        Ok(())
    }
}

/// What is wrong with an image's configuration, if anything is.
fn image_fault(store: &Store, id: &ImageId) -> Result<Result<(), String>, StoreError> {
    let Ok(bytes) = store.config_bytes(id) else {
        return Ok(Err("its configuration is missing or was changed".to_owned()));
    };
    // What was loaded under other limits is not damaged.
    let limits = Limits {
        max_layers: usize::MAX,
        ..Limits::default()
    };
    let told = match image_config("configuration", &bytes, &limits) {
        Ok((_, diff_ids)) => diff_ids,
        Err(error) => return Ok(Err(chain(&error))),
    };
    let found: Vec<DiffId> = store.stack_of(id)?.iter().map(|l| l.diff_id).collect();
    if told != found {
        return Ok(Err(
            "its layers are not those of its configuration".to_owned()
        ));
    }
    Ok(Ok(()))
}

fn strings(store: &Store, sql: &str) -> Result<Vec<String>, StoreError> {
    let mut statement = store.db.prepare(sql)?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        next = cause.source();
    }
    line
}
