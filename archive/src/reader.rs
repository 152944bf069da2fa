//! Reading a tar stream: v7, ustar, PAX and GNU.
//!
//! Whoever made it is not trusted, but the reader has no more rights than the container: what
//! matters is that memory is bounded and that no reading panics.

use crate::format::{BLOCK, Entry, Kind, XATTR, checksum, field};
use std::io::{self, Read};
use std::ops::Range;

/// Longest extended header or name, in bytes.
const MAX_EXTENDED: u64 = 1024 * 1024;

/// Why a stream is not a tar.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The stream failed.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// It ends within an entry.
    #[error("the archive is cut off")]
    Truncated,
    /// A header's checksum is wrong.
    #[error("this is not a tar archive, or it is damaged")]
    Checksum,
    /// A field that is no number, or one out of range.
    #[error("the archive has a bad {0}")]
    Number(&'static str),
    /// An extended header.
    #[error("the archive has a malformed extended header")]
    Pax,
    /// An extended header over its limit.
    #[error("the archive has an extended header of {0} bytes, which is too long")]
    TooLong(u64),
    /// An entry of a kind that is not known here.
    #[error("the archive has an entry of the unsupported type {:?}", char::from(*.0))]
    Kind(u8),
}

/// Reads entry after entry.
#[derive(Debug)]
pub(crate) struct TarReader<R> {
    input: R,
    /// Bytes of the current entry that were not read yet.
    data: u64,
    padding: u64,
}

