//! A streaming reader of tar archives: v7, ustar, PAX and GNU, sparse files included.
//!
//! It reads as Go's `archive/tar` does, because that is what made the DiffIDs of the world and
//! what other container tools read with: two readings of one layer would be two images.
//! No byte is trusted, and memory is bounded.
//!
//! The writer writes ustar with PAX headers, and sparse files as GNU tar's format 1.0, which GNU
//! tar, libarchive, Go and Python read.
#![forbid(unsafe_code)]

mod error;
mod exact;
mod header;
mod pax;
mod sparse;
mod write;

pub use error::TarError;
pub use exact::ExactWriter;
pub use header::BLOCK;
use header::Header;
use pax::Pax;
use std::io::{self, BufRead};
pub use write::TarWriter;

/// Most sparse segments of one file: 4 MiB of memory.
pub const MAX_SEGMENTS: usize = 256 * 1024;
/// Longest extended header (PAX or GNU) of one entry that is read by default, in bytes.
pub const MAX_HEADER_BYTES: u32 = 1024 * 1024;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "they say it themselves")]
pub enum Kind {
    File,
    HardLink,
    Symlink,
    Char,
    Block,
    Dir,
    Fifo,
}

/// One entry's metadata, extended headers applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// As it stands in the archive: any bytes but NUL.
    pub path: Vec<u8>,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Permissions, `0o7777` at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// Size of the file, holes included.
    pub size: u64,
    /// Where the stored bytes belong; `None` means they are the file.
    pub sparse: Option<Vec<(u64, u64)>>,
    /// Major and minor.
    pub device: (u32, u32),
    /// Extended attributes, as they stand in the archive.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// An entry of root's without a name, from 1970.
    #[must_use]
    pub const fn of(kind: Kind) -> Self {
        Self {
            kind,
            path: Vec::new(),
            link: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            size: 0,
            sparse: None,
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }

    /// How many bytes an archive stores of the file.
    #[must_use]
    pub fn stored(&self) -> u64 {
        match (&self.sparse, self.kind) {
            (Some(map), Kind::File) => map.iter().map(|&(_, len)| len).sum(),
            (None, Kind::File) => self.size,
            _ => 0,
        }
    }
}

/// What a layer is read from: a source that can be told what becomes of its bytes.
pub trait TarSource: BufRead {
    /// Consumes bytes that the image being written keeps at `offset`.
    fn consume_kept(&mut self, len: usize, offset: u64);
}

/// Bytes in memory, of which no record is kept.
impl TarSource for &[u8] {
    fn consume_kept(&mut self, len: usize, _: u64) {
        self.consume(len);
    }
}

/// Reads entry after entry of a hostile archive.
#[derive(Debug)]
pub struct TarReader<R> {
    input: R,
    /// Entries so far.
    entries: u64,
    /// Whether the archive's own end was seen, and not just that of its source.
    ended: bool,
    /// Stored bytes of the current entry that were not read yet.
    data: u64,
    /// Padding after them.
    padding: u64,
    max_header_bytes: u64,
}

/// What precedes an entry's own header.
#[derive(Debug, Default)]
struct Extensions {
    pax: Option<Pax>,
    gnu_path: Option<Vec<u8>>,
    gnu_link: Option<Vec<u8>>,
}

impl<R: BufRead> TarReader<R> {
    /// Reads from `input`; no extended header may have more bytes than `max_header_bytes`.
    pub fn new(input: R, max_header_bytes: u32) -> Self {
        Self {
            input,
            entries: 0,
            ended: false,
            data: 0,
            padding: 0,
            max_header_bytes: max_header_bytes.into(),
        }
    }

