//! Compressed streams: told apart by their first bytes, hashed on both sides, and stopped when
//! they grow beyond what honest ones do.

use crate::digest::Digest;
use crate::limits::Limits;
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};
use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

/// Bytes read from a source, and handed on, at a time.
const BUFFER: usize = 128 * 1024;
/// log2 of the largest zstd window: 64 MiB, what `zstd --ultra -21` uses. Memory is the reason.
const MAX_WINDOW_LOG: u32 = 26;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    /// Known by name only.
    Unsupported(&'static str),
}

impl Compression {
    /// Recognises a stream by its first bytes.
    pub(crate) fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A skippable frame may come first, as in zstd:chunked layers.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Unsupported("xz"),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Unsupported("bzip2"),
            _ => Self::None,
        }
    }
}

/// Why a stream was stopped. Travels inside an [`io::Error`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// A decompression bomb.
    #[error("the data grows more than {0} times when decompressed")]
    Expansion(u64),
    /// Another compression.
    #[error("{0} is not supported, only gzip and zstd are: decompress it first")]
    Unsupported(&'static str),
    /// Too large.
    #[error("the data is larger than {0} bytes when decompressed")]
    TooLarge(u64),
}

/// What was read of a source so far.
type Count = Rc<Cell<u64>>;

/// Counts and, if asked, hashes what is read.
struct Raw<R> {
    inner: R,
    count: Count,
    hasher: Option<Sha256>,
}

impl<R: Read> Read for Raw<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.count.set(self.count.get() + len as u64);
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..len]);
        }
        Ok(len)
    }
}

enum Decoder<R: Read> {
    Plain(BufReader<Raw<R>>),
    Gzip(Box<MultiGzDecoder<BufReader<Raw<R>>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<Raw<R>>>>),
}

impl<R: Read> Decoder<R> {
    fn get_mut(&mut self) -> &mut BufReader<Raw<R>> {
        match self {
            Self::Plain(reader) => reader,
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            // Past the reader's own buffer: what is plain need not be copied twice.
            Self::Plain(reader) => reader.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// A stream, decompressed.
pub(crate) struct Stream<R: Read> {
    decoder: Decoder<R>,
    compression: Compression,
    count: Count,
    /// Of the decompressed bytes, where they are wanted.
    hasher: Option<Sha256>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    out: u64,
    max_bytes: u64,
    max_expansion: u64,
    grace_bytes: u64,
}

/// What a stream turned out to be, known at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digests {
    /// Of the bytes as they came.
    pub raw: Digest,
    pub raw_bytes: u64,
    /// Of the bytes decompressed.
    pub plain: Digest,
    pub plain_bytes: u64,
}

impl<R: Read> Stream<R> {
    /// Detects the compression of `inner` and decompresses at most `max_bytes` of it.
    pub(crate) fn new(inner: R, hashed: bool, max_bytes: u64, limits: &Limits) -> io::Result<Self> {
        let count = Count::default();
        let raw = Raw {
            inner,
            count: Rc::clone(&count),
            hasher: hashed.then(Sha256::new),
        };
        let mut reader = BufReader::with_capacity(BUFFER, raw);
        let compression = Compression::of(reader.fill_buf()?);
        let decoder = match compression {
            Compression::None => Decoder::Plain(reader),
            Compression::Unsupported(name) => {
                return Err(io::Error::other(StreamError::Unsupported(name)));
            }
            Compression::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(reader))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
                decoder.window_log_max(MAX_WINDOW_LOG)?;
                Decoder::Zstd(Box::new(decoder))
            }
        };
        Ok(Self {
            decoder,
            compression,
            count,
            // Plain bytes are the same on both sides: one hash is enough.
            hasher: (hashed && compression != Compression::None).then(Sha256::new),
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            out: 0,
            max_bytes,
            max_expansion: limits.max_expansion,
            grace_bytes: limits.expansion_grace_bytes,
        })
    }

    /// Leaves hashing the decompressed bytes to the reader; whether they differ from those of the
    /// source, and need it.
    pub(crate) fn leave_plain_hash(&mut self) -> bool {
        self.hasher.take().is_some()
    }

