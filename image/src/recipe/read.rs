//! Following a recipe.

use super::{END, KEPT, LITERAL, MAGIC, MAX_LITERAL, expected};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;

/// Bytes copied at a time.
const BUFFER: usize = 256 * 1024;

/// Why a tar cannot be made again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// The recipe.
    #[error("the record of the layer's tar is damaged: {0}")]
    Damaged(&'static str),
    /// The recipe cannot be read.
    #[error("the record of the layer's tar cannot be read")]
    Read(#[source] io::Error),
    /// The image cannot be read.
    #[error("the layer's filesystem image cannot be read")]
    Image(#[source] io::Error),
    /// The tar cannot be written.
    #[error("cannot write the layer's tar")]
    Write(#[source] io::Error),
}

/// Writes the tar that `recipe` makes of `image` to `out`: `total` bytes, never more.
pub(crate) fn regenerate(
    mut recipe: &File,
    image: &File,
    total: u64,
    out: &mut dyn Write,
) -> Result<u64, RecipeError> {
    recipe.rewind().map_err(RecipeError::Read)?;
    let decoder = zstd::stream::read::Decoder::new(recipe).map_err(RecipeError::Read)?;
    let mut replay = Replay {
        recipe: decoder,
        image,
        left: total,
        end: 0,
        buffer: vec![0; BUFFER],
    };
    if replay.take::<6>()? != *MAGIC {
        return Err(RecipeError::Damaged("it is of another kind"));
    }
    loop {
        match replay.take::<1>()?[0] {
            LITERAL => replay.literal(out)?,
            KEPT => replay.kept(out)?,
            END => break,
            _ => return Err(RecipeError::Damaged("it has an unknown record")),
        }
    }
    if u64::from_le_bytes(replay.take()?) != total || replay.left != 0 {
        return Err(RecipeError::Damaged("it makes a tar of another length"));
    }
    // To the end of the frame, where its checksum is.
    match replay.recipe.read(&mut [0]).map_err(damaged)? {
        0 => Ok(total),
        _ => Err(RecipeError::Damaged("something follows its end")),
    }
}

struct Replay<'a, R> {
    recipe: R,
    image: &'a File,
    /// Bytes that may still be written.
    left: u64,
    end: u64,
    buffer: Vec<u8>,
}

impl<R: Read> Replay<'_, R> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], RecipeError> {
        let mut bytes = [0; N];
        self.recipe.read_exact(&mut bytes).map_err(damaged)?;
        Ok(bytes)
    }

    fn spend(&mut self, len: u64) -> Result<(), RecipeError> {
        self.left = self
            .left
            .checked_sub(len)
            .ok_or(RecipeError::Damaged("it makes a longer tar"))?;
        Ok(())
    }

    fn literal(&mut self, out: &mut dyn Write) -> Result<(), RecipeError> {
        let len = u32::from_le_bytes(self.take()?);
        self.spend(len.into())?;
        let bytes = usize::try_from(len)
            .ok()
            .filter(|&len| len <= MAX_LITERAL)
            .and_then(|len| self.buffer.get_mut(..len))
            .ok_or(RecipeError::Damaged("it has a piece that is too long"))?;
        self.recipe.read_exact(bytes).map_err(damaged)?;
        out.write_all(bytes).map_err(RecipeError::Write)
    }

    fn kept(&mut self, out: &mut dyn Write) -> Result<(), RecipeError> {
        let skew = u64::from_le_bytes(self.take()?);
        let mut left = u64::from_le_bytes(self.take()?);
        self.spend(left)?;
        let mut offset = expected(self.end).wrapping_add(skew);
        self.end = offset
            .checked_add(left)
            .filter(|&end| end < u64::MAX / 2)
            .ok_or(RecipeError::Damaged("it points past the image"))?;
        while left > 0 {
            let len = usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER));
            let bytes = &mut self.buffer[..len];
            self.image
                .read_exact_at(bytes, offset)
                .map_err(RecipeError::Image)?;
            out.write_all(bytes).map_err(RecipeError::Write)?;
            offset += len as u64;
            left -= len as u64;
        }
        Ok(())
    }
}

/// What the decoder complains of is the recipe's bytes, unless reading them failed.
fn damaged(error: io::Error) -> RecipeError {
    match error.raw_os_error() {
        Some(_) => RecipeError::Read(error),
        None => RecipeError::Damaged("it cannot be decompressed"),
    }
}
