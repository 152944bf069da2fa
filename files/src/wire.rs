//! FUSE messages (`linux/fuse.h`, version 7.38): reading requests, whose every byte is hostile, and
//! writing replies. Numbers are little-endian, as all our architectures are.

use rustix::fs::Statx;
use rustix::io::Errno;
use std::ffi::CStr;
use std::time::Duration;

/// `struct fuse_in_header`.
pub const IN_HEADER: usize = 40;
/// `struct fuse_out_header`.
pub const OUT_HEADER: usize = 16;
/// The most that a request or a reply carries besides its headers, in bytes (`max_write`).
pub const MAX_DATA: usize = 1 << 20;
/// Longest message: data, headers and names.
pub const MAX_MESSAGE: usize = MAX_DATA + (4 << 10);
/// The tree's root.
pub const ROOT: u64 = 1;

/// What a request can ask (`enum fuse_opcode`).
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SYNCFS: u32 = 50;
    pub const TMPFILE: u32 = 51;
}

/// `struct fuse_in_header`, of a message that is as long as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What is asked.
    pub opcode: u32,
    /// Number of the request, which its reply repeats.
    pub unique: u64,
    /// What it is about.
    pub node: u64,
    /// Who asks.
    pub user: u32,
    /// The same.
    pub group: u32,
}

impl Header {
    /// The length that a message claims to have, once its first four bytes are there.
    pub fn length(begin: &[u8]) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(*begin.first_chunk()?)).ok()
    }

    /// Splits a message.
    pub fn of(message: &[u8]) -> Option<(Self, Fields<'_>)> {
        if Self::length(message)? != message.len() {
            return None;
        }
        let mut fields = Fields(message.get(4..)?);
        let header = Self {
            opcode: fields.u32().ok()?,
            unique: fields.u64().ok()?,
            node: fields.u64().ok()?,
            user: fields.u32().ok()?,
            group: fields.u32().ok()?,
        };
        // The process, and the length of extensions, of which none is negotiated.
        fields.bytes(8).ok()?;
        Some((header, fields))
    }

    /// Whether somebody waits for a reply.
    pub const fn wants_reply(self) -> bool {
        use opcode::{BATCH_FORGET, FORGET, INTERRUPT};
        !matches!(self.opcode, FORGET | BATCH_FORGET | INTERRUPT)
    }
}

/// What is left of a request.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The next bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Errno> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(*bytes)
    }

    /// The next number.
    pub fn u32(&mut self) -> Result<u32, Errno> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next number.
    pub fn u64(&mut self) -> Result<u64, Errno> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next string, which has an end.
    pub fn text(&mut self) -> Result<&'a CStr, Errno> {
        let text = CStr::from_bytes_until_nul(self.0).map_err(|_| Errno::INVAL)?;
        self.bytes(text.to_bytes_with_nul().len())?;
        Ok(text)
    }

    /// The next string, which is a name in a directory: no way to anywhere else.
    pub fn name(&mut self) -> Result<&'a CStr, Errno> {
        let name = self.text()?;
        let bytes = name.to_bytes();
        if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') {
            return Err(Errno::INVAL);
        }
        Ok(name)
    }
}

/// A reply that is being made, in memory that is used again.
pub struct Reply<'a> {
    /// What lies behind `len` is left of earlier replies, and does not have to be cleared again.
    bytes: &'a mut Vec<u8>,
    len: usize,
}

impl<'a> Reply<'a> {
    /// An empty one.
    pub fn new(bytes: &'a mut Vec<u8>) -> Self {
        let mut reply = Self { bytes, len: 0 };
        reply.put(&[0; OUT_HEADER]);
        reply
    }

