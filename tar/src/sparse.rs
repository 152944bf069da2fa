//! Sparse files, in the four ways GNU tar has written them.

use super::header::{self, BLOCK, Header};
use super::pax::{Pax, decimal};
use super::{MAX_SEGMENTS, TarError, TarReader};
use std::io::BufRead;

/// Segments of data, and the size of the file they are in.
type Map = (Vec<(u64, u64)>, u64);

impl<R: BufRead> TarReader<R> {
    /// The map of the file whose data begins here, if it is sparse.
    pub(super) fn sparse_map(
        &mut self,
        header: &Header<'_>,
        pax: &mut Pax,
    ) -> Result<Option<Map>, TarError> {
        let keys = &mut pax.sparse;
        let map = if header.kind() == b'S' {
            self.old_map(header)?
        } else if (keys.major, keys.minor) == (Some(1), Some(0)) {
            let size = keys.real_size.ok_or(TarError::SparseMap("lacks a size"))?;
            (self.map_in_data()?, size)
        } else if let Some(map) = keys.map.take() {
            let size = keys.real_size.ok_or(TarError::SparseMap("lacks a size"))?;
            (map, size)
        } else if keys.major.is_some() {
            return Err(TarError::SparseMap("is of an unknown version"));
        } else {
            return Ok(None);
        };
        check(&map, self.data)?;
        Ok(Some(map))
    }

    /// Old GNU: four segments in the header, the rest in blocks after it, before the data.
    fn old_map(&mut self, header: &Header<'_>) -> Result<Map, TarError> {
        let (fields, mut more, size) = header.gnu_sparse()?;
        let mut map = Vec::new();
        fields.append_to(&mut map)?;
        while more {
            let mut block = [0; BLOCK];
            self.read_exact(&mut block)?;
            let (fields, again) = header::gnu_sparse_more(&block);
            fields.append_to(&mut map)?;
            if map.len() > MAX_SEGMENTS {
                return Err(TarError::SparseMap("has too many segments"));
            }
            more = again;
        }
        Ok((map, size))
    }

    /// PAX 1.0: the map is the first part of the data, in decimal lines, padded to a block.
    fn map_in_data(&mut self) -> Result<Vec<(u64, u64)>, TarError> {
        const BAD: TarError = TarError::SparseMap("is malformed");
        let mut lines = Lines::default();
        let count = lines.next(self)?;
        let count = usize::try_from(count).map_err(|_| BAD)?;
        if count > MAX_SEGMENTS {
            return Err(TarError::SparseMap("has too many segments"));
        }
        let mut map = Vec::new();
        for _ in 0..count {
            map.push((lines.next(self)?, lines.next(self)?));
        }
        Ok(map)
    }

    /// The next block of the current entry's data.
    fn data_block(&mut self) -> Result<[u8; BLOCK], TarError> {
        if self.data < BLOCK as u64 {
            return Err(TarError::SparseMap("is malformed"));
        }
        let mut block = [0; BLOCK];
        self.read_exact(&mut block)?;
        self.data -= BLOCK as u64;
        Ok(block)
    }
}

/// Decimal numbers, one a line, taken from whole blocks.
struct Lines {
    block: [u8; BLOCK],
    position: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            block: [0; BLOCK],
            position: BLOCK,
        }
    }
}

impl Lines {
    fn next<R: BufRead>(&mut self, tar: &mut TarReader<R>) -> Result<u64, TarError> {
        let mut digits = Vec::new();
        loop {
            if self.position == BLOCK {
                self.block = tar.data_block()?;
                self.position = 0;
            }
            let byte = self.block[self.position];
            self.position += 1;
            match byte {
                b'\n' => break,
                _ if digits.len() < 20 => digits.push(byte),
                _ => return Err(TarError::SparseMap("is malformed")),
            }
        }
        decimal(&digits).ok_or(TarError::SparseMap("is malformed"))
    }
}

/// Segments are in order, apart, within the file, and are exactly the stored bytes.
fn check((map, size): &Map, stored: u64) -> Result<(), TarError> {
    let mut end = 0u64;
    let mut total = 0u64;
    for &(offset, len) in map {
        if offset < end {
            return Err(TarError::SparseMap("has overlapping segments"));
        }
        end = offset
            .checked_add(len)
            .filter(|end| end <= size)
            .ok_or(TarError::SparseMap("reaches past the end of its file"))?;
        total += len;
    }
    if total == stored {
        Ok(())
    } else {
        Err(TarError::SparseMap("does not cover the stored bytes"))
    }
}
