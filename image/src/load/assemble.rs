//! From verified parts to images that may enter the store.

use super::convert::Form;
use super::error::LoadError;
use super::parts::{LayerPart, PlannedImage, check_digest, check_size, image_config};
use super::session::Session;
use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::erofs::{BLOCK_SIZE, Reader, Written};
use crate::layer::{LayerError, finish};
use crate::store::{
    Facts, LayerInfo, NewBlob, NewImage, NewLayer, Proof, StagedFiles, Staging, StoreError, Travel,
};
use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;

/// Compares everything with its digests, then finishes the layers that need those below them.
pub(super) fn assemble(
    mut session: Session<'_>,
    plan: Vec<PlannedImage>,
) -> Result<(Staging, Vec<NewImage>), LoadError> {
    let mut verified = Vec::new();
    for image in plan {
        let limits = session.limits();
        let (config, diff_ids) = image_config(&image.config_name, &image.config, limits)?;
        for (part, diff_id) in image.layers.iter().zip(&diff_ids) {
            verify(&session, part, diff_id)?;
        }
        verified.push((image, config, diff_ids));
    }
    let mut finisher = Finisher::default();
    let mut images = Vec::new();
    for (image, config, diff_ids) in verified {
        let layers = finisher.stack(&mut session, &[], &image.layers, &diff_ids)?;
        let created = config.created().as_deref();
        let travel = travel(&session, &image.layers, &diff_ids);
        images.push(NewImage {
            id: ImageId::from(Digest::of(&image.config)),
            created: created.and_then(crate::time::parse_rfc3339),
            config: image.config,
            manifest: image.manifest,
            layers,
            names: image.names,
            travel,
        });
    }
    Ok((session.into_staging()?, images))
}

/// The blobs that a manifest names by their digests.
fn travel(session: &Session<'_>, parts: &[LayerPart], diff_ids: &[DiffId]) -> Travel {
    let blobs = parts.iter().zip(diff_ids).filter_map(|(part, diff_id)| {
        part.raw.as_ref()?.1?;
        let digests = &session.layers[part.index].digests;
        Some(NewBlob {
            info: LayerInfo {
                digest: digests.raw,
                size_bytes: digests.raw_bytes,
                media_type: part.media_type.clone(),
                diff_id: *diff_id,
            },
            verified: true,
            made: None,
            origin: None,
        })
    });
    Travel {
        blobs: blobs.collect(),
        ..Travel::default()
    }
}

fn verify(session: &Session<'_>, part: &LayerPart, diff_id: &DiffId) -> Result<(), LoadError> {
    let digests = &session.layers[part.index].digests;
    if let Some((digest, size)) = &part.raw {
        if let Some(size) = size {
            check_size(&part.name, *size, digests.raw_bytes)?;
        }
        check_digest(&part.name, digest, &digests.raw)?;
    }
    if digests.plain != *diff_id.digest() {
        return Err(LoadError::DiffId {
            name: part.name.clone(),
            expected: *diff_id.digest(),
            found: digests.plain,
        });
    }
    Ok(())
}

/// Layers finished during one load, by key.
#[derive(Default)]
pub(crate) struct Finisher {
    done: HashMap<String, (NewLayer, PathBuf)>,
}

impl Finisher {
    /// The finished layers of one image, lowest first: those of `base`, which are in the store,
    /// and those of `parts` on top of them.
    pub(crate) fn stack(
        &mut self,
        session: &mut Session<'_>,
        base: &[NewLayer],
        parts: &[LayerPart],
        diff_ids: &[DiffId],
    ) -> Result<Vec<NewLayer>, LoadError> {
        let mut layers = base.to_vec();
        let mut below: Vec<PathBuf> = base
            .iter()
            .map(|layer| session.store.layer_path(&layer.key))
            .collect();
        let mut chain = base.iter().fold(None, |chain: Option<ChainId>, layer| {
            Some(ChainId::extend(chain.as_ref(), &layer.diff_id))
        });
        for (part, diff_id) in parts.iter().zip(diff_ids) {
            let here = ChainId::extend(chain.as_ref(), diff_id);
            let key = match &session.layers[part.index].form {
                Form::Stored(layer) => layer.key.clone(),
                Form::Draft(_) => here.hex(),
                Form::Finished { .. } => diff_id.hex(),
            };
            let (layer, path) = match self.done.get(&key) {
                Some(done) => done.clone(),
                None => {
                    let made = self.layer(session, part, *diff_id, &key, &below)?;
                    self.done.insert(key, made.clone());
                    made
                }
            };
            layers.push(layer);
            below.push(path);
            chain = Some(here);
        }
        Ok(layers)
    }

