//! Writing tars: ustar, with PAX headers for what does not fit.

use super::Kind;
use super::header::BLOCK;
use std::io::{self, Write};

/// An entry to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewEntry<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub path: &'a [u8],
    /// Target of a link.
    pub link: &'a [u8],
    /// Permissions.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Bytes that will follow; only files have any.
    pub size: u64,
}

impl NewEntry<'_> {
    /// An entry of root's without a name, from 1970.
    #[must_use]
    pub const fn of(kind: Kind) -> Self {
        Self {
            kind,
            path: b"",
            link: b"",
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: 0,
            size: 0,
        }
    }
}

/// Writes entry after entry. A file's bytes are written to it after its entry, as many as were
/// announced: fewer or more are an error.
#[derive(Debug)]
pub struct TarWriter<W> {
    out: W,
    /// Bytes of the current entry still to come.
    left: u64,
    padding: usize,
}

impl<W: Write> TarWriter<W> {
    /// A tar that goes to `out`.
    pub const fn new(out: W) -> Self {
        Self {
            out,
            left: 0,
            padding: 0,
        }
    }

    /// Begins an entry.
    ///
    /// # Errors
    /// If writing fails, or bytes of the entry before are missing.
    pub fn entry(&mut self, entry: &NewEntry<'_>) -> io::Result<()> {
        self.end_entry()?;
        let pax = pax(entry);
        if !pax.is_empty() {
            let mut header = [0; BLOCK];
            header[..11].copy_from_slice(b"@PaxHeaders");
            self.header(&mut header, b'x', pax.len() as u64, entry)?;
            self.out.write_all(&pax)?;
            self.out
                .write_all(&[0; BLOCK][..padding(pax.len() as u64)])?;
        }
        let mut header = [0; BLOCK];
        put(&mut header, 0..100, entry.path);
        put(&mut header, 157..257, entry.link);
        let size = if entry.kind == Kind::File {
            entry.size
        } else {
            0
        };
        self.header(&mut header, flag(entry.kind), size, entry)?;
        self.left = size;
        self.padding = padding(size);
        Ok(())
    }

    fn header(
        &mut self,
        header: &mut [u8; BLOCK],
        kind: u8,
        size: u64,
        entry: &NewEntry<'_>,
    ) -> io::Result<()> {
        put(header, 100..107, &octal(u64::from(entry.mode) & 0o7777, 7));
        put(header, 108..115, &octal(entry.uid.into(), 7));
        put(header, 116..123, &octal(entry.gid.into(), 7));
        put(header, 124..135, &octal(size, 11));
        let mtime = u64::try_from(entry.mtime).unwrap_or(0);
        put(header, 136..147, &octal(mtime, 11));
        header[156] = kind;
        put(header, 257..265, b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
        put(header, 148..156, format!("{sum:06o}\0 ").as_bytes());
        self.out.write_all(header)
    }

    fn end_entry(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.out.write_all(&[0; BLOCK][..self.padding])?;
        self.padding = 0;
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// If writing fails, or bytes of the last entry are missing.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_entry()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }
}

impl<W: Write> Write for TarWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let len = self.out.write(bytes)?;
        self.left -= len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

const fn padding(size: u64) -> usize {
    // Less than a block.
    (size.next_multiple_of(BLOCK as u64) - size) as usize
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

/// As much of a field as fits.
fn put(header: &mut [u8; BLOCK], field: std::ops::Range<usize>, bytes: &[u8]) {
    let len = field.len().min(bytes.len());
    header[field.start..field.start + len].copy_from_slice(&bytes[..len]);
}

/// Octal digits; a number with more of them is in the PAX header.
fn octal(number: u64, digits: usize) -> Vec<u8> {
    if number >> (3 * digits) == 0 {
        format!("{number:0digits$o}").into_bytes()
    } else {
        vec![b'7'; digits]
    }
}

/// The records for what the plain header cannot say.
fn pax(entry: &NewEntry<'_>) -> Vec<u8> {
    let mut records = Vec::new();
    if entry.path.len() > 100 {
        record(&mut records, "path", entry.path);
    }
    if entry.link.len() > 100 {
        record(&mut records, "linkpath", entry.link);
    }
    for (key, id) in [("uid", entry.uid), ("gid", entry.gid)] {
        if id >> 21 != 0 {
            record(&mut records, key, id.to_string().as_bytes());
        }
    }
    if entry.kind == Kind::File && entry.size >> 33 != 0 {
        record(&mut records, "size", entry.size.to_string().as_bytes());
    }
    if !(0..1 << 33).contains(&entry.mtime) {
        record(&mut records, "mtime", entry.mtime.to_string().as_bytes());
    }
    records
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    records.extend_from_slice(format!("{len} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::tar::TarReader;

    #[test]
    fn what_is_written_is_read() {
        let long = vec![b'p'; 300];
        let mut tar = TarWriter::new(Vec::new());
        let first = NewEntry {
            path: b"file",
            mode: 0o4755,
            uid: 3_000_000,
            gid: 5,
            mtime: -7,
            size: 700,
            ..NewEntry::of(Kind::File)
        };
        tar.entry(&first).unwrap();
        tar.write_all(&[1; 700]).unwrap();
        assert!(tar.write_all(&[1]).is_err(), "more than announced");
        let second = NewEntry {
            path: &long,
            link: &long,
            ..NewEntry::of(Kind::Symlink)
        };
        tar.entry(&second).unwrap();
        let bytes = tar.finish().unwrap();
        let mut reader = TarReader::new(&bytes[..], &Limits::default());
        let entry = reader.next_entry().unwrap().unwrap();
        assert_eq!((entry.kind, &entry.path[..]), (Kind::File, &b"file"[..]));
        assert_eq!((entry.mode, entry.uid, entry.gid), (0o4755, 3_000_000, 5));
        assert_eq!((entry.mtime, entry.size), ((-7, 0), 700));
        let entry = reader.next_entry().unwrap().unwrap();
        assert_eq!((entry.kind, entry.path), (Kind::Symlink, long.clone()));
        assert_eq!(entry.link, long);
        assert!(reader.next_entry().unwrap().is_none());
        assert!(reader.ended());
    }

    #[test]
    fn large_files_have_their_size_said_in_decimal() {
        let huge = NewEntry {
            path: b"huge",
            size: 1 << 33,
            ..NewEntry::of(Kind::File)
        };
        let mut tar = TarWriter::new(Vec::new());
        tar.entry(&huge).unwrap();
        assert!(tar.finish().is_err(), "its bytes are missing");
        assert_eq!(pax(&huge), b"19 size=8589934592\n");
    }
}
