//! The minimal init of `--init`: a program of its own, made of two dozen instructions.
//!
//! It must be a program, because whoever is PID 1 of a container can be looked at through
//! /proc/1/exe from inside: our own binary there would be a way for a container to read, and
//! where it may trace PID 1 to rewrite, the runtime on the host. It cannot be a file of the
//! image. So it is a sealed memory file with an ELF header in front of the machine code of
//! [`crate::sys::init_code`].

use crate::sys;
use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;

const BASE: u64 = 0x40_0000;
const ELF_HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;

/// Where the machine code is in the file.
const ENTRY: u64 = ELF_HEADER + 2 * PROGRAM_HEADER;

/// `MFD_EXEC` of Linux 6.3, without which newer kernels complain.
const MFD_EXEC: MemfdFlags = MemfdFlags::from_bits_retain(0x10);

/// The init as an open file that nobody can change, to be executed.
pub(super) fn program() -> Result<OwnedFd, Errno> {
    sealed("init", sys::init_code())
}

/// A program of this machine code as such a file.
pub(super) fn sealed(name: &str, code: &[u8]) -> Result<OwnedFd, Errno> {
    if code.is_empty() {
        return Err(Errno::NOSYS);
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = match memfd_create(name, flags | MFD_EXEC) {
        Err(Errno::INVAL) => memfd_create(name, flags)?,
        other => other?,
    };
    let image = image(code);
    if rustix::io::write(&file, &image)? != image.len() {
        return Err(Errno::NOSPC);
    }
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}

/// A static ELF executable (System V ABI, chapters 4 and 5) with one segment.
fn image(code: &[u8]) -> Vec<u8> {
    const EM_X86_64: u16 = 62;
    let size = ENTRY + code.len() as u64;
    let mut out = Vec::with_capacity(4096);
    out.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    out.extend(half([2, EM_X86_64])); // ET_EXEC
    out.extend(word([1])); // EV_CURRENT
    out.extend(long([BASE + ENTRY, ELF_HEADER, 0]));
    out.extend(word([0]));
    out.extend(half([ELF_HEADER as u16, PROGRAM_HEADER as u16, 2, 0, 0, 0]));
    // PT_LOAD, readable and executable; PT_GNU_STACK, not executable.
    out.extend(word([1, 5]));
    out.extend(long([0, BASE, BASE, size, size, 4096]));
    out.extend(word([0x6474_e551, 6]));
    out.extend(long([0, 0, 0, 0, 0, 16]));
    out.extend_from_slice(code);
    out
}

fn half<const N: usize>(values: [u16; N]) -> impl Iterator<Item = u8> {
    values.into_iter().flat_map(u16::to_le_bytes)
}

fn word<const N: usize>(values: [u32; N]) -> impl Iterator<Item = u8> {
    values.into_iter().flat_map(u32::to_le_bytes)
}

fn long<const N: usize>(values: [u64; N]) -> impl Iterator<Item = u8> {
    values.into_iter().flat_map(u64::to_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_add_up() {
        let image = image(b"\x90\x90");
        assert_eq!(image.len() as u64, ENTRY + 2);
        assert_eq!(&image[ENTRY as usize..], b"\x90\x90");
    }
}
