//! Writing tars: ustar, with PAX headers for what does not fit, sparse files among it.

use super::exact::ExactWriter;
use super::header::BLOCK;
use super::{Entry, Kind};
use std::io::{self, Write};
use std::ops::Range;

/// Key of an extended attribute, before the attribute's name.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// Byte ranges of a header's fields (POSIX.1-1988, "ustar").
mod field {
    use std::ops::Range;
    pub(super) const NAME: Range<usize> = 0..100;
    pub(super) const MODE: Range<usize> = 100..108;
    pub(super) const UID: Range<usize> = 108..116;
    pub(super) const GID: Range<usize> = 116..124;
    pub(super) const SIZE: Range<usize> = 124..136;
    pub(super) const MTIME: Range<usize> = 136..148;
    pub(super) const CHECKSUM: Range<usize> = 148..156;
    pub(super) const KIND: usize = 156;
    pub(super) const LINK: Range<usize> = 157..257;
    pub(super) const MAGIC: Range<usize> = 257..265;
    pub(super) const MAJOR: Range<usize> = 329..337;
    pub(super) const MINOR: Range<usize> = 337..345;
}

/// Writes entry after entry. A file's stored bytes are written to it after its entry, as many as
/// the entry says: fewer or more are an error.
#[derive(Debug)]
pub struct TarWriter<W> {
    /// Expects what the current entry has.
    out: ExactWriter<W>,
    padding: usize,
}

impl<W: Write> TarWriter<W> {
    /// A tar that goes to `out`.
    pub const fn new(out: W) -> Self {
        Self {
            out: ExactWriter::new(out, 0),
            padding: 0,
        }
    }

    /// Begins an entry. [`Entry::stored`] bytes of data must follow.
    ///
    /// # Errors
    /// If writing fails, or bytes of the entry before are missing.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.end_entry()?;
        let map = match &entry.sparse {
            Some(map) if entry.kind == Kind::File => map_text(map),
            _ => Vec::new(),
        };
        let size = entry.stored() + map.len() as u64;
        let (header, records) = header_of(entry, size);
        if !records.0.is_empty() {
            self.extended(&records.0)?;
        }
        self.out.inner_mut().write_all(&header)?;
        self.out.inner_mut().write_all(&map)?;
        self.expect(entry.stored());
        Ok(())
    }

    /// Bytes of the current entry that are still to be written.
    pub const fn left(&self) -> u64 {
        self.out.left()
    }

    /// What the current entry is short of becomes zeros, so that the archive stays one.
    ///
    /// # Errors
    /// If writing fails.
    pub fn fill_up(&mut self) -> io::Result<()> {
        let zeros = [0; 8 * BLOCK];
        while self.left() > 0 {
            let len = usize::try_from(self.left()).map_or(zeros.len(), |n| n.min(zeros.len()));
            self.write_all(&zeros[..len])?;
        }
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// If writing fails, or bytes of the last entry are missing.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_entry()?;
        let mut out = self.out.finish()?;
        out.write_all(&[0; 2 * BLOCK])?;
        Ok(out)
    }

    fn expect(&mut self, size: u64) {
        self.out.expect(size);
        // Less than a block.
        self.padding = (size.next_multiple_of(BLOCK as u64) - size) as usize;
    }

    fn end_entry(&mut self) -> io::Result<()> {
        self.out.check_complete()?;
        let padding = std::mem::take(&mut self.padding);
        self.out.inner_mut().write_all(&[0; BLOCK][..padding])
    }

    fn extended(&mut self, records: &[u8]) -> io::Result<()> {
        let mut header = Header::new(b'x');
        header.text(field::NAME, b"PaxHeaders");
        header.number(field::MODE, 0o644);
        header.number(field::SIZE, records.len() as u64);
        for zero in [field::UID, field::GID, field::MTIME] {
            header.number(zero, 0);
        }
        self.out.inner_mut().write_all(&header.finish())?;
        self.expect(records.len() as u64);
        self.write_all(records)?;
        self.end_entry()
    }
}

