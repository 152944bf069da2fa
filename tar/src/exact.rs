//! A writer that takes as many bytes as were announced.

use std::io::{self, Write};

/// Passes bytes on, and refuses more than it was told to expect.
#[derive(Debug)]
pub struct ExactWriter<W> {
    inner: W,
    /// Bytes still to come.
    left: u64,
}

impl<W: Write> ExactWriter<W> {
    /// A writer to `inner` that expects this many bytes.
    pub const fn new(inner: W, bytes: u64) -> Self {
        Self { inner, left: bytes }
    }

    /// Bytes that are still to be written.
    pub const fn left(&self) -> u64 {
        self.left
    }

    /// Ends it.
    ///
    /// # Errors
    /// `UnexpectedEof` if bytes are missing.
    pub fn finish(self) -> io::Result<W> {
        self.check_complete()?;
        Ok(self.inner)
    }

    /// Expects this many bytes from now on, whatever is left.
    pub(crate) const fn expect(&mut self, bytes: u64) {
        self.left = bytes;
    }

    pub(crate) fn check_complete(&self) -> io::Result<()> {
        match self.left {
            0 => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// What it writes to, for bytes that do not count.
    pub(crate) const fn inner_mut(&mut self) -> &mut W {
        &mut self.inner
    }
}

impl<W: Write> Write for ExactWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let len = self.inner.write(bytes)?;
        self.left -= len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_more_nor_less_is_taken() {
        let mut writer = ExactWriter::new(Vec::new(), 3);
        writer.write_all(b"ab").unwrap();
        let more = writer.write_all(b"cd").unwrap_err();
        assert_eq!(more.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(writer.left(), 1);
        let short = ExactWriter::new(Vec::new(), 1).finish().unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
        writer.write_all(b"c").unwrap();
        assert_eq!(writer.finish().unwrap(), b"abc");
    }
}
