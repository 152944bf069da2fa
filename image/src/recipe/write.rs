//! Writing a recipe while a layer's tar streams by.

use super::{END, KEPT, LITERAL, MAGIC, MAX_LITERAL, expected};
use crate::compress::read_buffered;
use hullbox_tar::TarSource;
use std::fs::File;
use std::io::{self, BufRead, BufWriter, Read, Write};

/// What is written is mostly headers, which the fastest level makes a twentieth of.
const LEVEL: i32 = 1;

type Encoder = zstd::stream::write::Encoder<'static, BufWriter<File>>;

/// A recipe being written.
pub(crate) struct RecipeWriter {
    out: Encoder,
    literal: Vec<u8>,
    /// A piece of the image that the next one may continue: offset and length.
    kept: Option<(u64, u64)>,
    /// End of the last piece taken from the image.
    end: u64,
    total: u64,
    /// Whoever consumes bytes cannot be told of an error; it comes out at the end.
    failed: Option<io::Error>,
}

impl RecipeWriter {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let mut out = Encoder::new(BufWriter::new(file), LEVEL)?;
        out.include_checksum(true)?;
        out.write_all(MAGIC)?;
        Ok(Self {
            out,
            literal: Vec::with_capacity(MAX_LITERAL),
            kept: None,
            end: 0,
            total: 0,
            failed: None,
        })
    }

    /// Notes bytes that nothing else keeps.
    fn literal(&mut self, mut bytes: &[u8]) {
        self.total += bytes.len() as u64;
        if !bytes.is_empty() {
            self.put_kept();
        }
        while !bytes.is_empty() {
            let room = MAX_LITERAL - self.literal.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.literal.extend_from_slice(now);
            if self.literal.len() == MAX_LITERAL {
                self.put_literal();
            }
            bytes = later;
        }
    }

    /// Notes bytes that the image keeps.
    fn kept(&mut self, offset: u64, len: u64) {
        self.total += len;
        if let Some((start, before)) = &mut self.kept
            && *start + *before == offset
        {
            *before += len;
            return;
        }
        self.put_kept();
        self.put_literal();
        self.kept = Some((offset, len));
    }

    fn put_literal(&mut self) {
        if self.literal.is_empty() {
            return;
        }
        let len = u32::try_from(self.literal.len()).unwrap_or(u32::MAX);
        let literal = std::mem::take(&mut self.literal);
        self.put(&[&[LITERAL], &len.to_le_bytes(), &literal]);
        self.literal = literal;
        self.literal.clear();
    }

    fn put_kept(&mut self) {
        let Some((offset, len)) = self.kept.take() else {
            return;
        };
        let skew = offset.wrapping_sub(expected(self.end));
        self.end = offset + len;
        self.put(&[&[KEPT], &skew.to_le_bytes(), &len.to_le_bytes()]);
    }

    fn put(&mut self, parts: &[&[u8]]) {
        if self.failed.is_none() {
            self.failed = parts
                .iter()
                .try_for_each(|part| self.out.write_all(part))
                .err();
        }
    }

    /// Completes the recipe, though not to the disk. Answers the length of the tar too.
    pub(crate) fn finish(mut self) -> io::Result<(File, u64)> {
        self.put_kept();
        self.put_literal();
        let total = self.total;
        self.put(&[&[END], &total.to_le_bytes()]);
        match self.failed {
            Some(error) => Err(error),
            None => {
                let file = self.out.finish()?;
                let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                Ok((file, total))
            }
        }
    }
}

/// A stream that notes all that is read of it.
pub(crate) struct Recorder<R> {
    inner: R,
    recipe: RecipeWriter,
}

impl<R: BufRead> Recorder<R> {
    pub(crate) fn new(inner: R, recipe: RecipeWriter) -> Self {
        Self { inner, recipe }
    }

    pub(crate) fn into_parts(self) -> (R, RecipeWriter) {
        (self.inner, self.recipe)
    }
}

impl<R: BufRead> TarSource for Recorder<R> {
    fn consume_kept(&mut self, len: usize, offset: u64) {
        self.recipe.kept(offset, len as u64);
        self.inner.consume(len);
    }
}

impl<R: BufRead> BufRead for Recorder<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, len: usize) {
        if len == 0 {
            return;
        }
        // Only what `fill_buf` showed is consumed, so this reads nothing anew.
        match self.inner.fill_buf() {
            Ok(bytes) => self.recipe.literal(&bytes[..len.min(bytes.len())]),
            Err(error) => self.recipe.failed = Some(error),
        }
        self.inner.consume(len);
    }
}

impl<R: BufRead> Read for Recorder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}
