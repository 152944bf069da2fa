//! What is remembered of how images travel: the blobs that their layers were, where those came
//! from, and the digests by which repositories know the images.

use super::query::image_id;
use super::staging::sync_dir;
use super::{Store, StoreError, names};
use crate::digest::{DiffId, Digest, ImageId};
use crate::reference::Reference;
use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

/// A layer as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInfo {
    /// Digest of the bytes that travel.
    pub digest: Digest,
    /// How many they are.
    pub size_bytes: u64,
    /// What the manifest says that they are.
    pub media_type: Option<String>,
    /// Digest of the tar that they make.
    pub diff_id: DiffId,
}

/// A blob that is to be remembered.
#[derive(Debug, Clone)]
pub(crate) struct NewBlob {
    pub info: LayerInfo,
    /// Whether these bytes were seen to make this DiffID.
    pub verified: bool,
    /// How this program made them.
    pub made: Option<String>,
    /// A repository that has it.
    pub origin: Option<String>,
}

/// A digest by which a repository knows an image.
#[derive(Debug, Clone)]
pub(crate) struct NewRepoDigest {
    /// Canonical: `docker.io/library/debian`.
    pub repository: String,
    pub digest: Digest,
    /// The manifest that it leads to; the same, where it is not an index's.
    pub manifest: Digest,
    /// Whether a name led to it: a manifest below an index is found by its digest, but the index
    /// is what is shown.
    pub shown: bool,
}

/// All that is to be remembered with an image.
#[derive(Debug, Clone, Default)]
pub(crate) struct Travel {
    pub blobs: Vec<NewBlob>,
    pub repo_digests: Vec<NewRepoDigest>,
}

/// What is known of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownBlob {
    pub info: LayerInfo,
    /// How this program made it.
    pub made: Option<String>,
}

impl Travel {
    /// By what a repository shows what is remembered.
    pub(super) fn digest_in(&self, repository: &str) -> Option<Digest> {
        let shown = |known: &&NewRepoDigest| known.shown && known.repository == repository;
        self.repo_digests
            .iter()
            .find(shown)
            .map(|known| known.digest)
    }

    pub(super) fn insert(
        &self,
        transaction: &Transaction<'_>,
        image: &ImageId,
    ) -> Result<(), StoreError> {
        for blob in &self.blobs {
            insert_blob(transaction, blob)?;
        }
        for known in &self.repo_digests {
            transaction.execute(
                "INSERT INTO repo_digests (repository, digest, image, shown, added, manifest)
                 VALUES (?1, ?2, ?3, ?4, unixepoch(), ?5)
                 ON CONFLICT DO UPDATE SET added = excluded.added,
                                           shown = max(shown, excluded.shown),
                                           manifest = excluded.manifest",
                params![
                    known.repository,
                    known.digest.as_bytes(),
                    image.digest().as_bytes(),
                    known.shown,
                    known.manifest.as_bytes()
                ],
            )?;
        }
        Ok(())
    }
}

/// What was seen beats what was only said.
fn insert_blob(transaction: &Transaction<'_>, blob: &NewBlob) -> Result<(), StoreError> {
    let info = &blob.info;
    let size =
        i64::try_from(info.size_bytes).map_err(|_| StoreError::Damaged("a size is over 2^63"))?;
    transaction.execute(
        "INSERT INTO blobs (digest, diff_id, size, media_type, verified, made)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET
             diff_id = excluded.diff_id, size = excluded.size, verified = excluded.verified,
             media_type = coalesce(excluded.media_type, media_type),
             made = coalesce(excluded.made, made)
         WHERE excluded.verified >= verified",
        params![
            info.digest.as_bytes(),
            info.diff_id.digest().as_bytes(),
            size,
            info.media_type,
            blob.verified,
            blob.made
        ],
    )?;
    if let Some(origin) = &blob.origin {
        transaction.execute(
            "INSERT INTO origins (digest, repository) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![info.digest.as_bytes(), origin],
        )?;
    }
    Ok(())
}

/// Forgets layers that no image has, and the blobs of those.
pub(super) fn forget_unused(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute(
        "DELETE FROM layers WHERE key NOT IN (SELECT layer FROM image_layers)",
        [],
    )?;
    transaction.execute(
        "DELETE FROM blobs WHERE diff_id NOT IN (SELECT diff_id FROM layers)",
        [],
    )?;
    Ok(())
}

