//! The block device (virtio 1.2, section 5.2): requests, and the files behind a disk.
//!
//! All I/O is synchronous, vectored, and straight between a file and guest memory. Which thread does
//! it is decided in [`serve`].

mod leave;
mod serve;

pub(crate) use serve::Block;

use super::chain::{Buffers, Pieces};
use super::{Identity, Stopping};
use crate::config::{DISK_FILE_ALIGN, DiskConfig};
use crate::memory::{Iovecs, pread, pread_now, pwrite, pwrite_now};
use leave::Leave;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use vm_memory::GuestMemoryBackend;

const KIND: u32 = 2;
const QUEUE_SIZES: &[u16] = &[128];
const SECTOR: u64 = 512;
const HEADER_LEN: usize = 16;
const ID_LEN: usize = 20;
/// A request of `SEG_MAX` data pieces fits the queue with its header and status.
const SEG_MAX: u32 = 126;
/// Most bytes of a piece of data. Linux makes no request longer than 4 MiB unless its
/// administrator asks for it (`queue/max_sectors_kb`).
const SIZE_MAX: u32 = 64 << 10;
/// Most bytes of a request: what a driver may ask for that keeps to both. A longer one fails.
const MAX_BYTES: usize = SEG_MAX as usize * SIZE_MAX as usize;
/// Bytes between two looks at whether the VM ends.
const CHUNK: usize = 1 << 20;
/// Longest read and longest write that a virtual CPU does itself, in bytes. Copying a MiB
/// takes 0.34 ms in the helper machine.
const MAX_READ_NOW: usize = 1 << 20;
const MAX_WRITE_NOW: usize = 64 << 10;
/// Most segments of one discard.
const MAX_RANGES: u32 = 16;
const RANGE_LEN: usize = 16;
/// Most sectors of one discarded or zeroed range (1 GiB).
const MAX_RANGE_SECTORS: u32 = 1 << 21;

const F_SIZE_MAX: u64 = 1 << 1;
const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;

const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;
const TYPE_DISCARD: u32 = 11;
const TYPE_WRITE_ZEROES: u32 = 13;

/// Flag of a write-zeroes range: the range may be deallocated.
const RANGE_UNMAP: u32 = 1;

/// The request's outcome, as its status byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

impl From<io::Error> for Status {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => Self::Unsupported,
            _ => Self::IoError,
        }
    }
}

/// Reads or writes pieces of guest memory at an offset of a file.
type Transfer = fn(BorrowedFd<'_>, &Iovecs<'_>, u64) -> io::Result<usize>;

/// One file and where it begins on the disk.
#[derive(Debug)]
struct Extent {
    file: File,
    start: u64,
    len: u64,
}

/// The files behind a disk, as one run of bytes.
#[derive(Debug)]
pub(crate) struct Disk {
    extents: Vec<Extent>,
    bytes: u64,
    read_only: bool,
    /// Set once, before the driver is there.
    stopping: OnceLock<Stopping>,
    /// The files' filesystem can say whether a read, and whether a write, would have to wait.
    can_read_now: AtomicBool,
    can_write_now: AtomicBool,
    /// For virtual CPUs to write where it cannot.
    leave: Leave,
}

impl Disk {
    /// Open the files. The error names the one that cannot be used.
    pub(crate) fn open(config: &DiskConfig) -> Result<Self, (PathBuf, io::Error)> {
        let mut disk = Self {
            extents: Vec::with_capacity(config.files.len()),
            bytes: 0,
            read_only: config.read_only,
            stopping: OnceLock::new(),
            can_read_now: AtomicBool::new(true),
            can_write_now: AtomicBool::new(true),
            leave: Leave::default(),
        };
        for path in &config.files {
            disk.append(path).map_err(|error| (path.clone(), error))?;
        }
        Ok(disk)
    }

