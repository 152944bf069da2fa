//! One blob to one layer: decompressed, hashed on both sides, and converted, in one pass.

use super::error::{LoadError, stream_error};
use super::syncs::Syncs;
use crate::compress::{Digests, Plain};
use crate::erofs::Written;
use crate::layer::{Converted, Draft, LayerError, Workspace, convert};
use crate::limits::Limits;
use crate::recipe::{RecipeWriter, Recorder};
use crate::store::{NewLayer, Staging, StoreError};
use hullbox_tar::{TarError, TarReader};
use std::fs::File;
use std::path::{Path, PathBuf};

/// A layer that was converted.
#[derive(Debug)]
pub(crate) struct StagedLayer {
    pub digests: Digests,
    pub form: Form,
    pub recipe: PathBuf,
    pub recipe_bytes: u64,
    /// Entries of its tar.
    pub entries: u64,
    /// Whether the tar has the mark of its end.
    pub ended: bool,
}

/// How far its image is.
#[derive(Debug)]
pub(crate) enum Form {
    Finished {
        path: PathBuf,
        written: Written,
    },
    Draft(Draft),
    /// The store has the layer; nothing was converted.
    Stored(NewLayer),
}

impl StagedLayer {
    /// Promises that the layer is finished once, on one chain, and by this process.
    pub(crate) fn finish_once(&mut self) {
        if let Form::Draft(draft) = &mut self.form {
            draft.in_place = true;
        }
    }

    /// A layer that the store has.
    pub(crate) fn stored(layer: NewLayer) -> Self {
        let digests = Digests {
            raw: *layer.diff_id.digest(),
            raw_bytes: 0,
            plain: *layer.diff_id.digest(),
            plain_bytes: 0,
        };
        Self {
            digests,
            form: Form::Stored(layer),
            recipe: PathBuf::new(),
            recipe_bytes: 0,
            entries: 0,
            ended: true,
        }
    }
}

/// The fresh files that a conversion fills.
pub(crate) struct LayerFiles {
    space: Workspace,
    recipe: (File, PathBuf),
}

impl LayerFiles {
    pub(crate) fn create(staging: &mut Staging) -> Result<Self, StoreError> {
        Ok(Self {
            space: Workspace {
                image: staging.create_file()?,
                spool: staging.create_file()?,
                tree: staging.create_file()?,
            },
            recipe: staging.create_file()?,
        })
    }

    /// Another handle of the filesystem image.
    pub(crate) fn image(&self) -> Result<File, StoreError> {
        let (file, path) = &self.space.image;
        file.try_clone().map_err(StoreError::io("open", path))
    }

    pub(crate) fn paths(&self) -> [PathBuf; 4] {
        let space = &self.space;
        [&space.image, &space.spool, &space.tree, &self.recipe].map(|(_, path)| path.clone())
    }
}

/// Converts a layer's blob, which is hashed on both sides. `name` is for errors. What is finished is
/// handed to `syncs`.
pub(crate) fn convert_blob(
    name: &str,
    blob: impl Plain,
    files: LayerFiles,
    limits: &Limits,
    syncs: &mut Syncs,
) -> Result<StagedLayer, LoadError> {
    let LayerFiles { space, recipe } = files;
    let (recipe_file, recipe) = recipe;
    let path = space.image.1.clone();
    let scratch = [space.spool.1.clone(), space.tree.1.clone()];
    let writer = RecipeWriter::new(recipe_file).map_err(StoreError::io("write", &recipe))?;
    let mut tar = TarReader::new(Recorder::new(blob, writer), limits.max_header_bytes);
    let converted = convert(&mut tar, space, limits).map_err(|e| prefer_limit_error(name, e))?;
    tar.drain()
        .map_err(|error| prefer_limit_error(name, error.into()))?;
    let (entries, ended) = (tar.entries(), tar.ended());
    let (blob, writer) = tar.into_inner().into_parts();
    let recipe_bytes = finish_recipe(writer, &recipe, syncs)?;
    let digests = blob
        .into_digests()
        .map_err(|error| LoadError::from_read(name, error))?
        .ok_or_else(|| LoadError::Layer(name.to_owned(), LayerError::TooLarge))?;
    let form = match converted {
        Converted::Independent { file, written } => {
            for path in scratch {
                let _ = std::fs::remove_file(path);
            }
            syncs.start(path.clone(), file);
            Form::Finished { path, written }
        }
        Converted::Dependent(draft) => Form::Draft(draft),
    };
    Ok(StagedLayer {
        digests,
        form,
        recipe,
        recipe_bytes,
        entries,
        ended,
    })
}

fn finish_recipe(writer: RecipeWriter, path: &Path, syncs: &mut Syncs) -> Result<u64, StoreError> {
    let failed = || StoreError::io("write", path);
    let (file, _) = writer.finish().map_err(failed())?;
    let len = file.metadata().map_err(failed())?.len();
    syncs.start(path.to_owned(), file);
    Ok(len)
}

/// A limit that was hit deep down is the story, not the reading that it interrupted.
fn prefer_limit_error(name: &str, error: LayerError) -> LoadError {
    if let LayerError::Tar(TarError::Read(source)) = &error
        && let Some(refused) = stream_error(source)
    {
        return LoadError::Refused(name.to_owned(), refused);
    }
    LoadError::Layer(name.to_owned(), error)
}
