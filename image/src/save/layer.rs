//! One layer's tar, made again and compared with its digest.

use crate::digest::{DiffId, Digest};
use crate::recipe::{RecipeError, regenerate};
use crate::store::{Facts, Store};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

/// Why a layer's tar cannot be made again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegenerateError {
    /// It was loaded before tars were kept account of.
    #[error(
        "it was stored by a version that kept no record of its tar: load the image again first"
    )]
    NoRecipe,
    /// A file of the store cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
        /// Whether it is the recipe.
        recipe: bool,
    },
    /// Following the recipe failed.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// It came out different.
    #[error("it was changed on disk: its digest is {found}, not {expected}")]
    Changed {
        /// What it was.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
}

impl RegenerateError {
    /// Whether it is the recipe that does not work, and not the layer.
    pub(crate) fn blames_recipe(&self) -> bool {
        match self {
            Self::NoRecipe => true,
            Self::Open { recipe, .. } => *recipe,
            Self::Recipe(error) => matches!(error, RecipeError::Damaged(_) | RecipeError::Read(_)),
            Self::Changed { .. } => false,
        }
    }
}

/// Writes a stored layer's tar to `out`: exactly as many bytes as it had, or an error. Whether
/// they are the right ones is known at their end.
pub(crate) fn layer_tar(
    store: &Store,
    key: &str,
    diff_id: &DiffId,
    facts: &Facts,
    out: &mut dyn Write,
) -> Result<u64, RegenerateError> {
    let proof = facts.proof.ok_or(RegenerateError::NoRecipe)?;
    let open = |path: PathBuf, recipe| {
        File::open(&path).map_err(|source| RegenerateError::Open {
            path,
            source,
            recipe,
        })
    };
    let image = open(store.layer_path(key), false)?;
    let recipe = open(store.recipe_path(key), true)?;
    let mut out = Hashed {
        out,
        hasher: Sha256::new(),
    };
    let bytes = regenerate(&recipe, &image, proof.tar_bytes, &mut out)?;
    let found = Digest::from_hasher(out.hasher);
    if found != *diff_id.digest() {
        return Err(RegenerateError::Changed {
            expected: *diff_id.digest(),
            found,
        });
    }
    Ok(bytes)
}

struct Hashed<'a> {
    out: &'a mut dyn Write,
    hasher: Sha256,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.out.write(bytes)?;
        self.hasher.update(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
