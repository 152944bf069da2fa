//! A converted layer that waits for its image: written down, so that other pulls have it too, and
//! this one after it was killed.

use crate::compress::Digests;
use crate::digest::Digest;
use crate::erofs::{Seal, Written};
use crate::layer::{Draft, PendingLink};
use crate::load::{Form, StagedLayer};
use crate::store::{BlobLock, Staging, StoreError};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The kind of record. One of another kind is not read.
const VERSION: u32 = 1;
const RECORD: &str = "record.json";

/// What is known of the layer.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    /// The kernel's name for the time since the host was started: files that were not synced are
    /// sound only as long as it is the same.
    boot: String,
    raw: Digest,
    raw_bytes: u64,
    plain: Digest,
    plain_bytes: u64,
    recipe_bytes: u64,
    entries: u64,
    ended: bool,
    form: RecordForm,
}

#[derive(Debug, Serialize, Deserialize)]
enum RecordForm {
    Finished {
        file_bytes: u64,
        content_bytes: u64,
        sealed_from: u64,
        seal: Digest,
    },
    Draft {
        blocks: u32,
        spool_len: u64,
        /// Path and target.
        links: Vec<(Vec<u8>, Vec<u8>)>,
    },
}

/// Writes a layer down beside its blob's lock.
pub(super) fn keep(lock: &BlobLock, layer: &StagedLayer) -> Result<(), StoreError> {
    let Some(boot) = boot_id() else {
        // Without it nothing could be trusted later.
        return Ok(());
    };
    lock.remove_done()?;
    let dir = lock.done();
    DirBuilder::new()
        .mode(0o700)
        .create(&dir)
        .map_err(StoreError::io("create", &dir))?;
    let link = |from: &Path, name: &str| {
        let to = dir.join(name);
        std::fs::hard_link(from, &to).map_err(StoreError::io("create", &to))
    };
    let form = match &layer.form {
        Form::Finished { path, written } => {
            link(path, "image")?;
            RecordForm::Finished {
                file_bytes: written.file_bytes,
                content_bytes: written.content_bytes,
                sealed_from: written.seal.from,
                seal: written.seal.digest,
            }
        }
        Form::Draft(draft) => {
            link(&draft.data, "image")?;
            link(&draft.spool, "spool")?;
            link(&draft.tree, "tree")?;
            let links = draft.links.iter();
            RecordForm::Draft {
                blocks: draft.blocks,
                spool_len: draft.spool_len,
                links: links
                    .map(|link| (link.path.clone(), link.target.clone()))
                    .collect(),
            }
        }
        Form::Stored(_) => return lock.remove_done(),
    };
    link(&layer.recipe, "recipe")?;
    let record = Record {
        version: VERSION,
        boot,
        raw: layer.digests.raw,
        raw_bytes: layer.digests.raw_bytes,
        plain: layer.digests.plain,
        plain_bytes: layer.digests.plain_bytes,
        recipe_bytes: layer.recipe_bytes,
        entries: layer.entries,
        ended: layer.ended,
        form,
    };
    // Last, and by rename: without it the directory says nothing.
    let (draft, path) = (dir.join("new"), dir.join(RECORD));
    let text = serde_json::to_vec(&record)
        .map_err(|error| StoreError::io("write", &draft)(io::Error::other(error)))?;
    std::fs::write(&draft, text).map_err(StoreError::io("write", &draft))?;
    std::fs::rename(&draft, &path).map_err(StoreError::io("create", &path))
}

/// The layer that was written down, if there is one, with files in `staging`.
pub(super) fn take(
    lock: &BlobLock,
    digest: &Digest,
    staging: &mut Staging,
) -> Result<Option<StagedLayer>, StoreError> {
    let dir = lock.done();
    let Some(record) = read(&dir).filter(|record| record.raw == *digest) else {
        // What a pull that was killed had begun, or what an earlier start of the host has left.
        lock.remove_done()?;
        return Ok(None);
    };
    match link_all(&dir, record, staging) {
        Ok(layer) => Ok(Some(layer)),
        // Something is missing: then the blob is fetched again.
        Err(_) => {
            lock.remove_done()?;
            Ok(None)
        }
    }
}

fn read(dir: &Path) -> Option<Record> {
    let text = std::fs::read(dir.join(RECORD)).ok()?;
    let record: Record = serde_json::from_slice(&text).ok()?;
    (record.version == VERSION && Some(&record.boot) == boot_id().as_ref()).then_some(record)
}

fn link_all(dir: &Path, record: Record, staging: &mut Staging) -> Result<StagedLayer, StoreError> {
    // Finishing a layer appends to its spool, which another pull's must not have.
    let spool = match &record.form {
        RecordForm::Draft { spool_len, .. } => Some(copy(&dir.join("spool"), *spool_len, staging)?),
        RecordForm::Finished { .. } => None,
    };
    let mut link = |name: &str| staging.link(&dir.join(name));
    let form = match record.form {
        RecordForm::Finished {
            file_bytes,
            content_bytes,
            sealed_from,
            seal,
        } => Form::Finished {
            path: link("image")?,
            written: Written {
                file_bytes,
                content_bytes,
                seal: Seal {
                    from: sealed_from,
                    digest: seal,
                },
            },
        },
        RecordForm::Draft {
            blocks,
            spool_len,
            links,
        } => Form::Draft(Draft {
            data: link("image")?,
            blocks,
            spool: spool.unwrap_or_default(),
            spool_len,
            tree: link("tree")?,
            links: links
                .into_iter()
                .map(|(path, target)| PendingLink { path, target })
                .collect(),
            // Whoever converted it does.
            in_place: false,
        }),
    };
    Ok(StagedLayer {
        digests: Digests {
            raw: record.raw,
            raw_bytes: record.raw_bytes,
            plain: record.plain,
            plain_bytes: record.plain_bytes,
        },
        form,
        recipe: link("recipe")?,
        recipe_bytes: record.recipe_bytes,
        entries: record.entries,
        ended: record.ended,
    })
}

/// The first bytes of a file, in one of our own.
fn copy(from: &Path, bytes: u64, staging: &mut Staging) -> Result<PathBuf, StoreError> {
    let (mut file, path) = staging.create_file()?;
    let source = File::open(from).map_err(StoreError::io("open", from))?;
    let copied = io::copy(&mut source.take(bytes), &mut file);
    match copied.map_err(StoreError::io("write", &path))? {
        len if len == bytes => Ok(path),
        _ => Err(StoreError::io("read", from)(
            io::ErrorKind::UnexpectedEof.into(),
        )),
    }
}

fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}
