//! Taking verified images in: files first, then rows, all or nothing.

use super::staging::sync_dir;
use super::{Staging, Store, StoreError};
use crate::digest::{DiffId, Digest, ImageId};
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
    /// The finished, synced file, unless the store has the layer.
    pub staged: Option<PathBuf>,
    pub file_bytes: u64,
    pub content_bytes: u64,
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
}

/// What the index knows of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KnownLayer {
    pub diff_id: DiffId,
    pub dependent: bool,
    pub file_bytes: u64,
    pub content_bytes: u64,
}

impl Store {
    /// The layer under this key, if the store has it. While a [`Staging`] exists its file stays.
    pub(crate) fn known_layer(&self, key: &str) -> Result<Option<KnownLayer>, StoreError> {
        use rusqlite::OptionalExtension;
        let row = self
            .db
            .query_row(
                "SELECT diff_id, dependent, file_bytes, content_bytes FROM layers WHERE key = ?1",
                params![key],
                |row| {
                    Ok(KnownLayer {
                        diff_id: Digest::from_bytes(row.get(0)?).into(),
                        dependent: row.get(1)?,
                        file_bytes: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
                        content_bytes: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
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
                let path = self.layer_path(&layer.key);
                std::fs::rename(staged, &path).map_err(StoreError::io("create", &path))?;
            }
        }
        for image in images {
            self.place_blob(&mut staging, &image.config)?;
            if let Some(manifest) = &image.manifest {
                self.place_blob(&mut staging, manifest)?;
            }
        }
        sync_dir(&self.root.join("layers"))?;
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

    fn place_blob(&self, staging: &mut Staging, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.blob_path(&Digest::of(bytes));
        let (mut file, staged) = staging.create_file()?;
        file.write_all(bytes)
            .and_then(|()| file.sync_data())
            .map_err(StoreError::io("write", &staged))?;
        std::fs::rename(&staged, &path).map_err(StoreError::io("create", &path))
    }
}

fn insert(transaction: &Transaction<'_>, image: &NewImage) -> Result<(), StoreError> {
    let too_large = |_| StoreError::Damaged("a size is over 2^63");
    let id = image.id.digest().as_bytes();
    transaction.execute(
        "INSERT INTO images (id, manifest, created, tagged) VALUES (?1, ?2, ?3, unixepoch())
         ON CONFLICT DO UPDATE SET tagged = unixepoch(),
                                   manifest = coalesce(excluded.manifest, manifest)",
        params![
            id,
            image.manifest.as_deref().map(|m| *Digest::of(m).as_bytes()),
            image.created
        ],
    )?;
    for (position, layer) in image.layers.iter().enumerate() {
        transaction.execute(
            "INSERT INTO layers (key, diff_id, dependent, file_bytes, content_bytes)
             VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
            params![
                layer.key,
                layer.diff_id.digest().as_bytes(),
                layer.dependent,
                i64::try_from(layer.file_bytes).map_err(too_large)?,
                i64::try_from(layer.content_bytes).map_err(too_large)?,
            ],
        )?;
        transaction.execute(
            "INSERT INTO image_layers (image, position, layer) VALUES (?1, ?2, ?3)
             ON CONFLICT DO NOTHING",
            params![id, i64::try_from(position).unwrap_or(i64::MAX), layer.key],
        )?;
    }
    for name in &image.names {
        transaction.execute(
            "INSERT INTO names (repository, tag, image) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET image = excluded.image",
            params![name.name(), name.tag().unwrap_or("latest"), id],
        )?;
    }
    Ok(())
}