    fn append(&mut self, path: &Path) -> io::Result<()> {
        let file = OpenOptions::new()
            .read(true)
            .write(!self.read_only)
            // Do not wait for somebody to open the other end of a FIFO.
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)?;
        let kind = file.metadata()?.file_type();
        let len = if kind.is_file() {
            file.metadata()?.len()
        } else if kind.is_block_device() {
            io::Seek::seek(&mut &file, io::SeekFrom::End(0))?
        } else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "neither a regular file nor a block device",
            ));
        };
        let invalid = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        if !self.read_only && len % SECTOR != 0 {
            return invalid("its length is not a multiple of 512");
        }
        let padded = if self.read_only {
            len.checked_next_multiple_of(DISK_FILE_ALIGN)
        } else {
            Some(len)
        };
        let Some(bytes) = padded.and_then(|padded| self.bytes.checked_add(padded)) else {
            return invalid("the disk would be too large");
        };
        self.extents.push(Extent {
            file,
            start: self.bytes,
            len,
        });
        self.bytes = bytes;
        Ok(())
    }

    /// What the driver sees.
    pub(crate) fn identity(&self) -> Identity {
        let mut features = F_SIZE_MAX | F_SEG_MAX | F_BLK_SIZE;
        if self.read_only {
            features |= F_RO;
        } else {
            features |= F_FLUSH | F_DISCARD | F_WRITE_ZEROES;
        }
        // struct virtio_blk_config, up to its last field that we use.
        let mut config = vec![0u8; 60];
        let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &(self.bytes / SECTOR).to_le_bytes());
        put(8, &SIZE_MAX.to_le_bytes());
        put(12, &SEG_MAX.to_le_bytes());
        put(20, &(SECTOR as u32).to_le_bytes());
        if !self.read_only {
            put(36, &MAX_RANGE_SECTORS.to_le_bytes());
            put(40, &MAX_RANGES.to_le_bytes());
            put(44, &8u32.to_le_bytes());
            put(48, &MAX_RANGE_SECTORS.to_le_bytes());
            put(52, &MAX_RANGES.to_le_bytes());
            put(56, &[1]);
        }
        Identity {
            kind: KIND,
            features,
            queue_sizes: QUEUE_SIZES,
            config,
        }
    }

    /// Whether the VM ends.
    fn is_stopping(&self) -> bool {
        self.stopping.get().is_some_and(Stopping::is_set)
    }

    /// Whether to go on with a request: its guest may be gone before it is done.
    fn go_on(&self) -> Result<(), Status> {
        if self.is_stopping() {
            return Err(Status::IoError);
        }
        Ok(())
    }

    /// Check a request for data and return its offset in bytes.
    fn data_at(&self, sector: u64, bytes: usize) -> Result<u64, Status> {
        if bytes > MAX_BYTES {
            return Err(Status::IoError);
        }
        self.offset_of(sector, bytes as u64)
    }

    /// Check a range against the disk's end and return its offset in bytes.
    fn offset_of(&self, sector: u64, bytes: u64) -> Result<u64, Status> {
        if !bytes.is_multiple_of(SECTOR) {
            return Err(Status::IoError);
        }
        let offset = sector.checked_mul(SECTOR).ok_or(Status::IoError)?;
        match offset.checked_add(bytes) {
            Some(end) if end <= self.bytes => Ok(offset),
            _ => Err(Status::IoError),
        }
    }

    /// The extent at an offset that lies on the disk.
    fn extent_at(&self, offset: u64) -> Option<&Extent> {
        let after = self
            .extents
            .partition_point(|extent| extent.start <= offset);
        self.extents.get(after.checked_sub(1)?)
    }

    /// Where the extent after this offset begins.
    fn next_start(&self, offset: u64) -> u64 {
        let after = self
            .extents
            .partition_point(|extent| extent.start <= offset);
        self.extents
            .get(after)
            .map_or(self.bytes, |extent| extent.start)
    }

    fn read<M: GuestMemoryBackend>(
        &self,
        data: &Pieces<'_, M>,
        bytes: usize,
        offset: u64,
        transfer: Transfer,
    ) -> Result<(), Status> {
        let mut done = 0;
        while done < bytes {
            self.go_on()?;
            let at = offset + done as u64;
            let extent = self.extent_at(at).ok_or(Status::IoError)?;
            let inside = at - extent.start;
            let left = (bytes - done).min(CHUNK);
            if inside < extent.len {
                let mut vecs = Iovecs::new();
                for piece in data.range(done, clamp(extent.len - inside, left)) {
                    vecs.push(&piece);
                }
                match transfer(extent.file.as_fd(), &vecs, inside)? {
                    0 => return Err(Status::IoError),
                    count => done += count,
                }
            } else {
                // Between a file's end and the next file's beginning.
                let padding = clamp(self.next_start(at) - at, left);
                for piece in data.range(done, padding) {
                    piece.copy_from(&[0u8; DISK_FILE_ALIGN as usize][..piece.len().min(4096)]);
                }
                done += padding;
            }
        }
        Ok(())
    }

    /// A writable disk has one file.
    fn writable_file(&self) -> Result<&File, Status> {
        if self.read_only {
            return Err(Status::IoError);
        }
        self.extents
            .first()
            .map(|extent| &extent.file)
            .ok_or(Status::IoError)
    }

    /// Discard or zero the ranges that a request lists (virtio 1.2, section 5.2.6).
    fn ranges<M: GuestMemoryBackend>(
        &self,
        data: &Pieces<'_, M>,
        bytes: usize,
        discard: bool,
    ) -> Result<(), Status> {
        use rustix::fs::FallocateFlags;
        let file = self.writable_file()?;
        if bytes == 0 || !bytes.is_multiple_of(RANGE_LEN) || bytes / RANGE_LEN > MAX_RANGES as usize
        {
            return Err(Status::IoError);
        }
        for at in (0..bytes).step_by(RANGE_LEN) {
            self.go_on()?;
            let mut range = [0u8; RANGE_LEN];
            if !data.read(HEADER_LEN + at, &mut range) {
                return Err(Status::IoError);
            }
            let sector = le_u64(&range, 0);
            let sectors = le_u32(&range, 8);
            let flags = le_u32(&range, 12);
            if flags & !RANGE_UNMAP != 0 || (discard && flags != 0) {
                return Err(Status::Unsupported);
            }
            if sectors > MAX_RANGE_SECTORS {
                return Err(Status::IoError);
            }
            let len = u64::from(sectors) * SECTOR;
            let offset = self.offset_of(sector, len)?;
            if len == 0 {
                continue;
            }
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let zeroes = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
            // Both read as zeroes afterwards. Not every filesystem can keep the blocks.
            if discard || flags & RANGE_UNMAP != 0 {
                rustix::fs::fallocate(file, hole, offset, len)
            } else {
                rustix::fs::fallocate(file, zeroes, offset, len)
                    .or_else(|_| rustix::fs::fallocate(file, hole, offset, len))
            }
            .map_err(|error| Status::from(io::Error::from(error)))?;
        }
        Ok(())
    }

    /// What a request counts for, in bytes; `None` for one that waits for the disk, or gives blocks
    /// back.
    fn cost_of<M: GuestMemoryBackend>(&self, buffers: &Buffers<'_, M>) -> Option<usize> {
        let mut kind = [0u8; 4];
        if !buffers.readable.read(0, &mut kind) {
            return Some(0);
        }
        match u32::from_le_bytes(kind) {
            TYPE_IN => Some(buffers.writable.bytes().min(MAX_BYTES)),
            TYPE_OUT => Some(buffers.readable.bytes().min(MAX_BYTES)),
            TYPE_FLUSH if self.read_only => Some(0),
            TYPE_FLUSH | TYPE_DISCARD | TYPE_WRITE_ZEROES => None,
            _ => Some(0),
        }
    }

    /// Carry out a request if that takes no waiting; `None`, and nothing that matters has happened,
    /// if it does or may. Otherwise as [`Self::execute`].
    fn execute_now<M: GuestMemoryBackend>(
        &self,
        buffers: &Buffers<'_, M>,
    ) -> Option<Result<usize, Status>> {
        let mut header = [0u8; HEADER_LEN];
        if !buffers.readable.read(0, &mut header) {
            return Some(Err(Status::IoError));
        }
        let sector = le_u64(&header, 8);
        let out = buffers.readable.bytes() - HEADER_LEN;
        let room = buffers.writable.bytes() - 1;
        match le_u32(&header, 0) {
            TYPE_IN if room > MAX_READ_NOW => None,
            TYPE_IN => {
                let read = |offset| {
                    self.try_now(&self.can_read_now, || {
                        self.read(&buffers.writable, room, offset, pread_now)
                    })
                };
                let at = self.data_at(sector, room);
                at.map_or_else(
                    |status| Some(Err(status)),
                    |at| read(at).then_some(Ok(room)),
                )
            }
            TYPE_OUT if out > MAX_WRITE_NOW => None,
            TYPE_OUT => {
                let at = self.data_at(sector, out);
                let write = |at| self.write_now(&buffers.readable, out, at);
                at.map_or_else(|status| Some(Err(status)), |at| write(at).then_some(Ok(0)))
            }
            _ if self.cost_of(buffers).is_none() => None,
            _ => Some(self.execute(buffers)),
        }
    }

    /// Try a transfer that does not wait, where the filesystem knows such.
    fn try_now(&self, known: &AtomicBool, transfer: impl FnOnce() -> Result<(), Status>) -> bool {
        if !known.load(Ordering::Relaxed) {
            return false;
        }
        match transfer() {
            Ok(()) => true,
            // What else went wrong, the device's thread will see.
            Err(status) => {
                if status == Status::Unsupported {
                    known.store(false, Ordering::Relaxed);
                }
                false
            }
        }
    }

    /// A write by a virtual CPU. Where the filesystem cannot tell whether it would wait, it is tried
    /// for as long as that has been seldom enough. False: it is the device's thread's.
    fn write_now<M: GuestMemoryBackend>(
        &self,
        data: &Pieces<'_, M>,
        bytes: usize,
        offset: u64,
    ) -> bool {
        if self.read_only {
            return false;
        }
        let now = || self.write(data, bytes, offset, pwrite_now);
        if self.try_now(&self.can_write_now, now) {
            return true;
        }
        if self.can_write_now.load(Ordering::Relaxed) {
            return false;
        }
        self.leave
            .take(|| self.write(data, bytes, offset, pwrite).is_ok())
            .unwrap_or(false)
    }

    /// Carry out a request; what is returned is the number of bytes written to guest memory,
    /// without the status byte.
    fn execute<M: GuestMemoryBackend>(&self, buffers: &Buffers<'_, M>) -> Result<usize, Status> {
        let mut header = [0u8; HEADER_LEN];
        if !buffers.readable.read(0, &mut header) {
            return Err(Status::IoError);
        }
        let sector = le_u64(&header, 8);
        let out = buffers.readable.bytes() - HEADER_LEN;
        let room = buffers.writable.bytes() - 1;
        match le_u32(&header, 0) {
            TYPE_IN => {
                let offset = self.data_at(sector, room)?;
                self.read(&buffers.writable, room, offset, pread)?;
                Ok(room)
            }
            TYPE_OUT => {
                let offset = self.data_at(sector, out)?;
                self.write(&buffers.readable, out, offset, pwrite)?;
                Ok(0)
            }
            TYPE_FLUSH if self.read_only => Ok(0),
            TYPE_FLUSH => {
                self.writable_file()?.sync_data()?;
                Ok(0)
            }
            TYPE_GET_ID => {
                if room < ID_LEN || !buffers.writable.write(0, b"hullbox-disk\0\0\0\0\0\0\0\0") {
                    return Err(Status::IoError);
                }
                Ok(ID_LEN)
            }
            TYPE_DISCARD => self.ranges(&buffers.readable, out, true).map(|()| 0),
            TYPE_WRITE_ZEROES => self.ranges(&buffers.readable, out, false).map(|()| 0),
            _ => Err(Status::Unsupported),
        }
    }

    /// Write what follows the request's header.
    fn write<M: GuestMemoryBackend>(
        &self,
        data: &Pieces<'_, M>,
        bytes: usize,
        offset: u64,
        transfer: Transfer,
    ) -> Result<(), Status> {
        let file = self.writable_file()?;
        let mut done = 0;
        while done < bytes {
            self.go_on()?;
            let mut vecs = Iovecs::new();
            for piece in data.range(HEADER_LEN + done, (bytes - done).min(CHUNK)) {
                vecs.push(&piece);
            }
            match transfer(file.as_fd(), &vecs, offset + done as u64)? {
                0 => return Err(Status::IoError),
                count => done += count,
            }
        }
        Ok(())
    }
}

fn clamp(distance: u64, left: usize) -> usize {
    usize::try_from(distance).map_or(left, |distance| distance.min(left))
}

fn le_u32(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0u8; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn le_u64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0u8; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests;
