//! Names, and the manifest that each of them stands for.
//!
//! Images are one if their configurations are, and then their layers are, but not as they travel: two
//! manifests may name other blobs for the same layers. What was pulled under a name is what is pushed
//! under it, so the manifest is the name's, and the image's own is only for whoever has none.

use super::query::Found;
use super::{ResolveError, Store, StoreError};
use crate::digest::{Digest, ImageId};
use crate::reference::Reference;
use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params};

/// The tag of a name: what goes without saying, too.
fn tag_of(name: &Reference) -> &str {
    name.tag().unwrap_or("latest")
}

/// Gives an image a name. `digest` is by what the repository knows the manifest. A name that the image
/// has already keeps its manifest where there is no other.
pub(super) fn insert(
    transaction: &Transaction<'_>,
    name: &Reference,
    image: &ImageId,
    manifest: Option<&Digest>,
    digest: Option<&Digest>,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO names (repository, tag, image, manifest, digest) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET
             image = excluded.image,
             manifest = iif(image = excluded.image AND excluded.manifest IS NULL,
                            manifest, excluded.manifest),
             digest = iif(image = excluded.image AND excluded.manifest IS NULL,
                          digest, excluded.digest)",
        params![
            name.name(),
            tag_of(name),
            image.digest().as_bytes(),
            manifest.map(Digest::as_bytes),
            digest.map(Digest::as_bytes),
        ],
    )?;
    Ok(())
}

/// Notes that a name was pushed as this manifest. One that stands for another manifest goes on to.
pub(super) fn pushed(
    transaction: &Transaction<'_>,
    name: &Reference,
    image: &ImageId,
    manifest: &Digest,
) -> rusqlite::Result<()> {
    transaction.execute(
        "UPDATE names SET manifest = ?4, digest = ?4
         WHERE repository = ?1 AND tag = ?2 AND image = ?3 AND coalesce(manifest, ?4) = ?4",
        params![
            name.name(),
            tag_of(name),
            image.digest().as_bytes(),
            manifest.as_bytes()
        ],
    )?;
    Ok(())
}

/// Takes away a digest by which a repository knew an image.
pub(super) fn forget_digest(
    transaction: &Transaction<'_>,
    repository: &str,
    digest: &Digest,
    image: &ImageId,
) -> rusqlite::Result<()> {
    let row = params![repository, digest.as_bytes(), image.digest().as_bytes()];
    transaction.execute(
        "DELETE FROM repo_digests WHERE repository = ?1 AND digest = ?2 AND image = ?3",
        row,
    )?;
    transaction.execute(
        "UPDATE names SET digest = NULL WHERE repository = ?1 AND digest = ?2 AND image = ?3",
        row,
    )?;
    Ok(())
}

