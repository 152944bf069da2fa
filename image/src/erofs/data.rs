//! Where bytes go while a tar streams by: whole blocks to their final place, short tails to a
//! spool until it is known which inode's block has room for them.

use super::format::BLOCK_SIZE;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes gathered before a write.
const BUFFER: usize = 256 * 1024;

/// Appends whole blocks to an image. Blocks of zeros become holes of the file.
#[derive(Debug)]
pub(crate) struct DataWriter {
    file: File,
    buffer: Vec<u8>,
    /// Where the buffer goes: a multiple of the block size.
    offset: u64,
}

impl DataWriter {
    /// Appends from this block on.
    pub(crate) fn new(file: File, first_block: u32) -> Self {
        Self {
            file,
            buffer: Vec::with_capacity(BUFFER),
            offset: u64::from(first_block) * BLOCK_SIZE as u64,
        }
    }

    /// Bytes from the start of the file to here.
    pub(crate) fn position(&self) -> u64 {
        self.offset + self.buffer.len() as u64
    }

    /// The block that comes next, after padding the one before.
    pub(crate) fn next_block(&mut self) -> io::Result<u32> {
        let padded = self.buffer.len().next_multiple_of(BLOCK_SIZE);
        self.buffer.resize(padded, 0);
        self.drain_full()?;
        u32::try_from(self.position() / BLOCK_SIZE as u64)
            .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))
    }

    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = BUFFER - self.buffer.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            self.drain_full()?;
            bytes = later;
        }
        Ok(())
    }

    /// Appends this many zeros without touching the disk for whole blocks of them.
    pub(crate) fn zeros(&mut self, count: u64) -> io::Result<()> {
        const ZEROS: [u8; BLOCK_SIZE] = [0; BLOCK_SIZE];
        let block = BLOCK_SIZE as u64;
        let to_boundary = count.min(self.position().next_multiple_of(block) - self.position());
        let rest = count - to_boundary;
        self.write(&ZEROS[..usize::try_from(to_boundary).unwrap_or(0)])?;
        if rest >= block {
            self.flush()?;
            self.offset = self
                .offset
                .checked_add(rest - rest % block)
                .ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
        }
        self.write(&ZEROS[..usize::try_from(rest % block).unwrap_or(0)])
    }

    fn drain_full(&mut self) -> io::Result<()> {
        if self.buffer.len() == BUFFER {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes the buffer, which must hold whole blocks unless it is the end of everything.
    fn flush(&mut self) -> io::Result<()> {
        let mut at = 0;
        while at < self.buffer.len() {
            let rest = &self.buffer[at..];
            let zeros = run(rest, true);
            let data = run(&rest[zeros..], false);
            if data > 0 {
                let offset = self.offset + (at + zeros) as u64;
                self.file.write_all_at(&rest[zeros..zeros + data], offset)?;
            }
            at += zeros + data;
        }
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Reads back what was written.
    pub(crate) fn read_at(&mut self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        if offset + bytes.len() as u64 > self.offset {
            self.next_block()?;
            self.flush()?;
        }
        // What lies past the end of the file is a hole not yet given a length.
        let mut done = 0;
        while done < bytes.len() {
            match self
                .file
                .read_at(&mut bytes[done..], offset + done as u64)?
            {
                0 => {
                    bytes[done..].fill(0);
                    break;
                }
                len => done += len,
            }
        }
        Ok(())
    }

    /// Pads to a whole block, writes everything and gives the file its length.
    pub(crate) fn finish(mut self) -> io::Result<(File, u32)> {
        let blocks = self.next_block()?;
        self.flush()?;
        self.file.set_len(self.offset)?;
        Ok((self.file, blocks))
    }
}

/// Bytes of whole blocks at the start of `bytes` that are all zero, or that all are not.
fn run(bytes: &[u8], zero: bool) -> usize {
    bytes
        .chunks(BLOCK_SIZE)
        .take_while(|block| block.iter().all(|&b| b == 0) == zero)
        .map(<[u8]>::len)
        .sum()
}

/// Short pieces of data, link targets and lists of chunks, by position, until they find their inode.
#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    buffer: Vec<u8>,
    offset: u64,
}

/// Positions count these.
const UNIT: u64 = 4;

impl Spool {
    /// Appends at `offset`.
    pub(crate) fn new(file: File, offset: u64) -> Self {
        Self {
            file,
            buffer: Vec::with_capacity(BUFFER),
            offset,
        }
    }

    /// Bytes in it.
    pub(crate) fn position(&self) -> u64 {
        self.offset + self.buffer.len() as u64
    }

    /// Keeps a piece and what its inode has for an address (the block the file's other data begins
    /// at, or the form of its chunks); answers where.
    pub(crate) fn put(&mut self, address: u32, piece: &[u8]) -> io::Result<u32> {
        let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let position = u32::try_from(self.position() / UNIT).map_err(too_large)?;
        self.buffer.extend_from_slice(&address.to_le_bytes());
        self.buffer.extend_from_slice(piece);
        let padded = self.buffer.len().next_multiple_of(UNIT as usize);
        self.buffer.resize(padded, 0);
        if self.buffer.len() >= BUFFER {
            self.flush()?;
        }
        Ok(position)
    }

    /// A piece, and the address that was kept with it.
    pub(crate) fn get(&mut self, position: u32, piece: &mut [u8]) -> io::Result<u32> {
        let at = u64::from(position) * UNIT;
        if at + UNIT + piece.len() as u64 > self.offset {
            self.flush()?;
        }
        let mut block = [0; UNIT as usize];
        self.file.read_exact_at(&mut block, at)?;
        self.file.read_exact_at(piece, at + UNIT)?;
        Ok(u32::from_le_bytes(block))
    }

    /// Brings everything into the file.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
