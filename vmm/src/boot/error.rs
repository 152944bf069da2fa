//! Why a guest cannot boot.

use crate::memory::MemoryError;
use std::io;

/// Why a kernel or initramfs could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be opened or read.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// The file does not begin as an ELF file for this processor does.
    #[error("it is not an ELF kernel for this processor")]
    NotAKernel,
    /// A header names bytes that the file does not have.
    #[error("it is truncated")]
    Truncated,
    /// A part of the kernel does not lie in the guest's memory, or the entry point in no part.
    #[error("it does not fit into the guest's memory")]
    DoesNotFit,
    /// The host could not place it.
    #[error("it could not be placed in guest memory")]
    Memory(#[source] MemoryError),
}

/// Why the guest's boot could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A table does not fit.
    #[error("the boot tables do not fit into guest memory")]
    Tables,
    /// The host has no random numbers.
    #[error("cannot get a random seed from the host")]
    Seed(#[source] io::Error),
}
