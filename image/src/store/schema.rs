//! The index's tables and their versions.

use super::error::StoreError;
use rusqlite::{Connection, TransactionBehavior};

/// Each script takes the index from the version that is its position to the next.
const MIGRATIONS: [&str; 4] = ["
CREATE TABLE layers (
    key           TEXT PRIMARY KEY,     -- file name: hex of the DiffID or ChainID
    diff_id       BLOB NOT NULL,
    dependent     INTEGER NOT NULL,     -- means this only on top of the layers it was made for
    file_bytes    INTEGER NOT NULL,
    content_bytes INTEGER NOT NULL      -- sum of the sizes of its files, as Docker counts
) STRICT, WITHOUT ROWID;
CREATE TABLE images (
    id         BLOB PRIMARY KEY,        -- digest of the configuration
    manifest   BLOB,                    -- digest of the one it came with last, where there was one
    created    INTEGER,                 -- seconds since 1970, as the configuration says
    tagged     INTEGER NOT NULL         -- when it was last loaded or tagged
) STRICT, WITHOUT ROWID;
CREATE TABLE image_layers (
    image    BLOB NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    layer    TEXT NOT NULL REFERENCES layers(key),
    PRIMARY KEY (image, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_layers_by_layer ON image_layers(layer);
CREATE TABLE names (
    repository TEXT NOT NULL,           -- canonical: docker.io/library/debian
    tag        TEXT NOT NULL,
    image      BLOB NOT NULL REFERENCES images(id),
    PRIMARY KEY (repository, tag)
) STRICT, WITHOUT ROWID;
CREATE INDEX names_by_image ON names(image);
","
-- All NULL for layers loaded before there were recipes.
ALTER TABLE layers ADD COLUMN tar_bytes INTEGER;      -- length of the layer's tar
ALTER TABLE layers ADD COLUMN recipe_bytes INTEGER;   -- length of the recipe's file
ALTER TABLE layers ADD COLUMN sealed_from INTEGER;    -- first byte of the image that the seal covers
ALTER TABLE layers ADD COLUMN seal BLOB;
","
CREATE TABLE blobs (                    -- layers as they travel
    digest     BLOB PRIMARY KEY,        -- of the bytes that travel
    diff_id    BLOB NOT NULL,           -- of the tar that they make
    size       INTEGER NOT NULL,
    media_type TEXT,
    verified   INTEGER NOT NULL,        -- whether the bytes were seen to make the DiffID
    made       TEXT                     -- how this program made them, where it did
) STRICT, WITHOUT ROWID;
CREATE INDEX blobs_by_diff_id ON blobs(diff_id);
CREATE TABLE origins (
    digest     BLOB NOT NULL REFERENCES blobs(digest) ON DELETE CASCADE,
    repository TEXT NOT NULL,           -- that has or had the blob; canonical
    PRIMARY KEY (digest, repository)
) STRICT, WITHOUT ROWID;
CREATE TABLE repo_digests (             -- what REPOSITORY@DIGEST means
    repository TEXT NOT NULL,           -- canonical
    digest     BLOB NOT NULL,           -- of a manifest or an index
    image      BLOB NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    shown      INTEGER NOT NULL,        -- 0: only the manifest below the index that was named
    added      INTEGER NOT NULL,        -- when it was last pulled or pushed
    UNIQUE (repository, digest, image)
) STRICT;
CREATE INDEX repo_digests_by_image ON repo_digests(image);
","
-- One configuration may be in several manifests, so each name has its own.
ALTER TABLE names ADD COLUMN manifest BLOB;         -- digest of the manifest that is pushed under it
ALTER TABLE names ADD COLUMN digest BLOB;           -- by which its repository knows that: an index's or its own
ALTER TABLE repo_digests ADD COLUMN manifest BLOB;  -- digest of the manifest it leads to
UPDATE names SET manifest = (SELECT i.manifest FROM images i WHERE i.id = names.image);
UPDATE repo_digests SET manifest = (
    SELECT i.manifest FROM images i WHERE i.id = repo_digests.image AND (
        i.manifest = repo_digests.digest OR repo_digests.shown AND EXISTS (
            SELECT 1 FROM repo_digests m WHERE m.image = i.id AND m.digest = i.manifest AND NOT m.shown
            AND m.repository = repo_digests.repository AND m.added = repo_digests.added)));
-- Only a digest that is known to lead to the manifest: another one would stand for what it is not.
UPDATE names SET digest = CASE
    WHEN EXISTS (SELECT 1 FROM repo_digests d WHERE d.shown AND d.image = names.image
                 AND d.repository = names.repository)
    THEN (SELECT d.digest FROM repo_digests d WHERE d.shown AND d.image = names.image
          AND d.repository = names.repository AND d.manifest = names.manifest
          ORDER BY d.added DESC, d.rowid DESC LIMIT 1)
    ELSE manifest END;
"];

/// The version this program writes.
#[expect(clippy::cast_possible_truncation, reason = "a handful of migrations")]
pub(super) const VERSION: u32 = MIGRATIONS.len() as u32;

pub(super) fn version(db: &Connection) -> Result<u32, StoreError> {
    Ok(db.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

pub(super) fn migrate(db: &mut Connection) -> Result<(), StoreError> {
    db.pragma_update(None, "journal_mode", "WAL")?;
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    let pending = usize::try_from(found)
        .ok()
        .and_then(|found| MIGRATIONS.get(found..))
        .ok_or(StoreError::TooNew {
            found,
            known: VERSION,
        })?;
    for script in pending {
        transaction.execute_batch(script)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(())
}