impl<W: Write> Write for TarWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What goes into an extended header.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    /// `LENGTH KEY=VALUE\n`, where the length counts itself.
    fn add(&mut self, key: &[u8], value: &[u8]) {
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
        // The field itself counts as blanks.
        self.0[field::CHECKSUM].fill(b' ');
        let sum: u64 = self.0.iter().map(|&byte| u64::from(byte)).sum();
        self.0[field::CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

fn header_of(entry: &Entry, size: u64) -> ([u8; BLOCK], Records) {
    let mut header = Header::new(flag(entry.kind));
    let mut records = Records::default();
    match &entry.sparse {
        Some(_) if entry.kind == Kind::File => {
            header.text(field::NAME, &sparse_name(&entry.path));
            records.add(b"GNU.sparse.major", b"1");
            records.add(b"GNU.sparse.minor", b"0");
            records.add(b"GNU.sparse.name", &entry.path);
            records.add(b"GNU.sparse.realsize", entry.size.to_string().as_bytes());
        }
        _ if header.text(field::NAME, &entry.path) => {}
        _ => records.add(b"path", &entry.path),
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

const fn flag(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::Char => b'3',
        Kind::Block => b'4',
        Kind::Dir => b'5',
        Kind::Fifo => b'6',
    }
}

/// The map as it precedes the data: decimal lines, padded to a block.
fn map_text(map: &[(u64, u64)]) -> Vec<u8> {
    let mut text = format!("{}\n", map.len()).into_bytes();
    for (offset, len) in map {
        text.extend_from_slice(format!("{offset}\n{len}\n").as_bytes());
    }
    text.resize(text.len().next_multiple_of(BLOCK), 0);
    text
}

/// What readers without sparse files call the entry, as GNU tar has it: the map comes first in
/// its data, so it must not be taken for the file.
fn sparse_name(path: &[u8]) -> Vec<u8> {
    let name = path.iter().rposition(|&byte| byte == b'/');
    let (directory, name) = path.split_at(name.map_or(0, |slash| slash + 1));
    [directory, b"GNUSparseFile.0/", name].concat()
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
    use crate::{MAX_HEADER_BYTES, TarReader};

    fn file() -> Entry {
        Entry {
            path: b"a/b".to_vec(),
            mode: 0o6755,
            uid: 3_000_000,
            gid: u32::MAX - 1,
            mtime: (-7, 123_456_789),
            size: 5,
            xattrs: vec![(b"user.x".to_vec(), vec![0, 255, b'\n', b'='])],
            ..Entry::of(Kind::File)
        }
    }

    fn written(entries: &[Entry]) -> Vec<u8> {
        let mut tar = TarWriter::new(Vec::new());
        for entry in entries {
            tar.entry(entry).unwrap();
            let data = vec![b'd'; usize::try_from(entry.stored()).unwrap()];
            tar.write_all(&data).unwrap();
        }
        tar.finish().unwrap()
    }

    fn reader(bytes: &[u8]) -> TarReader<&[u8]> {
        TarReader::new(bytes, MAX_HEADER_BYTES)
    }

    #[test]
    fn what_is_written_is_read() {
        let long = Entry {
            path: [b"\xff\xfe/".as_slice(), &[b'x'; 150]].concat(),
            mtime: (1, 0),
            xattrs: Vec::new(),
            ..file()
        };
        let link = Entry {
            link: vec![b'l'; 200],
            mtime: (i64::from(u32::MAX) * 4, 0),
            ..Entry::of(Kind::Symlink)
        };
        let device = Entry {
            device: (1, 300),
            ..Entry::of(Kind::Char)
        };
        let sparse = Entry {
            path: [b"d/".as_slice(), &[b's'; 150]].concat(),
            size: 1 << 40,
            sparse: Some(vec![(0, 700), (1 << 39, 4096), (1 << 40, 0)]),
            ..file()
        };
        let hole = Entry {
            size: 1 << 33,
            sparse: Some(vec![(1 << 33, 0)]),
            ..file()
        };
        let all = [file(), long, link, device, sparse, hole];
        let bytes = written(&all);
        let mut reader = reader(&bytes);
        for expected in &all {
            assert_eq!(reader.next_entry().unwrap().as_ref(), Some(expected));
            let mut data = vec![0; 8192];
            let mut read = 0;
            while let len @ 1.. = reader.read_data(&mut data[read..]).unwrap() {
                read += len;
            }
            assert_eq!(read as u64, expected.stored());
            assert!(data[..read].iter().all(|&byte| byte == b'd'));
        }
        assert_eq!(reader.next_entry().unwrap(), None);
        assert!(reader.ended());
    }

    #[test]
    fn as_many_bytes_as_announced() {
        let mut tar = TarWriter::new(Vec::new());
        tar.entry(&file()).unwrap();
        assert!(tar.write_all(&[1; 6]).is_err(), "more");
        assert!(tar.entry(&file()).is_err(), "fewer");
        tar.fill_up().unwrap();
        tar.entry(&file()).unwrap();
        assert!(tar.finish().is_err(), "fewer at the end");
    }

    #[test]
    fn large_files_have_their_size_said_in_decimal() {
        let huge = Entry {
            size: 1 << 33,
            ..Entry::of(Kind::File)
        };
        assert_eq!(header_of(&huge, huge.size).1.0, b"19 size=8589934592\n");
    }

    #[test]
    fn damaged_archives_are_errors_and_never_panics() {
        let whole = written(&[file(), file()]);
        for cut in 0..whole.len() {
            let mut reader = reader(&whole[..cut]);
            while let Ok(Some(_)) = reader.next_entry() {}
        }
        let mut refused = 0;
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            let mut reader = reader(&bytes);
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