    /// The next entry, or `None` at the end of the archive. Skips what is left of the one before.
    ///
    /// # Errors
    /// [`TarError`].
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        let mut extended = false;
        loop {
            self.skip()?;
            let Some(block) = self.header_block(extended)? else {
                return Ok(None);
            };
            let header = Header(&block);
            let kind = header.kind();
            match kind {
                b'x' => {
                    let text = self.extended(&header)?;
                    extensions.pax = Some(Pax::parse(&text, MAX_SEGMENTS)?);
                }
                b'L' => extensions.gnu_path = Some(self.gnu_name(&header)?),
                b'K' => extensions.gnu_link = Some(self.gnu_name(&header)?),
                // Global headers carry comments in practice; Go and Docker ignore them whole,
                // and so must who wants to see the same layer. 'V' is GNU's volume label.
                b'g' | b'V' => {
                    self.begin_data(header.size()?);
                    continue;
                }
                _ => {
                    self.entries += 1;
                    return self.entry(&header, extensions).map(Some);
                }
            }
            extended = true;
        }
    }

    /// Bytes of the current entry as they are stored; empty at its end.
    ///
    /// # Errors
    /// [`TarError`].
    pub fn fill_data(&mut self) -> Result<&[u8], TarError> {
        let left = self.data;
        if left == 0 {
            return Ok(&[]);
        }
        let buffer = self.fill()?;
        if buffer.is_empty() {
            return Err(TarError::Truncated);
        }
        let len = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        Ok(&buffer[..len])
    }

    /// Reads the current entry's data as they are stored. Zero at its end.
    ///
    /// # Errors
    /// [`TarError`].
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let shown = self.fill_data()?;
        let len = shown.len().min(buffer.len());
        buffer[..len].copy_from_slice(&shown[..len]);
        self.consume_data(len);
        Ok(len)
    }

    /// Marks bytes that [`Self::fill_data`] showed as read.
    pub fn consume_data(&mut self, len: usize) {
        self.input.consume(len);
        self.data -= len as u64;
    }

    /// Reads whatever follows the archive's end: a digest covers it too.
    ///
    /// # Errors
    /// [`TarError`].
    pub fn drain(&mut self) -> Result<(), TarError> {
        loop {
            let len = self.fill()?.len();
            if len == 0 {
                return Ok(());
            }
            self.input.consume(len);
        }
    }

    /// How many entries there were so far.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    /// Whether the archive was read to the mark of its end.
    #[must_use]
    pub const fn ended(&self) -> bool {
        self.ended
    }

    /// What it reads from.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// What the input has next; interruptions are not its end.
    fn fill(&mut self) -> Result<&[u8], TarError> {
        while let Err(error) = self.input.fill_buf() {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(TarError::Read(error));
            }
        }
        self.input.fill_buf().map_err(TarError::Read)
    }

    fn begin_data(&mut self, size: u64) {
        self.data = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    fn skip(&mut self) -> Result<(), TarError> {
        if self.discard(self.data)? > 0 {
            return Err(TarError::Truncated);
        }
        // umoci ends its tars right behind the last file's data; the digests tell whether
        // anything is missing.
        self.discard(self.padding)?;
        (self.data, self.padding) = (0, 0);
        Ok(())
    }

    /// Reads past this many bytes; answers how many were missing.
    fn discard(&mut self, mut left: u64) -> Result<u64, TarError> {
        while left > 0 {
            let available = self.fill()?.len();
            if available == 0 {
                break;
            }
            let len = usize::try_from(left).map_or(available, |left| left.min(available));
            self.input.consume(len);
            left -= len as u64;
        }
        Ok(left)
    }

    /// The next header; `None` at a block of zeros or a clean end of the stream, neither of
    /// which may follow an extended header.
    fn header_block(&mut self, extended: bool) -> Result<Option<[u8; BLOCK]>, TarError> {
        let at_end = self.fill()?.is_empty();
        if at_end && !extended {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        self.read_exact(&mut block)?;
        let header = Header(&block);
        if header.is_zero() {
            if extended {
                return Err(TarError::Truncated);
            }
            self.ended = true;
            return Ok(None);
        }
        if !header.checksum_holds() {
            return Err(TarError::Checksum);
        }
        Ok(Some(block))
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), TarError> {
        self.input.read_exact(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                TarError::Truncated
            } else {
                TarError::Read(error)
            }
        })
    }

    /// The whole data of an extended header.
    fn extended(&mut self, header: &Header<'_>) -> Result<Vec<u8>, TarError> {
        let size = header.size()?;
        if size > self.max_header_bytes {
            return Err(TarError::HeaderTooLong(size));
        }
        self.begin_data(size);
        let mut text = Vec::new();
        while self.data > 0 {
            let chunk = self.fill_data()?;
            let len = chunk.len();
            text.extend_from_slice(chunk);
            self.consume_data(len);
        }
        Ok(text)
    }

    fn gnu_name(&mut self, header: &Header<'_>) -> Result<Vec<u8>, TarError> {
        let mut name = self.extended(header)?;
        let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    fn entry(&mut self, header: &Header<'_>, extensions: Extensions) -> Result<Entry, TarError> {
        let mut pax = extensions.pax.unwrap_or_default();
        let mut path = pax
            .path
            .take()
            .or(extensions.gnu_path)
            .unwrap_or_else(|| header.path());
        let link = pax
            .link
            .take()
            .or(extensions.gnu_link)
            .unwrap_or_else(|| header.link());
        let kind = kind_of(header.kind(), &path)?;
        let stored = match pax.size {
            Some(size) => size,
            None => header.size()?,
        };
        // As in Go: only files have data, whatever the size of another entry says.
        let stored = if kind == Kind::File { stored } else { 0 };
        self.begin_data(stored);
        let sparse = if kind == Kind::File {
            self.sparse_map(header, &mut pax)?
        } else {
            None
        };
        let size = sparse.as_ref().map_or(stored, |(_, size)| *size);
        if let Some(name) = pax.sparse.name.take() {
            path = name;
        }
        if path.contains(&0) {
            return Err(TarError::Nul("name"));
        }
        if link.contains(&0) {
            return Err(TarError::Nul("link target"));
        }
        let seconds = header.mtime()?;
        let (major, minor) = header.device()?;
        Ok(Entry {
            kind,
            path,
            link,
            mode: permissions(header.mode()?),
            uid: id(pax.uid.map_or_else(|| header.uid(), Ok)?, "uid")?,
            gid: id(pax.gid.map_or_else(|| header.gid(), Ok)?, "gid")?,
            mtime: pax.mtime.unwrap_or((seconds, 0)),
            size,
            sparse: sparse.map(|(map, _)| map),
            device: (
                u32::try_from(major).map_err(|_| TarError::Number("device number"))?,
                u32::try_from(minor).map_err(|_| TarError::Number("device number"))?,
            ),
            xattrs: pax.xattrs,
        })
    }
}

