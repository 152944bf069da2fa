//! Writing a tar stream.

use crate::format::{BLOCK, Entry, Kind, XATTR, checksum, field};
use std::io::{self, Write};
use std::ops::Range;

/// Writes entry after entry.
#[derive(Debug)]
pub(crate) struct TarWriter<W> {
    out: W,
    /// Bytes of the current entry that are still owed.
    owed: u64,
    padding: usize,
}

/// What goes into an extended header.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        // The length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + digits(length) != length {
            length = rest + digits(length);
        }
        self.0.extend_from_slice(length.to_string().as_bytes());
        for part in [b" ", key, b"=", value, b"\n"] {
            self.0.extend_from_slice(part);
        }
    }
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

struct Header([u8; BLOCK]);

impl Header {
    fn new(kind: u8) -> Self {
        let mut header = [0; BLOCK];
        header[field::KIND] = kind;
        header[field::MAGIC].copy_from_slice(b"ustar\x0000");
        Self(header)
    }

    /// A number in octal, or `false` if it does not fit.
    fn number(&mut self, at: Range<usize>, value: u64) -> bool {
        let width = at.len() - 1;
        let text = format!("{value:0width$o}");
        let fits = text.len() == width;
        let text = if fits { text } else { "0".repeat(width) };
        self.0[at][..width].copy_from_slice(text.as_bytes());
        fits
    }

    /// As much of a text as fits. `false` if that is not all.
    fn text(&mut self, at: Range<usize>, value: &[u8]) -> bool {
        let length = value.len().min(at.len());
        self.0[at][..length].copy_from_slice(&value[..length]);
        length == value.len()
    }

    fn finish(mut self) -> [u8; BLOCK] {
        let text = format!("{:06o}\0 ", checksum(&self.0));
        self.0[field::CHECKSUM].copy_from_slice(text.as_bytes());
        self.0
    }
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            owed: 0,
            padding: 0,
        }
    }

    /// Writes an entry's header. `entry.size` bytes of [`Self::data`] must follow.
    pub(crate) fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.complete()?;
        let (header, records) = header_of(entry);
        if !records.0.is_empty() {
            self.extended(&records.0)?;
        }
        self.out.write_all(&header)?;
        self.owe(if entry.kind == Kind::File {
            entry.size
        } else {
            0
        });
        Ok(())
    }

    /// Writes file data, no more than is owed. Gives what is still owed.
    pub(crate) fn data(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let length = usize::try_from(self.owed).map_or(bytes.len(), |owed| owed.min(bytes.len()));
        self.out.write_all(&bytes[..length])?;
        self.owed -= length as u64;
        Ok(self.owed)
    }

    /// The end of the archive.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.complete()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()
    }

    fn owe(&mut self, size: u64) {
        self.owed = size;
        let over = (size % BLOCK as u64) as usize;
        self.padding = (BLOCK - over) % BLOCK;
    }

    /// What an entry is short of is zeros, so that the archive stays one.
    fn complete(&mut self) -> io::Result<()> {
        let zeros = [0; 8 * BLOCK];
        while self.owed > 0 {
            self.data(&zeros)?;
        }
        let padding = std::mem::take(&mut self.padding);
        self.out.write_all(&zeros[..padding])
    }

    fn extended(&mut self, records: &[u8]) -> io::Result<()> {
        let mut header = Header::new(b'x');
        header.text(field::NAME, b"PaxHeaders");
        header.number(field::MODE, 0o644);
        header.number(field::SIZE, records.len() as u64);
        for zero in [field::UID, field::GID, field::MTIME] {
            header.number(zero, 0);
        }
        self.out.write_all(&header.finish())?;
        self.owe(records.len() as u64);
        self.data(records)?;
        self.complete()
    }
}

fn header_of(entry: &Entry) -> ([u8; BLOCK], Records) {
    let mut header = Header::new(entry.kind.flag());
    let mut records = Records::default();
    if !header.text(field::NAME, &entry.path) {
        records.add(b"path", &entry.path);
    }
    if !header.text(field::LINK, &entry.link) {
        records.add(b"linkpath", &entry.link);
    }
    header.number(field::MODE, u64::from(entry.mode & 0o7777));
    for (at, key, value) in [
        (field::UID, &b"uid"[..], entry.uid),
        (field::GID, &b"gid"[..], entry.gid),
    ] {
        if !header.number(at, u64::from(value)) {
            records.add(key, value.to_string().as_bytes());
        }
    }
    let size = if entry.kind == Kind::File {
        entry.size
    } else {
        0
    };
    if !header.number(field::SIZE, size) {
        records.add(b"size", size.to_string().as_bytes());
    }
    let (seconds, nanos) = entry.mtime;
    let plain = u64::try_from(seconds).is_ok_and(|s| header.number(field::MTIME, s));
    if !plain {
        header.number(field::MTIME, 0);
    }
    if !plain || nanos > 0 {
        records.add(b"mtime", time(seconds, nanos).as_bytes());
    }
    if matches!(entry.kind, Kind::Char | Kind::Block) {
        header.number(field::MAJOR, u64::from(entry.device.0));
        header.number(field::MINOR, u64::from(entry.device.1));
    }
    for (name, value) in &entry.xattrs {
        records.add(&[XATTR, name].concat(), value);
    }
    (header.finish(), records)
}

/// Seconds since 1970 as PAX writes them: a decimal fraction, the sign in front of it all.
fn time(seconds: i64, nanos: u32) -> String {
    let (sign, seconds, nanos) = match (seconds, nanos) {
        (0.., _) => ("", seconds.unsigned_abs(), nanos),
        (_, 0) => ("-", seconds.unsigned_abs(), 0),
        (_, nanos) => (
            "-",
            seconds.unsigned_abs() - 1,
            1_000_000_000u32.saturating_sub(nanos),
        ),
    };
    let fraction = format!("{nanos:09}");
    match fraction.trim_end_matches('0') {
        "" => format!("{sign}{seconds}"),
        fraction => format!("{sign}{seconds}.{fraction}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_decimal_fractions() {
        assert_eq!(time(5, 0), "5");
        assert_eq!(time(5, 120_000_000), "5.12");
        assert_eq!(time(-5, 0), "-5");
        // A quarter after the fifth second before.
        assert_eq!(time(-5, 250_000_000), "-4.75");
    }

    #[test]
    fn record_lengths_count_themselves() {
        for length in [1, 85, 86, 90, 91, 92, 980, 985, 990, 995] {
            let mut records = Records::default();
            records.add(b"path", &vec![b'x'; length]);
            let text = String::from_utf8(records.0).unwrap();
            let (stated, _) = text.split_once(' ').unwrap();
            assert_eq!(stated.parse::<usize>().unwrap(), text.len());
        }
    }
}
