//! Taking verified images in: files first, then rows, all or nothing.

use super::staging::sync_dir;
use super::travel::Travel;
use super::{Staging, Store, StoreError};
use crate::digest::{DiffId, Digest, ImageId};
use crate::erofs::Seal;
use crate::reference::Reference;
use rusqlite::{Transaction, TransactionBehavior, params};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

/// A layer of an image about to enter the store.
#[derive(Debug, Clone)]
pub(crate) struct NewLayer {
    pub diff_id: DiffId,
    /// File name without extension: the DiffID's or the ChainID's digits.
    pub key: String,
    pub dependent: bool,
    /// The finished, synced files, unless the store has the layer.
    pub staged: Option<StagedFiles>,
    pub facts: Facts,
}

/// A layer's files in the staging area.
#[derive(Debug, Clone)]
pub(crate) struct StagedFiles {
    pub image: PathBuf,
    pub recipe: PathBuf,
}

/// What is measured of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    pub file_bytes: u64,
    pub content_bytes: u64,
    /// Missing of layers loaded by versions that kept none.
    pub proof: Option<Proof>,
}

/// What lets a layer be verified, and its tar be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proof {
    pub tar_bytes: u64,
    pub recipe_bytes: u64,
    pub seal: Seal,
}

/// An image about to enter the store: verified, its layers finished.
#[derive(Debug, Clone)]
pub(crate) struct NewImage {
    pub id: ImageId,
    pub config: Vec<u8>,
    pub manifest: Option<Vec<u8>>,
    pub created: Option<i64>,
    pub layers: Vec<NewLayer>,
    pub names: Vec<Reference>,
    pub travel: Travel,
}

/// What the index knows of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KnownLayer {
    pub diff_id: DiffId,
    pub dependent: bool,
    pub facts: Facts,
}

/// The columns that [`Facts::read`] reads, from this position on.
pub(super) const FACTS: &str =
    "l.file_bytes, l.content_bytes, l.tar_bytes, l.recipe_bytes, l.sealed_from, l.seal";

impl Facts {
    pub(super) fn read(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Self> {
        let number = |index: usize| -> rusqlite::Result<u64> {
            Ok(u64::try_from(row.get::<_, i64>(at + index)?).unwrap_or(0))
        };
        let proof = match row.get::<_, Option<[u8; 32]>>(at + 5)? {
            None => None,
            Some(digest) => Some(Proof {
                tar_bytes: number(2)?,
                recipe_bytes: number(3)?,
                seal: Seal {
                    from: number(4)?,
                    digest: Digest::from_bytes(digest),
                },
            }),
        };
        Ok(Self {
            file_bytes: number(0)?,
            content_bytes: number(1)?,
            proof,
        })
    }
}

impl Store {
    /// The layer under this key, if the store has it. While a [`Staging`] exists its file stays.
    pub(crate) fn known_layer(&self, key: &str) -> Result<Option<KnownLayer>, StoreError> {
        use rusqlite::OptionalExtension;
        let row = self
            .db
            .query_row(
                &format!("SELECT l.diff_id, l.dependent, {FACTS} FROM layers l WHERE l.key = ?1"),
                params![key],
                |row| {
                    Ok(KnownLayer {
                        diff_id: Digest::from_bytes(row.get(0)?).into(),
                        dependent: row.get(1)?,
                        facts: Facts::read(row, 2)?,
                    })
                },
            )
            .optional()?;
        Ok(row)
    }