/// What precedes an entry's own header.
#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            data: 0,
            padding: 0,
        }
    }

    /// The next entry, or `None` at the end. Skips what is left of the one before.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip()?;
            let mut header = [0; BLOCK];
            if !self.block(&mut header)? || header.iter().all(|&byte| byte == 0) {
                return Ok(None);
            }
            let stated = number(&header, field::CHECKSUM, "checksum")?;
            if stated != checksum(&header) {
                return Err(TarError::Checksum);
            }
            let size = number(&header, field::SIZE, "size")?;
            self.begin(size);
            match header[field::KIND] {
                b'x' => extensions.parse(&self.extended(size)?)?,
                b'L' => extensions.path = Some(until_nul(&self.extended(size)?)),
                b'K' => extensions.link = Some(until_nul(&self.extended(size)?)),
                // Global headers and volume labels say nothing about an entry that matters here.
                b'g' | b'V' => {}
                flag => return self.entry(&header, flag, extensions).map(Some),
            }
        }
    }

    /// Reads the current entry's data. Zero at its end.
    pub(crate) fn data(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let length = usize::try_from(self.data).map_or(buffer.len(), |left| left.min(buffer.len()));
        if length == 0 {
            return Ok(0);
        }
        let read = read(&mut self.input, &mut buffer[..length])?;
        if read == 0 {
            return Err(TarError::Truncated);
        }
        self.data -= read as u64;
        Ok(read)
    }

    /// Reads what follows the archive's end, so that its writer is not broken off.
    pub(crate) fn drain(&mut self) -> Result<(), TarError> {
        let mut buffer = [0; 8 * BLOCK];
        while read(&mut self.input, &mut buffer)? > 0 {}
        Ok(())
    }

    fn begin(&mut self, size: u64) {
        self.data = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn skip(&mut self) -> Result<(), TarError> {
        let mut buffer = [0; 8 * BLOCK];
        while self.data(&mut buffer)? > 0 {}
        self.data = std::mem::take(&mut self.padding);
        loop {
            match self.data(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                // Some writers end right behind the last file's data.
                Err(TarError::Truncated) => {
                    self.data = 0;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A whole block, or `false` at the end of the stream.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        let mut filled = 0;
        while filled < BLOCK {
            match read(&mut self.input, &mut block[filled..])? {
                0 if filled == 0 => return Ok(false),
                0 => return Err(TarError::Truncated),
                read => filled += read,
            }
        }
        Ok(true)
    }

    fn extended(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTENDED {
            return Err(TarError::TooLong(size));
        }
        let mut text = Vec::new();
        let mut buffer = [0; 8 * BLOCK];
        loop {
            match self.data(&mut buffer)? {
                0 => return Ok(text),
                read => text.extend_from_slice(&buffer[..read]),
            }
        }
    }

    fn entry(
        &mut self,
        header: &[u8; BLOCK],
        flag: u8,
        extensions: Extensions,
    ) -> Result<Entry, TarError> {
        let mut kind = Kind::from_flag(flag).ok_or(TarError::Kind(flag))?;
        let path = extensions.path.unwrap_or_else(|| name(header));
        // Before there was a type for directories, a slash said it.
        if kind == Kind::File && path.ends_with(b"/") {
            kind = Kind::Dir;
        }
        let stated = number(header, field::SIZE, "size")?;
        let size = match kind {
            Kind::File => extensions.size.unwrap_or(stated),
            _ => 0,
        };
        self.begin(size);
        let small = |at, what| {
            number(header, at, what)
                .and_then(|n| u32::try_from(n).map_err(|_| TarError::Number(what)))
        };
        let mtime = || {
            let seconds = number(header, field::MTIME, "time")?;
            let seconds = i64::try_from(seconds).map_err(|_| TarError::Number("time"))?;
            Ok((seconds, 0))
        };
        let is_device = matches!(kind, Kind::Char | Kind::Block);
        Ok(Entry {
            kind,
            path,
            link: extensions
                .link
                .unwrap_or_else(|| until_nul(&header[field::LINK])),
            mode: small(field::MODE, "mode")? & 0o7777,
            uid: extensions
                .uid
                .map_or_else(|| small(field::UID, "uid"), Ok)?,
            gid: extensions
                .gid
                .map_or_else(|| small(field::GID, "gid"), Ok)?,
            mtime: extensions.mtime.map_or_else(mtime, Ok)?,
            size,
            device: match is_device {
                true => (
                    small(field::MAJOR, "device number")?,
                    small(field::MINOR, "device number")?,
                ),
                false => (0, 0),
            },
            xattrs: extensions.xattrs,
        })
    }
}

impl Extensions {
    fn parse(&mut self, mut text: &[u8]) -> Result<(), TarError> {
        while !text.is_empty() {
            let blank = text.iter().position(|&byte| byte == b' ');
            let blank = blank.ok_or(TarError::Pax)?;
            let length = decimal(&text[..blank]).ok_or(TarError::Pax)?;
            let length = usize::try_from(length).map_err(|_| TarError::Pax)?;
            let record = text.get(blank + 1..length).ok_or(TarError::Pax)?;
            text = &text[length..];
            let record = record.strip_suffix(b"\n").ok_or(TarError::Pax)?;
            let equals = record.iter().position(|&byte| byte == b'=');
            let equals = equals.ok_or(TarError::Pax)?;
            self.take(&record[..equals], &record[equals + 1..])?;
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        let id = || {
            let id = decimal(value).and_then(|id| u32::try_from(id).ok());
            id.ok_or(TarError::Pax)
        };
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value).ok_or(TarError::Pax)?),
            b"uid" => self.uid = Some(id()?),
            b"gid" => self.gid = Some(id()?),
            b"mtime" => self.mtime = Some(time(value).ok_or(TarError::Pax)?),
            _ if key.starts_with(b"GNU.sparse.") => return Err(TarError::Kind(b'S')),
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

fn read(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, TarError> {
    loop {
        match input.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map_err(TarError::Read),
        }
    }
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.iter().position(|&byte| byte == 0);
    bytes[..end.unwrap_or(bytes.len())].to_vec()
}

fn name(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&header[field::NAME]);
    let posix = &header[field::MAGIC][..6] == b"ustar\0";
    let prefix = until_nul(&header[field::PREFIX]);
    // GNU's format has other things there.
    if posix && !prefix.is_empty() {
        return [&prefix[..], b"/", &name].concat();
    }
    name
}

/// A number in octal, or in GNU's base 256.
fn number(header: &[u8; BLOCK], at: Range<usize>, what: &'static str) -> Result<u64, TarError> {
    let bad = || TarError::Number(what);
    let bytes = &header[at];
    if bytes[0] & 0x80 != 0 {
        // Negative ones are times before 1970, which nobody needs to keep.
        if bytes[0] & 0x40 != 0 {
            return Ok(0);
        }
        let first = u64::from(bytes[0] & 0x3f);
        return bytes[1..].iter().try_fold(first, |sum, &byte| {
            let sum = sum.checked_mul(256).ok_or_else(bad)?;
            Ok(sum | u64::from(byte))
        });
    }
    let text = bytes
        .iter()
        .skip_while(|&&byte| byte == b' ')
        .take_while(|&&byte| byte != 0 && byte != b' ');
    text.copied().try_fold(0u64, |sum, byte| match byte {
        b'0'..=b'7' => sum
            .checked_mul(8)
            .map(|sum| sum + u64::from(byte - b'0'))
            .ok_or_else(bad),
        _ => Err(bad()),
    })
}

fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A decimal fraction of seconds.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = whole.starts_with('-');
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    match (negative, nanos) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        _ => Some((seconds, nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writer::TarWriter;

    fn entry() -> Entry {
        Entry {
            kind: Kind::File,
            path: b"a/b".to_vec(),
            link: Vec::new(),
            mode: 0o6755,
            uid: 3_000_000,
            gid: u32::MAX - 1,
            mtime: (-7, 123_456_789),
            size: 5,
            device: (0, 0),
            xattrs: vec![(b"user.x".to_vec(), vec![0, 255, b'\n', b'='])],
        }
    }

    fn written(entries: &[Entry]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = TarWriter::new(&mut out);
        for entry in entries {
            writer.entry(entry).unwrap();
            writer.data(b"hello").unwrap();
        }
        writer.finish().unwrap();
        out
    }

    #[test]
    fn what_is_written_is_read() {
        let long = Entry {
            path: [b"\xff\xfe/".as_slice(), &[b'x'; 150]].concat(),
            mtime: (1, 0),
            xattrs: Vec::new(),
            ..entry()
        };
        let link = Entry {
            kind: Kind::Symlink,
            link: vec![b'l'; 200],
            size: 0,
            ..entry()
        };
        let device = Entry {
            kind: Kind::Char,
            device: (1, 300),
            size: 0,
            ..entry()
        };
        let all = [entry(), long, link, device];
        let bytes = written(&all);
        let mut reader = TarReader::new(&bytes[..]);
        for expected in &all {
            assert_eq!(reader.next_entry().unwrap().as_ref(), Some(expected));
            if expected.kind == Kind::File {
                let mut data = [0; 9];
                assert_eq!(reader.data(&mut data).unwrap(), 5);
                assert_eq!(&data[..5], b"hello");
            }
        }
        assert_eq!(reader.next_entry().unwrap(), None);
    }

    #[test]
    fn damaged_archives_are_errors_and_never_panics() {
        let whole = written(&[entry(), entry()]);
        for cut in 0..whole.len() {
            let mut reader = TarReader::new(&whole[..cut]);
            while let Ok(Some(_)) = reader.next_entry() {}
        }
        let mut refused = 0;
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            let mut reader = TarReader::new(&bytes[..]);
            loop {
                match reader.next_entry() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => {
                        refused += 1;
                        break;
                    }
                }
            }
        }
        assert!(refused > 500, "{refused}");
    }

    #[test]
    fn times_survive() {
        assert_eq!(time(b"-4.75"), Some((-5, 250_000_000)));
        assert_eq!(time(b"5"), Some((5, 0)));
        assert_eq!(time(b"5.1234567891"), Some((5, 123_456_789)));
        assert_eq!(time(b"-0.5"), Some((-1, 500_000_000)));
        assert_eq!(time(b"5.x"), None);
    }
}
