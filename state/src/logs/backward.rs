//! Reading a log file from its end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes that are read at once.
const BLOCK: usize = 64 * 1024;

/// The lines of a file, last one first.
pub(super) struct Backward<'a> {
    file: &'a File,
    /// Where `buffer` begins in the file.
    position: u64,
    /// What was read and not given yet; ends at a line's end.
    buffer: Vec<u8>,
}

impl<'a> Backward<'a> {
    /// Reads what comes before `end`.
    pub(super) fn new(file: &'a File, end: u64) -> Self {
        Self {
            file,
            position: end,
            buffer: Vec::new(),
        }
    }

    /// The line before, with its newline if it has one, and where it begins.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        // Everything from here on was searched.
        let mut searched = self.buffer.len().saturating_sub(1);
        loop {
            let newline = self.buffer[..searched].iter().rposition(|b| *b == b'\n');
            if let Some(at) = newline {
                let line = self.buffer.split_off(at + 1);
                return Ok(Some((self.position + at as u64 + 1, line)));
            }
            if self.position == 0 {
                let line = std::mem::take(&mut self.buffer);
                return Ok((!line.is_empty()).then_some((0, line)));
            }
            let take = self.position.min(BLOCK as u64);
            let mut block = vec![0; usize::try_from(take).unwrap_or(BLOCK)];
            self.file.read_exact_at(&mut block, self.position - take)?;
            self.position -= take;
            // The last byte of all ends the last line and is no end of one before.
            searched = block.len() - usize::from(self.buffer.is_empty());
            block.append(&mut self.buffer);
            self.buffer = block;
        }
    }
}