impl Store {
    /// Gives the image that `source` names the name `target` too, and with it the manifest that it has
    /// as `source`.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub fn tag(&self, source: &str, target: &Reference) -> Result<ImageId, ResolveError> {
        let found = self.find(source)?;
        self.tag_found(&found, target)
            .map_err(|error| ResolveError::Store(source.to_owned(), error))?;
        Ok(found.id)
    }

    fn tag_found(&self, found: &Found, target: &Reference) -> Result<(), StoreError> {
        // The name may have stood for a manifest that nobody else has.
        let staging = self.stage()?;
        self.mark_for_sweep()?;
        let transaction = Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate)?;
        let manifest = self.manifest_of(found)?;
        let digest = self.digest_of(found, target)?;
        // The image may have gone since it was found; the foreign key notices.
        insert(
            &transaction,
            target,
            &found.id,
            manifest.as_ref(),
            digest.as_ref(),
        )?;
        transaction.execute(
            "UPDATE images SET tagged = unixepoch() WHERE id = ?1",
            params![found.id.digest().as_bytes()],
        )?;
        transaction.commit()?;
        self.checkpoint()?;
        drop(staging);
        self.sweep_if_needed()
    }

    /// The digest of the manifest that an image has by the name it was found by.
    pub(super) fn manifest_of(&self, found: &Found) -> Result<Option<Digest>, StoreError> {
        let id = found.id.digest().as_bytes();
        let own = match &found.name {
            None => None,
            Some(name) => match name.digest() {
                Some(digest) => self.digest_in(
                    "SELECT coalesce(
                         (SELECT manifest FROM repo_digests
                          WHERE repository = ?1 AND digest = ?2 AND image = ?3),
                         (SELECT manifest FROM names
                          WHERE repository = ?1 AND digest = ?2 AND image = ?3))",
                    params![name.name(), digest.as_bytes(), id],
                )?,
                None => self.digest_in(
                    "SELECT manifest FROM names WHERE repository = ?1 AND tag = ?2 AND image = ?3",
                    params![name.name(), tag_of(name), id],
                )?,
            },
        };
        match own {
            Some(own) => Ok(Some(own)),
            None => self.digest_in("SELECT manifest FROM images WHERE id = ?1", params![id]),
        }
    }

    /// By what the repository of `target` knows what was found: nothing, where it is another one.
    fn digest_of(&self, found: &Found, target: &Reference) -> Result<Option<Digest>, StoreError> {
        let Some(source) = &found.name else {
            return Ok(None);
        };
        if source.name() != target.name() {
            return Ok(None);
        }
        if let Some(digest) = source.digest() {
            return self.digest_in(
                "SELECT digest FROM repo_digests
                 WHERE repository = ?1 AND digest = ?2 AND image = ?3 AND shown",
                params![
                    source.name(),
                    digest.as_bytes(),
                    found.id.digest().as_bytes()
                ],
            );
        }
        self.digest_in(
            "SELECT digest FROM names WHERE repository = ?1 AND tag = ?2",
            params![source.name(), tag_of(source)],
        )
    }

    /// The digest in the first column of the only row.
    fn digest_in(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
    ) -> Result<Option<Digest>, StoreError> {
        let row = self
            .db
            .query_row(sql, params, |row| row.get::<_, Option<[u8; 32]>>(0));
        Ok(row.optional()?.flatten().map(Digest::from_bytes))
    }

    /// The manifest that an image has by the name it was found by, if it is undamaged, and its digest.
    pub(crate) fn manifest_bytes(
        &self,
        found: &Found,
    ) -> Result<Option<(Digest, Vec<u8>)>, StoreError> {
        let Some(digest) = self.manifest_of(found)? else {
            return Ok(None);
        };
        let bytes = std::fs::read(self.blob_path(&digest)).ok();
        let bytes = bytes.filter(|bytes| Digest::of(bytes) == digest);
        Ok(bytes.map(|bytes| (digest, bytes)))
    }

    /// The names of an image in a repository that a digest stands for: of images that no registry has
    /// told of, and of an image's id all.
    pub(super) fn names_by_digest(
        &self,
        id: &ImageId,
        repository: &str,
        digest: &Digest,
    ) -> Result<Vec<Reference>, StoreError> {
        let mut statement = self.db.prepare(
            "SELECT repository || ':' || tag FROM names
             WHERE image = ?1 AND repository = ?2 AND ?3 IN (digest, image) ORDER BY 1",
        )?;
        let rows = statement.query_map(
            params![id.digest().as_bytes(), repository, digest.as_bytes()],
            |row| row.get::<_, String>(0),
        )?;
        rows.map(|name| {
            Reference::parse(&name?).map_err(|_| StoreError::Damaged("a name is not a reference"))
        })
        .collect()
    }

    /// The digests that names have of their own, as repository (canonical) and digest.
    pub(super) fn name_digests(&self, id: &ImageId) -> Result<Vec<(String, Digest)>, StoreError> {
        let mut statement = self.db.prepare(
            "SELECT DISTINCT repository, digest FROM names WHERE image = ?1 AND digest NOT NULL",
        )?;
        let rows = statement.query_map(params![id.digest().as_bytes()], |row| {
            Ok((row.get(0)?, Digest::from_bytes(row.get(1)?)))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