    /// Takes `images` in, all of them or none.
    pub(crate) fn commit(
        &mut self,
        mut staging: Staging,
        images: &[NewImage],
    ) -> Result<(), StoreError> {
        self.mark_for_sweep()?;
        let mut placed = BTreeSet::new();
        for layer in images.iter().flat_map(|image| &image.layers) {
            if let Some(staged) = &layer.staged
                && placed.insert(layer.key.clone())
            {
                for (from, to) in [
                    (&staged.image, self.layer_path(&layer.key)),
                    (&staged.recipe, self.recipe_path(&layer.key)),
                ] {
                    std::fs::rename(from, &to).map_err(StoreError::io("create", &to))?;
                }
            }
        }
        for image in images {
            self.place_blob(&mut staging, &image.config)?;
            if let Some(manifest) = &image.manifest {
                self.place_blob(&mut staging, manifest)?;
            }
        }
        sync_dir(&self.root.join("layers"))?;
        sync_dir(&self.root.join("recipes"))?;
        sync_dir(&self.root.join("blobs/sha256"))?;
        let transaction = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        for image in images {
            insert(&transaction, image)?;
        }
        transaction.commit()?;
        self.checkpoint()?;
        drop(staging);
        // Also for removals that had to wait for this operation.
        self.sweep_if_needed()
    }

    pub(super) fn place_blob(&self, staging: &mut Staging, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.blob_path(&Digest::of(bytes));
        let (mut file, staged) = staging.create_file()?;
        file.write_all(bytes)
            .and_then(|()| file.sync_data())
            .map_err(StoreError::io("write", &staged))?;
        std::fs::rename(&staged, &path).map_err(StoreError::io("create", &path))
    }
}

/// Takes a layer in. One that was there without a proof has one now: its files are new.
fn insert_layer(transaction: &Transaction<'_>, layer: &NewLayer) -> Result<(), StoreError> {
    let number = |n: u64| i64::try_from(n).map_err(|_| StoreError::Damaged("a size is over 2^63"));
    let proof = layer.facts.proof;
    transaction.execute(
        "INSERT INTO layers (key, diff_id, dependent, file_bytes, content_bytes,
                             tar_bytes, recipe_bytes, sealed_from, seal)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT DO UPDATE SET
             file_bytes = excluded.file_bytes, content_bytes = excluded.content_bytes,
             tar_bytes = excluded.tar_bytes, recipe_bytes = excluded.recipe_bytes,
             sealed_from = excluded.sealed_from, seal = excluded.seal
         WHERE excluded.seal IS NOT NULL",
        params![
            layer.key,
            layer.diff_id.digest().as_bytes(),
            layer.dependent,
            number(layer.facts.file_bytes)?,
            number(layer.facts.content_bytes)?,
            proof.map(|p| number(p.tar_bytes)).transpose()?,
            proof.map(|p| number(p.recipe_bytes)).transpose()?,
            proof.map(|p| number(p.seal.from)).transpose()?,
            proof.map(|p| *p.seal.digest.as_bytes()),
        ],
    )?;
    Ok(())
}

fn insert(transaction: &Transaction<'_>, image: &NewImage) -> Result<(), StoreError> {
    let id = image.id.digest().as_bytes();
    let manifest = image.manifest.as_deref().map(Digest::of);
    transaction.execute(
        "INSERT INTO images (id, manifest, created, tagged) VALUES (?1, ?2, ?3, unixepoch())
         ON CONFLICT DO UPDATE SET tagged = unixepoch(),
                                   manifest = coalesce(excluded.manifest, manifest)",
        params![id, manifest.as_ref().map(Digest::as_bytes), image.created],
    )?;
    for (position, layer) in image.layers.iter().enumerate() {
        insert_layer(transaction, layer)?;
        transaction.execute(
            "INSERT INTO image_layers (image, position, layer) VALUES (?1, ?2, ?3)
             ON CONFLICT DO NOTHING",
            params![id, i64::try_from(position).unwrap_or(i64::MAX), layer.key],
        )?;
    }
    for name in &image.names {
        let repository = name.name();
        let digest = image.travel.digest_in(&repository).or(manifest);
        super::names::insert(
            transaction,
            name,
            &image.id,
            manifest.as_ref(),
            digest.as_ref(),
        )?;
    }
    image.travel.insert(transaction, &image.id)
}
