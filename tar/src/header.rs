//! The 512-byte header block: where its fields are and how its numbers are written.

use super::error::TarError;

/// Everything in a tar comes in blocks of this size.
pub const BLOCK: usize = 512;

/// One header block.
pub(super) struct Header<'a>(pub &'a [u8; BLOCK]);

/// How the fields after the checksum are to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// Before 1988: nothing after the link name.
    V7,
    /// POSIX: a prefix for the name.
    Ustar,
    /// star's ustar: a shorter prefix, times behind it.
    Star,
    /// GNU: times and sparse maps where POSIX has the prefix.
    Gnu,
}

impl Header<'_> {
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|&byte| byte == 0)
    }

    /// Whether this block is a header at all: what tells a tar from anything else.
    pub(super) fn checksum_holds(&self) -> bool {
        let Ok(Some(stored)) = octal(&self.0[148..156]) else {
            return false;
        };
        // The field itself counts as spaces. Historic tars summed signed bytes.
        let counted = |index: usize, byte: u8| {
            if (148..156).contains(&index) {
                b' '
            } else {
                byte
            }
        };
        let bytes = || self.0.iter().enumerate().map(|(i, &b)| counted(i, b));
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|b| i64::from(b.cast_signed())).sum();
        stored == unsigned || stored == signed
    }

    pub(super) const fn kind(&self) -> u8 {
        self.0[156]
    }

    pub(super) fn path(&self) -> Vec<u8> {
        let name = until_nul(&self.0[..100]);
        let prefix = match self.dialect() {
            Dialect::Ustar => until_nul(&self.0[345..500]),
            Dialect::Star => until_nul(&self.0[345..476]),
            Dialect::V7 | Dialect::Gnu => &[],
        };
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        until_nul(&self.0[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Result<i64, TarError> {
        number(&self.0[100..108], "mode")
    }

    pub(super) fn uid(&self) -> Result<i64, TarError> {
        number(&self.0[108..116], "uid")
    }

    pub(super) fn gid(&self) -> Result<i64, TarError> {
        number(&self.0[116..124], "gid")
    }

    pub(super) fn size(&self) -> Result<u64, TarError> {
        let size = number(&self.0[124..136], "size")?;
        u64::try_from(size).map_err(|_| TarError::Number("size"))
    }

    pub(super) fn mtime(&self) -> Result<i64, TarError> {
        number(&self.0[136..148], "mtime")
    }

    pub(super) fn device(&self) -> Result<(i64, i64), TarError> {
        if self.dialect() == Dialect::V7 {
            return Ok((0, 0));
        }
        Ok((
            number(&self.0[329..337], "device number")?,
            number(&self.0[337..345], "device number")?,
        ))
    }

    /// GNU's old sparse header: segments, whether blocks of more follow, and the real size.
    pub(super) fn gnu_sparse(&self) -> Result<(SparseFields<'_>, bool, u64), TarError> {
        let size = number(&self.0[483..495], "sparse size")?;
        let size = u64::try_from(size).map_err(|_| TarError::Number("sparse size"))?;
        Ok((SparseFields(&self.0[386..482]), self.0[482] != 0, size))
    }

    fn dialect(&self) -> Dialect {
        match &self.0[257..265] {
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar\0") => {
                if &self.0[508..512] == b"tar\0" {
                    Dialect::Star
                } else {
                    Dialect::Ustar
                }
            }
            _ => Dialect::V7,
        }
    }
}

/// A block that continues GNU's old sparse header.
pub(super) fn gnu_sparse_more(block: &[u8; BLOCK]) -> (SparseFields<'_>, bool) {
    (SparseFields(&block[..504]), block[504] != 0)
}

/// Pairs of offset and length, 12 bytes each, up to the first empty one.
pub(super) struct SparseFields<'a>(&'a [u8]);

impl SparseFields<'_> {
    pub(super) fn append_to(&self, map: &mut Vec<(u64, u64)>) -> Result<(), TarError> {
        for pair in self.0.chunks_exact(24) {
            if pair[0] == 0 || pair[12] == 0 {
                break;
            }
            let read = |field| {
                number(field, "sparse map")
                    .and_then(|n| u64::try_from(n).map_err(|_| TarError::Number("sparse map")))
            };
            map.push((read(&pair[..12])?, read(&pair[12..])?));
        }
        Ok(())
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    &field[..end]
}

/// Octal digits, or base 256 where the first bit is set (GNU's way to larger numbers).
fn number(field: &[u8], what: &'static str) -> Result<i64, TarError> {
    if field[0] & 0x80 == 0 {
        return octal(field)
            .map(Option::unwrap_or_default)
            .map_err(|()| TarError::Number(what));
    }
    // The second bit is the sign of a two's complement number, extended to the left.
    let negative = field[0] & 0x40 != 0;
    let first = if negative {
        field[0] | 0x80
    } else {
        field[0] & 0x7f
    };
    let fill = if negative { 0xff } else { 0 };
    let mut wide = [fill; 16];
    wide[16 - field.len()] = first;
    wide[17 - field.len()..].copy_from_slice(&field[1..]);
    i64::try_from(i128::from_be_bytes(wide)).map_err(|_| TarError::Number(what))
}

/// Octal digits between blanks; `None` when there are none.
fn octal(field: &[u8]) -> Result<Option<i64>, ()> {
    let start = field
        .iter()
        .position(|&b| b != b' ' && b != 0)
        .unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits
        .iter()
        .position(|&b| b == b' ' || b == 0)
        .unwrap_or(digits.len());
    if end == 0 {
        return Ok(None);
    }
    digits[..end]
        .iter()
        .try_fold(0i64, |value, &digit| match digit {
            b'0'..=b'7' => value
                .checked_mul(8)
                .map(|value| value + i64::from(digit - b'0'))
                .ok_or(()),
            _ => Err(()),
        })
        .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let read = |field: &[u8]| number(field, "x").ok();
        assert_eq!(read(b"0000644\0"), Some(0o644));
        assert_eq!(read(b"   644 \0"), Some(0o644));
        assert_eq!(read(b"77777777"), Some(0o7777_7777));
        assert_eq!(read(&[0; 8]), Some(0));
        assert_eq!(read(b"00009\0\0\0"), None);
        assert_eq!(read(b"-0000001"), None);
        assert_eq!(read(&[0x80, 0, 0, 0, 1, 0, 0, 0]), Some(1 << 24));
        assert_eq!(read(&[0xff; 12]), Some(-1));
        assert_eq!(
            read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]),
            Some(-2)
        );
        let mut huge = [0xff; 12];
        huge[0] = 0x80;
        assert_eq!(read(&huge), None);
        assert_eq!(read(b"777777777777"), Some(0o777_777_777_777));
    }
}