    fn layer(
        &self,
        session: &mut Session<'_>,
        part: &LayerPart,
        diff_id: DiffId,
        key: &str,
        below: &[PathBuf],
    ) -> Result<(NewLayer, PathBuf), LoadError> {
        if let Form::Stored(layer) = &session.layers[part.index].form {
            return Ok((layer.clone(), session.store.layer_path(key)));
        }
        let dependent = matches!(session.layers[part.index].form, Form::Draft(_));
        if let Some(known) = session.store.known_layer(key)?
            && known.dependent == dependent
            && known.diff_id == diff_id
            // One without a proof gets it now, with a new file.
            && known.facts.proof.is_some()
        {
            let layer = NewLayer {
                diff_id,
                key: key.to_owned(),
                dependent,
                staged: None,
                facts: known.facts,
            };
            return Ok((layer, session.store.layer_path(key)));
        }
        let (path, written) = match &session.layers[part.index].form {
            Form::Finished { path, written } => (path.clone(), *written),
            Form::Draft(_) | Form::Stored(_) => complete(session, part, below)?,
        };
        let staged = &session.layers[part.index];
        let proof = Proof {
            tar_bytes: staged.digests.plain_bytes,
            recipe_bytes: staged.recipe_bytes,
            seal: written.seal,
        };
        // A layer may be finished on several chains; the recipe fits them all.
        let recipe = session.staging.link(&staged.recipe)?;
        let layer = NewLayer {
            diff_id,
            key: key.to_owned(),
            dependent,
            staged: Some(StagedFiles {
                image: path.clone(),
                recipe,
            }),
            facts: Facts {
                file_bytes: written.file_bytes,
                content_bytes: written.content_bytes,
                proof: Some(proof),
            },
        };
        Ok((layer, path))
    }
}

/// Copies a draft's data without its holes: neither what another process makes of the first block
/// while it finishes the layer in place, nor what that puts behind the data.
fn copy_data(from: &File, into: &File, blocks: u32) -> std::io::Result<()> {
    use rustix::fs::SeekFrom;
    use std::os::unix::fs::FileExt;
    let size = u64::from(blocks) * BLOCK_SIZE as u64;
    into.set_len(size)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut at = BLOCK_SIZE as u64;
    while at < size {
        at = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(at))?.min(size);
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let piece = left.min(buffer.len());
            from.read_exact_at(&mut buffer[..piece], at)?;
            into.write_all_at(&buffer[..piece], at)?;
            at += piece as u64;
        }
    }
    Ok(())
}

/// Finishes a layer on those below, and answers where it is. Its data are copied where it may be
/// finished on several chains.
fn complete(
    session: &mut Session<'_>,
    part: &LayerPart,
    below: &[PathBuf],
) -> Result<(PathBuf, Written), LoadError> {
    let fail = |error| LoadError::Layer(part.name.clone(), error);
    let limits = session.limits();
    let Form::Draft(draft) = &session.layers[part.index].form else {
        return Err(fail(LayerError::TooLarge));
    };
    let (file, path) = if draft.in_place {
        let path = draft.data.clone();
        let file = File::options().read(true).write(true).open(&path);
        (file.map_err(StoreError::io("open", &path))?, path)
    } else {
        let (file, path) = session.staging.create_file()?;
        File::open(&draft.data)
            .and_then(|data| copy_data(&data, &file, draft.blocks))
            .map_err(StoreError::io("write", &path))?;
        (file, path)
    };
    let mut chain = Vec::new();
    for path in below.iter().rev() {
        let file = File::open(path).map_err(StoreError::io("open", path))?;
        chain.push(Reader::open(file).map_err(|error| fail(error.into()))?);
    }
    let finished = finish(draft, file, &chain, limits, &mut session.copies);
    let (file, written) = finished.map_err(fail)?;
    session.sync(path.clone(), file);
    Ok((path, written))
}