    fn check(&self) -> Result<(), StreamError> {
        if self.out > self.max_bytes {
            return Err(StreamError::TooLarge(self.max_bytes));
        }
        let allowed = self.count.get().saturating_mul(self.max_expansion);
        if self.compression != Compression::None && self.out > self.grace_bytes.max(allowed) {
            return Err(StreamError::Expansion(self.max_expansion));
        }
        Ok(())
    }
}

/// Decompressed bytes whose digests are known at their end.
pub(crate) trait Plain: BufRead {
    /// Reads to the end of the source and says what it was. Nothing if it was not hashed.
    fn into_digests(self) -> io::Result<Option<Digests>>;
}

impl<R: Read> Plain for Stream<R> {
    fn into_digests(mut self) -> io::Result<Option<Digests>> {
        while !self.fill_buf()?.is_empty() {
            let len = self.end - self.start;
            self.consume(len);
        }
        // Decoders refuse bytes after what they decode, so this only collects the end.
        io::copy(self.decoder.get_mut(), &mut io::sink())?;
        let Some(hasher) = self.decoder.get_mut().get_mut().hasher.take() else {
            return Ok(None);
        };
        let raw = Digest::from_hasher(hasher);
        Ok(Some(Digests {
            raw,
            raw_bytes: self.count.get(),
            plain: self.hasher.map_or(raw, Digest::from_hasher),
            plain_bytes: self.out,
        }))
    }
}

impl<R: Read> BufRead for Stream<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            let len = self.decoder.read(&mut self.buffer)?;
            (self.start, self.end) = (0, len);
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&self.buffer[..len]);
            }
            self.out += len as u64;
            self.check().map_err(io::Error::other)?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, len: usize) {
        self.start = (self.start + len).min(self.end);
    }
}

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}

/// `Read::read` of a reader that has a buffer.
pub(crate) fn read_buffered(reader: &mut impl BufRead, buffer: &mut [u8]) -> io::Result<usize> {
    let available = reader.fill_buf()?;
    let len = available.len().min(buffer.len());
    buffer[..len].copy_from_slice(&available[..len]);
    reader.consume(len);
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(bytes: &[u8], limits: &Limits) -> io::Result<Digests> {
        let stream = Stream::new(bytes, true, limits.max_layer_bytes, limits)?;
        stream.into_digests().map(Option::unwrap)
    }

    #[test]
    fn each_compression_is_recognised_and_both_sides_hashed() {
        let plain = b"hello hello hello".repeat(100_000);
        let zstd = zstd::encode_all(&plain[..], 3).unwrap();
        let two_members = [gzip(&plain[..1000]), gzip(&plain[1000..])].concat();
        for packed in [plain.clone(), gzip(&plain), two_members, zstd] {
            let digests = decode(&packed, &Limits::default()).unwrap();
            assert_eq!(digests.raw, Digest::of(&packed));
            assert_eq!(digests.plain, Digest::of(&plain));
            assert_eq!(digests.raw_bytes, packed.len() as u64);
            assert_eq!(digests.plain_bytes, plain.len() as u64);
        }
    }

    #[test]
    fn cut_off_and_trailing_bytes_are_errors() {
        let plain = b"hello".repeat(100_000);
        for packed in [gzip(&plain), zstd::encode_all(&plain[..], 3).unwrap()] {
            assert!(decode(&packed[..packed.len() - 5], &Limits::default()).is_err());
            let longer = [&packed[..], b"trailing"].concat();
            assert!(decode(&longer, &Limits::default()).is_err());
        }
    }

    #[test]
    fn bombs_are_stopped() {
        let limits = Limits {
            expansion_grace_bytes: 1 << 20,
            max_expansion: 50,
            ..Limits::default()
        };
        let plain = vec![0; 16 << 20];
        for packed in [gzip(&plain), zstd::encode_all(&plain[..], 1).unwrap()] {
            let error = decode(&packed, &limits).unwrap_err();
            assert_eq!(error.to_string(), StreamError::Expansion(50).to_string());
        }
        let tight = Limits {
            max_layer_bytes: 1000,
            ..Limits::default()
        };
        let error = decode(&[7; 1001], &tight).unwrap_err();
        assert_eq!(error.to_string(), StreamError::TooLarge(1000).to_string());
    }

    #[test]
    fn a_zstd_window_over_the_limit_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(&[1; 1000]).unwrap();
        let packed = encoder.finish().unwrap();
        assert!(decode(&packed, &Limits::default()).is_err());
    }
}
