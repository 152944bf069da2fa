//! The few fields of an ELF file that say what to load where (ELF-64 object file format 1.5).
//!
//! `linux-loader` can load such a file too, but only by copying it; mapping needs the headers.

use super::error::LoadError;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const HEADER_LEN: usize = 64;
const PROGRAM_HEADER_LEN: usize = 56;
/// More than any kernel has.
const MAX_PROGRAM_HEADERS: u16 = 64;
const TYPE_LOAD: u32 = 1;
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// A part of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where it is in the file.
    pub(super) offset: u64,
    /// Its physical address.
    pub(super) address: u64,
    /// Bytes in the file.
    pub(super) file_len: u64,
    /// Bytes in memory; those that the file does not have are zero.
    pub(super) memory_len: u64,
}

/// What to load, and where it begins.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) entry: u64,
    pub(super) segments: Vec<Segment>,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let mut value = [0; 2];
    value.copy_from_slice(&bytes[at..at + 2]);
    u16::from_le_bytes(value)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

/// Read the headers. All segments lie within the file.
pub(super) fn parse(file: &File, file_len: u64) -> Result<Image, LoadError> {
    let mut header = [0u8; HEADER_LEN];
    if file_len < HEADER_LEN as u64 {
        return Err(LoadError::NotAKernel);
    }
    read_at(file, &mut header, 0)?;
    // Magic, 64 bits, little endian, version 1.
    if header[..7] != *b"\x7fELF\x02\x01\x01" || u16_at(&header, 18) != MACHINE {
        return Err(LoadError::NotAKernel);
    }
    let count = u16_at(&header, 56);
    if usize::from(u16_at(&header, 54)) != PROGRAM_HEADER_LEN || count > MAX_PROGRAM_HEADERS {
        return Err(LoadError::NotAKernel);
    }
    let mut table = vec![0u8; usize::from(count) * PROGRAM_HEADER_LEN];
    read_at(file, &mut table, u64_at(&header, 32))?;
    let mut segments = Vec::new();
    for entry in table.chunks_exact(PROGRAM_HEADER_LEN) {
        let segment = Segment {
            offset: u64_at(entry, 8),
            address: u64_at(entry, 24),
            file_len: u64_at(entry, 32),
            memory_len: u64_at(entry, 40),
        };
        if u32_at(entry, 0) != TYPE_LOAD || segment.memory_len == 0 {
            continue;
        }
        match segment.offset.checked_add(segment.file_len) {
            Some(end) if end <= file_len && segment.file_len <= segment.memory_len => {}
            _ => return Err(LoadError::Truncated),
        }
        segments.push(segment);
    }
    if segments.is_empty() {
        return Err(LoadError::NotAKernel);
    }
    Ok(Image {
        entry: u64_at(&header, 24),
        segments,
    })
}

/// Read exactly, at an offset.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> Result<(), LoadError> {
    file.read_exact_at(buffer, offset)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => LoadError::Truncated,
            _ => LoadError::Read(error),
        })
}
