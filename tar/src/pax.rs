//! PAX extended headers: `LENGTH KEY=VALUE\n`, any number of them.

use super::error::TarError;

/// Most extended attributes of one entry.
const MAX_XATTRS: usize = 1024;

/// What of an extended header concerns a layer. `None` leaves the plain header's value.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    pub mtime: Option<(i64, u32)>,
    /// In the order they stand in; of two with one name the later counts.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: SparseKeys,
}

/// The keys of GNU's three PAX sparse formats.
#[derive(Debug, Default)]
pub(super) struct SparseKeys {
    pub major: Option<u64>,
    pub minor: Option<u64>,
    pub name: Option<Vec<u8>>,
    pub real_size: Option<u64>,
    /// Formats 0.0 (repeated keys) and 0.1 (one key) both end up here.
    pub map: Option<Vec<(u64, u64)>>,
    offset: Option<u64>,
}

impl Pax {
    pub(super) fn parse(mut rest: &[u8], max_segments: usize) -> Result<Self, TarError> {
        let mut pax = Self::default();
        while !rest.is_empty() {
            let (key, value, after) = record(rest).ok_or(TarError::Pax("malformed record"))?;
            pax.take(key, value, max_segments)?;
            rest = after;
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8], max_segments: usize) -> Result<(), TarError> {
        // An empty value takes the key back, says POSIX.
        let text = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = optional(value, decimal, "bad size")?,
            b"uid" => self.uid = optional(value, signed, "bad uid")?,
            b"gid" => self.gid = optional(value, signed, "bad gid")?,
            b"mtime" => self.mtime = optional(value, timestamp, "bad mtime")?,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if self.xattrs.len() == MAX_XATTRS {
                        return Err(TarError::Pax("too many extended attributes"));
                    }
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.take(name, value, max_segments)?;
                }
            }
        }
        Ok(())
    }
}

impl SparseKeys {
    fn take(&mut self, key: &[u8], value: &[u8], max_segments: usize) -> Result<(), TarError> {
        const BAD: &str = "bad sparse record";
        let number = || decimal(value).ok_or(TarError::Pax(BAD));
        match key {
            b"major" => self.major = Some(number()?),
            b"minor" => self.minor = Some(number()?),
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.real_size = Some(number()?),
            b"offset" => self.offset = Some(number()?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or(TarError::Pax(BAD))?;
                self.map.get_or_insert_default().push((offset, number()?));
            }
            b"map" => {
                let numbers = value.split(|&b| b == b',').map(decimal);
                let numbers: Option<Vec<u64>> = numbers.collect();
                let numbers = numbers.filter(|n| n.len() % 2 == 0);
                let numbers = numbers.ok_or(TarError::Pax(BAD))?;
                let pairs = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1]));
                self.map = Some(pairs.collect());
            }
            _ => {}
        }
        if self
            .map
            .as_ref()
            .is_some_and(|map| map.len() > max_segments)
        {
            return Err(TarError::SparseMap("has too many segments"));
        }
        Ok(())
    }
}

/// Splits off the first record.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|&b| b == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let body = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&b| b == b'=')?;
    let (key, value) = (&body[..equals], &body[equals + 1..]);
    (!key.is_empty()).then_some((key, value, &bytes[length..]))
}

fn optional<T>(
    value: &[u8],
    parse: impl Fn(&[u8]) -> Option<T>,
    complaint: &'static str,
) -> Result<Option<T>, TarError> {
    if value.is_empty() {
        return Ok(None);
    }
    parse(value).map(Some).ok_or(TarError::Pax(complaint))
}

/// Decimal digits and nothing else.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &digit| {
        if !digit.is_ascii_digit() {
            return None;
        }
        value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

fn signed(text: &[u8]) -> Option<i64> {
    let magnitude = |digits| decimal(digits).and_then(|n| i64::try_from(n).ok());
    match text.strip_prefix(b"-") {
        Some(digits) => magnitude(digits).map(|n| -n),
        None => magnitude(text),
    }
}

/// Seconds with a fraction of any length, possibly before 1970, as (seconds, nanoseconds).
fn timestamp(text: &[u8]) -> Option<(i64, u32)> {
    let (whole, fraction) = match text.iter().position(|&b| b == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &[][..]),
    };
    let seconds = signed(whole)?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanoseconds = digits.fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    if whole.starts_with(b"-") && nanoseconds > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        assert_eq!(timestamp(b"12"), Some((12, 0)));
        assert_eq!(timestamp(b"12."), Some((12, 0)));
        assert_eq!(timestamp(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(timestamp(b"12.0000000019"), Some((12, 1)));
        assert_eq!(timestamp(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(timestamp(b"-0.25"), Some((-1, 750_000_000)));
        for bad in [&b""[..], b".5", b"1.x", b"1e3", b"99999999999999999999"] {
            assert_eq!(timestamp(bad), None);
        }
    }

    #[test]
    fn records_must_be_whole() {
        let pax = Pax::parse(b"12 path=a/b\n15 SCHILY.a=bc\n", 9).unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a/b"[..]));
        for bad in [
            &b"12 path=a/bX"[..],
            b"99 path=a\n",
            b"path=a\n",
            b"0 \n",
            b"3 \n",
            b"5 =a\n",
            b"18446744073709551616 a=b\n",
            b"10 size=x\n",
            b"11 size=-1\n",
        ] {
            assert!(Pax::parse(bad, 9).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn later_records_win_and_empty_ones_take_back() {
        let pax = Pax::parse(b"10 path=a\n10 path=b\n9 uid=12\n7 uid=\n", 9);
        let pax = pax.unwrap();
        assert_eq!((pax.path, pax.uid), (Some(b"b".to_vec()), None));
    }
}