impl<R: TarSource> TarReader<R> {
    /// Like [`Self::consume_data`], of bytes that the image being written keeps at `offset`.
    pub fn consume_kept(&mut self, len: usize, offset: u64) {
        if len > 0 {
            self.input.consume_kept(len, offset);
            self.data -= len as u64;
        }
    }
}

fn kind_of(flag: u8, path: &[u8]) -> Result<Kind, TarError> {
    Ok(match flag {
        // Before POSIX a directory was a file whose name ends in a slash.
        0 if path.ends_with(b"/") => Kind::Dir,
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::Char,
        b'4' => Kind::Block,
        b'5' => Kind::Dir,
        b'6' => Kind::Fifo,
        other => return Err(TarError::Kind(other)),
    })
}

/// Type bits and a sign mean nothing here.
const fn permissions(mode: i64) -> u16 {
    (mode & 0o7777) as u16
}

/// The highest id is the kernel's "no id".
fn id(number: i64, what: &'static str) -> Result<u32, TarError> {
    u32::try_from(number)
        .ok()
        .filter(|&id| id != u32::MAX)
        .ok_or(TarError::Number(what))
}

/// Whether this is how a tar begins: a sound header, or the zeros of an empty archive.
#[must_use]
pub fn looks_like_tar(start: &[u8]) -> bool {
    start.first_chunk::<BLOCK>().is_some_and(|block| {
        let header = Header(block);
        header.is_zero() || header.checksum_holds()
    })
}
