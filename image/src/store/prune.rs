//! What images cost, and giving it back.

use super::lock;
use super::query::image_id;
use super::travel;
use super::{ImageUse, PartialUse, Removed, Store, StoreError};
use crate::digest::ImageId;
use crate::reference::{Reference, familiar_name};
use rusqlite::{TransactionBehavior, params};
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

/// A line of `hullbox system df`: counts are of images, sizes as Docker counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Images in the store.
    pub images: u64,
    /// Images that containers are made from.
    pub active: u64,
    /// Files of all layers, each layer counted once, in bytes.
    pub size_bytes: u64,
    /// Of these, what only images without containers need.
    pub reclaimable_bytes: u64,
    /// Disk space that layers and what belongs to them really take, in bytes.
    pub disk_bytes: u64,
    /// What pulls have fetched of images that are not complete; in none of the other numbers.
    pub partial: PartialUse,
}

/// Which images to give up.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// Those with names too, not just those without.
    pub all: bool,
    /// Only those made before this second since 1970.
    pub until: Option<i64>,
    /// Only those whose labels fit all of these.
    pub labels: Vec<LabelFilter>,
}

/// `label=KEY`, `label=KEY=VALUE`, or `label!=…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelFilter {
    /// The label.
    pub key: String,
    /// Its value, unless any will do.
    pub value: Option<String>,
    /// Whether images with it are meant, or those without it.
    pub is: bool,
}

impl LabelFilter {
    fn fits(&self, labels: Option<&Value>) -> bool {
        let found = labels
            .and_then(|labels| labels.get(&self.key))
            .and_then(Value::as_str);
        let has = match &self.value {
            None => found.is_some(),
            Some(value) => found == Some(value),
        };
        has == self.is
    }
}

/// What was given up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Names and images, in order.
    pub removed: Vec<Removed>,
    /// Bytes of files that no image has any more, and of partial downloads.
    pub reclaimed_bytes: u64,
    /// Partial downloads that were removed.
    pub partial_downloads: u64,
}

impl Store {
    /// What images cost. `in_use` is asked whether a container is made from an image.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn usage(
        &self,
        in_use: &mut dyn FnMut(&ImageId) -> Option<ImageUse>,
    ) -> Result<Usage, StoreError> {
        let mut usage = Usage {
            partial: self.partial_use()?,
            ..Usage::default()
        };
        let mut layers: BTreeMap<String, (u64, bool)> = BTreeMap::new();
        for id in self.image_ids()? {
            let active = in_use(&id).is_some();
            usage.images += 1;
            usage.active += u64::from(active);
            for layer in self.stack_of(&id)? {
                let known = layers
                    .entry(layer.key)
                    .or_insert((layer.facts.content_bytes, false));
                known.1 |= active;
            }
        }
        for (key, (bytes, active)) in layers {
            usage.size_bytes += bytes;
            if !active {
                usage.reclaimable_bytes += bytes;
            }
            for path in [self.layer_path(&key), self.recipe_path(&key)] {
                // A file that is missing takes nothing; that it is missing is for `check` to say.
                let blocks = path.metadata().map_or(0, |metadata| metadata.blocks());
                usage.disk_bytes += blocks * 512;
            }
        }
        Ok(usage)
    }

    /// Removes images that no container is made from: those without a name, or all. Partial
    /// downloads that no pull is at work on go too, unless labels are asked for.
    ///
    /// `in_use` is asked while no [`super::Lease`] is out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn prune(
        &mut self,
        options: &PruneOptions,
        in_use: &mut dyn FnMut(&ImageId) -> Option<ImageUse>,
    ) -> Result<Pruned, StoreError> {
        let _no_new_users = lock::exclusive(&self.use_lock_path())?;
        let mut doomed = Vec::new();
        for id in self.image_ids()? {
            if self.is_prunable(&id, options)? && in_use(&id).is_none() {
                doomed.push(id);
            }
        }
        let mut pruned = match &doomed[..] {
            [] => Pruned::default(),
            doomed => self.delete(doomed, options.all)?,
        };
        if options.labels.is_empty() {
            let (count, bytes) = self.partials().prune(options.until)?;
            pruned.partial_downloads = count;
            pruned.reclaimed_bytes += bytes;
        }
        Ok(pruned)
    }

    fn is_prunable(&self, id: &ImageId, options: &PruneOptions) -> Result<bool, StoreError> {
        let (created, names): (Option<i64>, i64) = self.db.query_row(
            "SELECT created, (SELECT count(*) FROM names WHERE image = id)
             FROM images WHERE id = ?1",
            params![id.digest().as_bytes()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let old = options
            .until
            .is_none_or(|until| created.unwrap_or(i64::MIN) < until);
        if !old || (names > 0 && !options.all) {
            return Ok(false);
        }
        if options.labels.is_empty() {
            return Ok(true);
        }
        // An image whose labels cannot be read is not removed for what they might say.
        let document = self.document(&id.short(), id).ok();
        let labels = document
            .as_ref()
            .and_then(|document| document.pointer("/config/Labels"));
        let readable = document.is_some();
        Ok(readable && options.labels.iter().all(|filter| filter.fits(labels)))
    }

    /// Removes images, with their names if `named`, and what nobody needs any more. The caller
    /// keeps new users away.
    pub(super) fn delete(&mut self, ids: &[ImageId], named: bool) -> Result<Pruned, StoreError> {
        let staging = self.stage()?;
        self.mark_for_sweep()?;
        let mut names = BTreeMap::new();
        for id in ids {
            names.insert(*id, self.known_as(id)?);
        }
        let transaction = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let bytes_of_layers = "SELECT coalesce(sum(content_bytes), 0) FROM layers";
        let total = |t: &rusqlite::Transaction<'_>| -> rusqlite::Result<i64> {
            t.query_row(bytes_of_layers, [], |row| row.get(0))
        };
        let before = total(&transaction)?;
        let mut removed = Vec::new();
        for id in ids {
            let bytes = id.digest().as_bytes();
            if named {
                transaction.execute("DELETE FROM names WHERE image = ?1", params![bytes])?;
            }
            // Another command may have named the image since; then it stays.
            let deleted = transaction.execute(
                "DELETE FROM images WHERE id = ?1 AND id NOT IN (SELECT image FROM names)",
                params![bytes],
            )?;
            if deleted > 0 {
                let names = names.remove(id).unwrap_or_default();
                removed.extend(names.into_iter().map(Removed::Untagged));
                removed.push(Removed::Deleted(*id));
            }
        }
        travel::forget_unused(&transaction)?;
        let after = total(&transaction)?;
        transaction.commit()?;
        self.checkpoint()?;
        drop(staging);
        self.try_sweep()?;
        Ok(Pruned {
            removed,
            reclaimed_bytes: u64::try_from(before - after).unwrap_or(0),
            partial_downloads: 0,
        })
    }

    /// All names of an image, as they are shown.
    fn known_as(&self, id: &ImageId) -> Result<Vec<String>, StoreError> {
        let mut names: Vec<String> = self.names_of(id)?.iter().map(Reference::familiar).collect();
        for (repository, digest) in self.repo_digests(id)? {
            names.push(format!("{}@{digest}", familiar_name(&repository)));
        }
        Ok(names)
    }

    pub(super) fn image_ids(&self) -> Result<Vec<ImageId>, StoreError> {
        let mut statement = self.db.prepare("SELECT id FROM images ORDER BY id")?;
        let rows = statement.query_map([], |row| row.get(0).map(image_id))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
