//! Writer of initramfs archives: cpio, "newc" format (kernel: `Documentation/driver-api/
//! early-userspace/buffer-format.rst`).
//!
//! The kernel takes several archives one after the other, so what is written here can be
//! appended to the agent's own archive.

use std::io::{self, Write};

/// `S_IFREG`.
const REGULAR: u32 = 0o100_000;
/// `S_IFCHR`.
const CHARACTER_DEVICE: u32 = 0o020_000;
/// `S_IFDIR`.
const DIRECTORY: u32 = 0o040_000;

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
        self.entry(name, DIRECTORY | permissions, 2, (0, 0), &[])
    }

    /// Adds a character device.
    ///
    /// # Errors
    /// Those of the writer below.
    pub fn device(&mut self, name: &str, permissions: u32, number: (u32, u32)) -> io::Result<()> {
        self.entry(name, CHARACTER_DEVICE | permissions, 1, number, &[])
    }

    /// Adds a regular file.
    ///
    /// # Errors
    /// Those of the writer below; `InvalidInput` for a file that the format cannot hold.
    pub fn file(&mut self, name: &str, permissions: u32, bytes: &[u8]) -> io::Result<()> {
        self.entry(name, REGULAR | permissions, 1, (0, 0), bytes)
    }

    /// Ends the archive, padded so that another one can follow.
    ///
    /// # Errors
    /// Those of the writer below.
    pub fn finish(mut self) -> io::Result<W> {
        self.next_inode = 0;
        self.entry("TRAILER!!!", 0, 1, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        links: u32,
        device: (u32, u32),
        bytes: &[u8],
    ) -> io::Result<()> {
        let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let size = u32::try_from(bytes.len()).map_err(too_long)?;
        let name_size = u32::try_from(name.len() + 1).map_err(too_long)?;
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [
            self.next_inode,
            mode,
            0,
            0,
            links,
            0,
            size,
            0,
            0,
            device.0,
            device.1,
            name_size,
            0,
        ];
        self.next_inode += 1;
        self.out.write_all(b"070701")?;
        for field in fields {
            write!(self.out, "{field:08X}")?;
        }
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(b"\0")?;
        self.pad(110 + name.len() + 1)?;
        self.out.write_all(bytes)?;
        self.pad(bytes.len())
    }

    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..written.wrapping_neg() % 4])
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
        assert!(bytes.starts_with(b"07070100000001000041ED"));
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
