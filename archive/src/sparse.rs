//! Files with holes: where their data is, and writing data back so that the holes stay.

use hullbox_tar::{Entry, MAX_SEGMENTS, TarError, TarReader};
use rustix::fd::AsFd;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::io::BufRead;

/// Holes that are together smaller than this, in bytes, are written as zeros: every tar program
/// can read those.
const WORTHWHILE: u64 = 64 * 1024;
/// Some filesystems tell of no holes or of large ones only: EROFS, what an image's files are on.
/// Where a file has at least this many bytes of data, a few places in them are looked at…
const LOOKED_AT: u64 = 1024 * 1024;
/// …this many, each…
const SAMPLES: u64 = 64;
/// …of this many bytes, and holes that are found by reading are as long at least.
const PIECE: u64 = 4096;
/// Bytes of a file that are read at a time.
const CHUNK: usize = 128 * 1024;

/// Offset and length of the pieces of data that a file is made of, for [`Entry::sparse`]. `None`
/// if it has no holes that are worth it. A hole at the end is followed by an empty piece, as GNU
/// tar writes it.
#[must_use]
pub fn map(file: impl AsFd, size: u64) -> Option<Vec<(u64, u64)>> {
    let mut map = reported_data(&file, size)?;
    let data = size - saved(&map, size);
    if data >= LOOKED_AT && has_zeros(&file, &map, data) {
        map = found(&file, &map, size)?;
    }
    (saved(&map, size) >= WORTHWHILE).then_some(map)
}

fn saved(map: &[(u64, u64)], size: u64) -> u64 {
    size - map.iter().map(|&(_, len)| len).sum::<u64>()
}

/// What the filesystem says. The file may change meanwhile, and a filesystem may say anything.
fn reported_data(file: &impl AsFd, size: u64) -> Option<Vec<(u64, u64)>> {
    let mut map = Map::default();
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole to the end.
            Err(Errno::NXIO) => break,
            Err(_) => return None,
        };
        if data >= size {
            break;
        }
        let end = rustix::fs::seek(file, SeekFrom::Hole(data)).ok()?.min(size);
        if data < at || end <= data {
            return None;
        }
        map.data(data, end);
        at = end;
    }
    Some(map.to(size))
}

/// Whether one in four of the places looked at is all zeros.
fn has_zeros(file: &impl AsFd, map: &[(u64, u64)], data: u64) -> bool {
    let mut zeros = 0;
    let mut buffer = [0; PIECE as usize];
    let mut pieces = map.iter();
    // The piece that is looked at, and how much data there is before it.
    let (mut offset, mut len, mut before) = (0, 0, 0);
    for sample in 0..SAMPLES {
        let wanted = data / SAMPLES * sample;
        while wanted >= before + len {
            before += len;
            let Some(next) = pieces.next() else { break };
            (offset, len) = *next;
        }
        let at = (offset + (wanted - before)) / PIECE * PIECE;
        let read = rustix::io::pread(file, &mut buffer, at).unwrap_or(0);
        zeros += u64::from(read > 0 && is_zero(&buffer[..read]));
    }
    zeros * 4 >= SAMPLES
}

/// What reading all of the data finds.
fn found(file: &impl AsFd, reported: &[(u64, u64)], size: u64) -> Option<Vec<(u64, u64)>> {
    let mut map = Map::default();
    let mut buffer = vec![0; CHUNK];
    for &(offset, len) in reported {
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let room = &mut buffer[..left.min(CHUNK)];
            let read = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *room, at));
            let read = read.ok().filter(|&read| read > 0)?;
            for piece in room[..read].chunks(PIECE as usize) {
                let next = at + piece.len() as u64;
                if !is_zero(piece) {
                    map.data(at, next);
                }
                at = next;
            }
        }
    }
    Some(map.to(size))
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// Pieces of data in order.
#[derive(Default)]
struct Map(Vec<(u64, u64)>);

impl Map {
    fn data(&mut self, start: u64, end: u64) {
        // One is left for the end; a file with more holes than anybody reads keeps the first.
        let full = self.0.len() + 1 >= MAX_SEGMENTS;
        match self.0.last_mut() {
            Some((offset, len)) if *offset + *len == start || full => *len = end - *offset,
            _ => self.0.push((start, end - start)),
        }
    }

    fn to(mut self, size: u64) -> Vec<(u64, u64)> {
        let end = self.0.last().map_or(0, |&(offset, len)| offset + len);
        if end < size {
            self.0.push((size, 0));
        }
        self.0
    }
}

/// Why a file was not received.
#[derive(Debug)]
pub enum Receiving {
    /// The archive.
    Tar(TarError),
    /// The file.
    Write(Errno),
}

/// Writes the data of the entry that `tar` is at into a new, empty file. What the archive has no
/// data for stays a hole.
///
/// # Errors
/// [`Receiving`].
pub fn receive(
    file: impl AsFd,
    entry: &Entry,
    tar: &mut TarReader<impl BufRead>,
) -> Result<(), Receiving> {
    let whole = [(0, entry.size)];
    for &(offset, len) in entry.sparse.as_deref().unwrap_or(&whole) {
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let bytes = tar.fill_data().map_err(Receiving::Tar)?;
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let piece = &bytes[..bytes.len().min(left)];
            if piece.is_empty() {
                return Err(Receiving::Tar(TarError::Truncated));
            }
            let written = rustix::io::retry_on_intr(|| rustix::io::pwrite(&file, piece, at));
            let written = written.map_err(Receiving::Write)?;
            tar.consume_data(written);
            at += written as u64;
        }
    }
    match &entry.sparse {
        Some(_) => rustix::fs::ftruncate(&file, entry.size).map_err(Receiving::Write),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write as _;
    use std::os::unix::fs::FileExt;

    #[test]
    fn holes_are_told_and_the_end_is_marked() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 << 30).unwrap();
        file.write_all_at(&[1; 4096], 1 << 30).unwrap();
        let map = map(&file, 4 << 30).unwrap();
        assert_eq!(map, [(1 << 30, 4096), (4 << 30, 0)]);
        let hole = tempfile::tempfile().unwrap();
        hole.set_len(1 << 40).unwrap();
        assert_eq!(super::map(&hole, 1 << 40).unwrap(), [(1 << 40, 0)]);
    }

    #[test]
    fn plain_files_and_small_holes_stay_plain() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 2 << 20]).unwrap();
        assert_eq!(map(&file, 2 << 20), None);
        let small: File = tempfile::tempfile().unwrap();
        small.set_len(4096).unwrap();
        assert_eq!(map(&small, 4096), None);
        assert_eq!(map(&small, 0), None);
    }

    #[test]
    fn zeros_that_no_filesystem_tells_of_are_found() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[0; 2 << 20]).unwrap();
        file.write_all_at(&[1], (1 << 20) + 1).unwrap();
        assert_eq!(
            map(&file, 2 << 20).unwrap(),
            [(1 << 20, 4096), (2 << 20, 0)]
        );
    }

    #[test]
    fn more_holes_than_can_be_read_are_not_written() {
        let mut map = Map::default();
        for at in 0..MAX_SEGMENTS as u64 + 10 {
            map.data(at * 10, at * 10 + 1);
        }
        let end = (MAX_SEGMENTS as u64 + 10) * 10;
        let map = map.to(end);
        assert_eq!(map.len(), MAX_SEGMENTS);
        assert_eq!(map.last(), Some(&(end, 0)));
        assert_eq!(saved(&map, end), MAX_SEGMENTS as u64 * 9 - 18 + 9);
    }
}