impl Store {
    /// The image that a name with a tag leads to, and the digest by which its repository knew it when it
    /// was pulled or pushed under this name: of the index, where there was one. A registry that still answers the tag with this digest
    /// has nothing new.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn known_digest(&self, name: &Reference) -> Result<Option<(ImageId, Digest)>, StoreError> {
        let row = self
            .db
            .query_row(
                "SELECT n.image, n.digest FROM names n
                 JOIN repo_digests d ON d.image = n.image AND d.repository = n.repository
                                    AND d.digest = n.digest
                 WHERE n.repository = ?1 AND n.tag = ?2 AND d.shown",
                params![name.name(), name.tag().unwrap_or("latest")],
                |row| Ok((image_id(row.get(0)?), Digest::from_bytes(row.get(1)?))),
            )
            .optional()?;
        Ok(row)
    }

    /// The images that a repository knows by this digest: of an index, those of its images that
    /// were pulled, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn images_by_digest(
        &self,
        repository: &Reference,
        digest: &Digest,
    ) -> Result<Vec<ImageId>, StoreError> {
        let mut statement = self.db.prepare(
            "SELECT image FROM repo_digests WHERE repository = ?1 AND digest = ?2
             ORDER BY added DESC, rowid DESC",
        )?;
        let rows = statement.query_map(params![repository.name(), digest.as_bytes()], |row| {
            row.get(0).map(image_id)
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The configuration with this digest, if the store has it undamaged: it need not be fetched.
    #[must_use]
    pub fn stored_config(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.config_bytes(&(*digest).into()).ok()
    }

    /// The digests that are shown of an image, as repository (canonical) and digest.
    pub(crate) fn repo_digests(&self, id: &ImageId) -> Result<Vec<(String, Digest)>, StoreError> {
        let mut statement = self.db.prepare(
            "SELECT repository, digest FROM repo_digests WHERE image = ?1 AND shown
             ORDER BY repository, added DESC, rowid DESC",
        )?;
        let rows = statement.query_map(params![id.digest().as_bytes()], |row| {
            Ok((row.get(0)?, Digest::from_bytes(row.get(1)?)))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Remembers blobs alone.
    pub(crate) fn remember_blobs(&self, travel: &Travel) -> Result<(), StoreError> {
        let transaction = Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate)?;
        for blob in &travel.blobs {
            insert_blob(&transaction, blob)?;
        }
        transaction.commit()?;
        self.checkpoint()
    }

    /// Remembers what an image is elsewhere, where it has this name. An image and a name without a
    /// manifest have this one from now on.
    pub(crate) fn remember(
        &mut self,
        id: &ImageId,
        name: &Reference,
        travel: &Travel,
        manifest: &[u8],
    ) -> Result<(), StoreError> {
        let mut staging = self.stage()?;
        self.mark_for_sweep()?;
        self.place_blob(&mut staging, manifest)?;
        sync_dir(&self.root.join("blobs/sha256"))?;
        let transaction = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let digest = Digest::of(manifest);
        // The image may have been removed meanwhile: then there is nothing to remember.
        let is_there = transaction.execute(
            "UPDATE images SET manifest = coalesce(manifest, ?2) WHERE id = ?1",
            params![id.digest().as_bytes(), digest.as_bytes()],
        )?;
        if is_there > 0 {
            travel.insert(&transaction, id)?;
            names::pushed(&transaction, name, id, &digest)?;
        }
        transaction.commit()?;
        self.checkpoint()?;
        drop(staging);
        self.sweep_if_needed()
    }

    /// The blobs that are known to be this layer, those that were seen here first.
    pub(crate) fn blobs_of(&self, diff_id: &DiffId) -> Result<Vec<KnownBlob>, StoreError> {
        let mut statement = self.db.prepare(
            "SELECT digest, size, media_type, made FROM blobs WHERE diff_id = ?1
             ORDER BY verified DESC, digest",
        )?;
        let rows = statement.query_map(params![diff_id.digest().as_bytes()], |row| {
            Ok(KnownBlob {
                info: LayerInfo {
                    digest: Digest::from_bytes(row.get(0)?),
                    size_bytes: u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0),
                    media_type: row.get(2)?,
                    diff_id: *diff_id,
                },
                made: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Repositories, canonical, that have or had this blob.
    pub(crate) fn origins_of(&self, digest: &Digest) -> Result<Vec<String>, StoreError> {
        let mut statement = self
            .db
            .prepare("SELECT repository FROM origins WHERE digest = ?1 ORDER BY repository")?;
        let rows = statement.query_map(params![digest.as_bytes()], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