    /// Room for so much more.
    fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.len + len;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.len..end]
    }

    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.len += bytes.len();
        self
    }

    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.put(bytes)
    }

    /// How long its contents are.
    pub const fn len(&self) -> usize {
        self.len.saturating_sub(OUT_HEADER)
    }

    /// Drops contents from here on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(OUT_HEADER + len);
    }

    /// Has at most so many bytes of contents filled, and keeps those that were.
    pub fn fill(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
    ) -> Result<(), Errno> {
        let filled = fill(self.room(len))?;
        self.len += filled.min(len);
        Ok(())
    }

    /// Zeros, up to a multiple of eight bytes.
    pub fn align(&mut self) {
        let missing = self.len().next_multiple_of(8) - self.len();
        self.zeros(missing);
    }

    fn zeros(&mut self, len: usize) {
        self.room(len).fill(0);
        self.len += len;
    }

    /// Writes the header, and gives the message. It has no contents if the request failed.
    pub fn finish(mut self, unique: u64, outcome: Result<(), Errno>) -> &'a [u8] {
        let error = match outcome {
            Ok(()) => 0,
            Err(errno) => {
                self.truncate(0);
                -errno.raw_os_error()
            }
        };
        let len = u32::try_from(self.len).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&len.to_le_bytes());
        self.bytes[4..8].copy_from_slice(&error.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&unique.to_le_bytes());
        &self.bytes[..self.len]
    }

    /// `struct fuse_attr`.
    pub fn attr(&mut self, attr: &Attr) -> &mut Self {
        let stat = &attr.stat;
        let seconds = |time: &rustix::fs::StatxTimestamp| time.tv_sec.cast_unsigned();
        let rdev = rustix::fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor);
        self.u64(attr.number)
            .u64(stat.stx_size)
            .u64(stat.stx_blocks)
            .u64(seconds(&stat.stx_atime))
            .u64(seconds(&stat.stx_mtime))
            .u64(seconds(&stat.stx_ctime))
            .u32(stat.stx_atime.tv_nsec)
            .u32(stat.stx_mtime.tv_nsec)
            .u32(stat.stx_ctime.tv_nsec)
            .u32(attr.mode)
            .u32(stat.stx_nlink)
            .u32(attr.user)
            .u32(attr.group)
            // The kernel's own form (`new_decode_dev`), which is the lower half of the library's.
            .u32(u32::try_from(rdev & 0xffff_ffff).unwrap_or(0))
            .u32(stat.stx_blksize)
            .u32(0)
    }

    /// `struct fuse_entry_out`.
    pub fn entry(&mut self, entry: &Entry) -> &mut Self {
        self.u64(entry.node)
            .u64(0)
            .u64(entry.hold.as_secs())
            .u64(entry.attributes_hold.as_secs())
            .u32(entry.hold.subsec_nanos())
            .u32(entry.attributes_hold.subsec_nanos())
            .attr(&entry.attr)
    }

    /// `struct fuse_entry_out` of a name that there is not, or of which nothing is said.
    pub fn no_entry(&mut self, hold: Duration) -> &mut Self {
        self.u64(0).u64(0).u64(hold.as_secs()).u64(0);
        self.u32(hold.subsec_nanos()).u32(0);
        self.zeros(ATTR);
        self
    }

    /// `struct fuse_open_out`.
    pub fn open(&mut self, handle: u64, flags: u32) -> &mut Self {
        self.u64(handle).u32(flags).u32(0)
    }
}

/// `struct fuse_attr`.
const ATTR: usize = 88;
/// `struct fuse_entry_out`.
pub const ENTRY: usize = 40 + ATTR;

/// What a guest hears of a file.
pub struct Attr {
    /// Of the host. What is not named here is told as it is.
    pub stat: Statx,
    /// The inode's number.
    pub number: u64,
    /// Type and mode.
    pub mode: u32,
    /// Its owner.
    pub user: u32,
    /// The same.
    pub group: u32,
}

/// What a name leads to.
pub struct Entry {
    /// Its number, until it is forgotten.
    pub node: u64,
    /// How long the guest may believe that.
    pub hold: Duration,
    /// The same of its attributes.
    pub attributes_hold: Duration,
    /// Its attributes.
    pub attr: Attr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        let name = |bytes| Fields(bytes).name().map(CStr::to_bytes);
        assert_eq!(name(b"file\0"), Ok(&b"file"[..]));
        assert_eq!(name(b"..a\0rest"), Ok(&b"..a"[..]));
        for bad in [
            &b"/file\0"[..],
            b"a/b\0",
            b"..\0",
            b".\0",
            b"\0",
            b"file",
            b"",
        ] {
            assert_eq!(name(bad), Err(Errno::INVAL), "{bad:?}");
        }
        // An absolute path, and one that is hidden behind an end.
        assert_eq!(name(b"/etc/passwd\0"), Err(Errno::INVAL));
        assert_eq!(name(b"a\0/../b\0"), Ok(&b"a"[..]));
    }

    #[test]
    fn a_message_is_as_long_as_it_says_or_none() {
        let mut message = vec![0; 48];
        message[0] = 48;
        message[4] = 14;
        let (header, fields) = Header::of(&message).unwrap();
        assert_eq!((header.opcode, fields.0.len()), (14, 8));
        for len in [0, 3, 4, 39, 47] {
            assert!(Header::of(&message[..len]).is_none(), "{len}");
        }
        message.push(0);
        assert!(Header::of(&message).is_none());
        let mut short = vec![0; 30];
        short[0] = 30;
        assert!(Header::of(&short).is_none());
    }

    #[test]
    fn structures_have_their_sizes() {
        let mut bytes = Vec::new();
        let mut reply = Reply::new(&mut bytes);
        reply.no_entry(Duration::from_millis(1500));
        assert_eq!(reply.len(), ENTRY);
        let message = reply.finish(7, Ok(()));
        let header = [[144, 0, 0, 0, 0, 0, 0, 0], [7, 0, 0, 0, 0, 0, 0, 0]];
        assert_eq!(&message[..16], header.as_flattened());
        let mut reply = Reply::new(&mut bytes);
        reply.u64(1);
        let message = reply.finish(7, Err(Errno::NOENT));
        assert_eq!(message.len(), OUT_HEADER);
        assert_eq!(message[4..8], (-2i32).to_le_bytes());
    }

    #[test]
    fn nothing_of_an_earlier_reply_is_in_the_next() {
        let mut bytes = Vec::new();
        let mut reply = Reply::new(&mut bytes);
        reply.bytes(&[9; 100]);
        reply.finish(1, Ok(()));
        let mut reply = Reply::new(&mut bytes);
        reply.bytes(&[1]).align();
        assert_eq!(&reply.finish(2, Ok(()))[16..], [1, 0, 0, 0, 0, 0, 0, 0]);
    }
}
