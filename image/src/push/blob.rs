//! A layer as a blob, made of what the store keeps of it.

use super::compression::{LayerCompression, Packer};
use super::plan::{PushError, PushPlan};
use crate::digest::Digest;
use crate::save::layer_tar;
use crate::store::{LayerInfo, NewBlob, NewLayer, ResolveError, Store, StoreError, Travel};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};

/// A compressed layer, in a file that has no name: it is gone with this value.
#[derive(Debug)]
pub struct LayerBlob {
    info: LayerInfo,
    file: File,
}

impl LayerBlob {
    /// What it is.
    #[must_use]
    pub const fn info(&self) -> &LayerInfo {
        &self.info
    }
}

impl Read for LayerBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for LayerBlob {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Store {
    /// Makes the blob of a layer. It is the one that the plan says, if that is local; what its
    /// digest is, is remembered. Whoever reads it can go back.
    ///
    /// # Errors
    /// [`PushError`].
    pub fn layer_blob(&self, plan: &PushPlan, index: usize) -> Result<LayerBlob, PushError> {
        // While it is held, no file of the layer goes.
        let mut staging = self.stage()?;
        let stack = self.stack_of(&plan.image)?;
        let wanted = plan.layers.get(index);
        let (Some(wanted), Some(layer)) = (wanted, stack.get(index)) else {
            return Err(ResolveError::NotFound(plan.image.to_string()).into());
        };
        let compression = self.compression_of(plan, index)?;
        let (file, path) = staging.create_file()?;
        std::fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        let (file, digest, size_bytes) = self.pack(layer, compression, file)?;
        let info = LayerInfo {
            digest,
            size_bytes,
            media_type: match &wanted.blob {
                Some(blob) if blob.digest == digest => blob.media_type.clone(),
                _ => Some(compression.media_type().to_owned()),
            },
            diff_id: layer.diff_id,
        };
        let made = NewBlob {
            info: info.clone(),
            verified: true,
            made: Some(compression.to_string()),
            origin: None,
        };
        self.remember_blobs(&Travel {
            blobs: vec![made],
            ..Travel::default()
        })?;
        Ok(LayerBlob { info, file })
    }

    /// How the blob that is wanted was made, or is to be made.
    fn compression_of(
        &self,
        plan: &PushPlan,
        index: usize,
    ) -> Result<LayerCompression, StoreError> {
        let layer = &plan.layers[index];
        if let Some(blob) = &layer.blob {
            if blob.digest == *layer.diff_id.digest() {
                return Ok(LayerCompression::None);
            }
            let known = self.blobs_of(&layer.diff_id)?;
            let made = known.iter().find(|one| one.info.digest == blob.digest);
            let made = made.and_then(|one| one.made.as_deref()?.parse().ok());
            if let Some(compression) = made {
                return Ok(compression);
            }
        }
        Ok(plan.options.compression.unwrap_or_default())
    }

    fn pack(
        &self,
        layer: &NewLayer,
        compression: LayerCompression,
        file: File,
    ) -> Result<(File, Digest, u64), PushError> {
        let fail = |error| PushError::Compress(layer.diff_id, error);
        let out = Hashed {
            out: BufWriter::with_capacity(256 * 1024, file),
            hasher: Sha256::new(),
            bytes: 0,
        };
        let mut packer = Packer::new(compression, out).map_err(fail)?;
        layer_tar(self, &layer.key, &layer.diff_id, &layer.facts, &mut packer)
            .map_err(|error| PushError::Layer(layer.diff_id, error))?;
        let done = packer.finish().map_err(fail)?;
        let mut file = done
            .out
            .into_inner()
            .map_err(|error| fail(error.into_error()))?;
        file.rewind().map_err(fail)?;
        Ok((file, Digest::from_hasher(done.hasher), done.bytes))
    }
}

/// A writer that hashes what goes through it.
struct Hashed<W> {
    out: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.out.write(bytes)?;
        self.hasher.update(&bytes[..len]);
        self.bytes += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
