//! Writer of initramfs archives: cpio, "newc" format (kernel: `Documentation/driver-api/
//! early-userspace/buffer-format.rst`).
//!
//! The kernel takes several archives one after the other, so what is written here can be
//! appended to the agent's own archive.

use cpio::newc::{Builder, ModeFileType, trailer};
use std::io::{self, Write};

/// Writes one archive. Every entry belongs to root and has no time, so equal input gives equal
/// bytes.
#[derive(Debug)]
pub struct CpioWriter<W: Write> {
    out: W,
    next_inode: u32,
}

impl<W: Write> CpioWriter<W> {
    /// Starts an archive.
    pub const fn new(out: W) -> Self {
        Self { out, next_inode: 1 }
    }

    /// Adds a directory. Parents must have been added before.
    ///
    /// # Errors
    /// Those of the writer below.
    pub fn directory(&mut self, name: &str, permissions: u32) -> io::Result<()> {
        let entry = self.entry(name, permissions, ModeFileType::Directory);
        self.write(entry.nlink(2), &[])
    }

    /// Adds a character device.
    ///
    /// # Errors
    /// Those of the writer below.
    pub fn device(&mut self, name: &str, permissions: u32, number: (u32, u32)) -> io::Result<()> {
        let entry = self.entry(name, permissions, ModeFileType::Char);
        self.write(entry.rdev_major(number.0).rdev_minor(number.1), &[])
    }

    /// Adds a regular file.
    ///
    /// # Errors
    /// Those of the writer below; `InvalidInput` for a file that the format cannot hold.
    pub fn file(&mut self, name: &str, permissions: u32, bytes: &[u8]) -> io::Result<()> {
        let entry = self.entry(name, permissions, ModeFileType::Regular);
        self.write(entry, bytes)
    }

    /// Ends the archive, padded so that another one can follow.
    ///
    /// # Errors
    /// Those of the writer below.
    pub fn finish(self) -> io::Result<W> {
        let mut out = trailer(self.out)?;
        out.flush()?;
        Ok(out)
    }

    fn entry(&mut self, name: &str, permissions: u32, kind: ModeFileType) -> Builder {
        let inode = self.next_inode;
        self.next_inode += 1;
        let entry = Builder::new(name).ino(inode).nlink(1);
        entry.mode(permissions).set_mode_file_type(kind)
    }

    fn write(&mut self, entry: Builder, bytes: &[u8]) -> io::Result<()> {
        let size = u32::try_from(bytes.len());
        let size = size.map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut writer = entry.write(&mut self.out, size);
        writer.write_all(bytes)?;
        writer.finish().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn entries_are_aligned_and_ended() {
        let mut cpio = CpioWriter::new(Vec::new());
        cpio.directory("d", 0o755).unwrap();
        cpio.file("d/abc", 0o644, b"12345").unwrap();
        let bytes = cpio.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"07070100000001000041ed"));
        assert!(bytes.windows(10).any(|w| w == b"TRAILER!!!"));
    }

    #[test]
    fn another_program_reads_it() {
        let mut cpio = CpioWriter::new(Vec::new());
        cpio.directory("machine", 0o755).unwrap();
        cpio.file("machine/list", 0o644, b"a.ko\n").unwrap();
        let bytes = cpio.finish().unwrap();
        let Ok(mut child) = Command::new("cpio")
            .args(["-t", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            return; // The program is not installed; the machine's own tests cover it.
        };
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.stdout, b"machine\nmachine/list\n");
    }
}
