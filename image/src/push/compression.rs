//! How layers are compressed for those who fetch them. The same bytes always make the same blob.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

/// Levels of gzip.
const GZIP_LEVELS: std::ops::RangeInclusive<u8> = 1..=9;
/// Levels of zstd. Those above 19 need more memory to decompress than readers may allow.
const ZSTD_LEVELS: std::ops::RangeInclusive<u8> = 1..=19;

/// A compression and its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LayerCompression {
    /// The tar itself.
    None,
    /// gzip, at a level from 1 to 9.
    Gzip(u8),
    /// zstd, at a level from 1 to 19.
    Zstd(u8),
}

/// Why there is no such compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompressionError {
    /// Another compression.
    #[error("unknown compression {0:?}: gzip, zstd and none are known")]
    Unknown(String),
    /// Another level.
    #[error("{format} has no compression level {level}: levels are {lowest} to {highest}")]
    Level {
        /// The compression.
        format: &'static str,
        /// What was asked for.
        level: String,
        /// The least level.
        lowest: u8,
        /// The greatest level.
        highest: u8,
    },
    /// A level where there is none.
    #[error("without compression there is no level")]
    NoLevel,
}

impl Default for LayerCompression {
    fn default() -> Self {
        Self::Gzip(6)
    }
}

impl LayerCompression {
    /// A compression by its name, at its usual level or another.
    ///
    /// # Errors
    /// [`CompressionError`].
    pub fn new(format: &str, level: Option<i32>) -> Result<Self, CompressionError> {
        let checked = |format, levels: std::ops::RangeInclusive<u8>, usual: u8| {
            let level = level.unwrap_or_else(|| usual.into());
            let valid = u8::try_from(level).ok().filter(|n| levels.contains(n));
            valid.ok_or_else(|| CompressionError::Level {
                format,
                level: level.to_string(),
                lowest: *levels.start(),
                highest: *levels.end(),
            })
        };
        match format {
            "gzip" => checked("gzip", GZIP_LEVELS, 6).map(Self::Gzip),
            "zstd" => checked("zstd", ZSTD_LEVELS, 3).map(Self::Zstd),
            "none" if level.is_some() => Err(CompressionError::NoLevel),
            "none" => Ok(Self::None),
            other => Err(CompressionError::Unknown(other.chars().take(40).collect())),
        }
    }

    /// The media type of a layer that is compressed so, as the OCI specification has it.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip(_) => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd(_) => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// As it is remembered: `gzip 6`.
impl fmt::Display for LayerCompression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Gzip(level) => write!(f, "gzip {level}"),
            Self::Zstd(level) => write!(f, "zstd {level}"),
        }
    }
}

impl FromStr for LayerCompression {
    type Err = CompressionError;

    fn from_str(text: &str) -> Result<Self, CompressionError> {
        let Some((format, level)) = text.split_once(' ') else {
            return Self::new(text, None);
        };
        let unknown = |_| CompressionError::Unknown(text.chars().take(40).collect());
        Self::new(format, Some(level.parse().map_err(unknown)?))
    }
}

/// A compressor in front of a writer.
pub(crate) enum Packer<W: Write> {
    Plain(W),
    Gzip(flate2::write::GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Packer<W> {
    pub(crate) fn new(compression: LayerCompression, out: W) -> io::Result<Self> {
        Ok(match compression {
            LayerCompression::None => Self::Plain(out),
            // Without time or name in its header.
            LayerCompression::Gzip(level) => Self::Gzip(
                flate2::GzBuilder::new().write(out, flate2::Compression::new(u32::from(level))),
            ),
            LayerCompression::Zstd(level) => {
                let mut encoder = zstd::stream::write::Encoder::new(out, i32::from(level))?;
                encoder.include_checksum(true)?;
                Self::Zstd(encoder)
            }
        })
    }

    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(out) => Ok(out),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Packer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_levels_are_checked() {
        assert_eq!(
            LayerCompression::new("gzip", None),
            Ok(LayerCompression::Gzip(6))
        );
        assert_eq!(
            LayerCompression::new("zstd", Some(19)),
            Ok(LayerCompression::Zstd(19))
        );
        for (format, level) in [
            ("gzip", Some(0)),
            ("gzip", Some(10)),
            ("zstd", Some(20)),
            ("zstd", Some(-1)),
            ("none", Some(1)),
            ("xz", None),
            ("", None),
        ] {
            assert!(
                LayerCompression::new(format, level).is_err(),
                "{format} {level:?}"
            );
        }
        for text in ["none", "gzip 1", "gzip 9", "zstd 3"] {
            let parsed: LayerCompression = text.parse().unwrap();
            assert_eq!(parsed.to_string(), text);
        }
        assert!("gzip x".parse::<LayerCompression>().is_err());
    }

    #[test]
    fn what_is_packed_is_always_the_same_and_comes_out_again() {
        use std::io::Read;
        let bytes = b"all the same ".repeat(10_000);
        let pack = |compression| {
            let mut packer = Packer::new(compression, Vec::new()).unwrap();
            packer.write_all(&bytes).unwrap();
            packer.finish().unwrap()
        };
        for compression in [
            LayerCompression::None,
            LayerCompression::Gzip(1),
            LayerCompression::Gzip(9),
            LayerCompression::Zstd(3),
        ] {
            let packed = pack(compression);
            assert_eq!(packed, pack(compression));
            let limits = crate::Limits::default();
            let mut plain = Vec::new();
            crate::compress::Stream::new(&packed[..], false, u64::MAX, &limits)
                .unwrap()
                .read_to_end(&mut plain)
                .unwrap();
            assert_eq!(plain, bytes);
        }
    }
}
