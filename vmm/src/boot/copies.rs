//! Files' bytes on their way into guest memory, in pieces that several threads can carry.

use super::error::LoadError;
use crate::memory::{GuestMemory, HUGE_PAGE, Iovecs};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use vm_memory::{GuestAddress, GuestMemoryBackend};

/// A file that bytes are copied from.
#[derive(Debug)]
pub(crate) struct Source {
    pub(super) file: File,
    pub(super) path: PathBuf,
}

/// A part of a file and its place.
#[derive(Debug)]
struct Piece {
    source: Arc<Source>,
    offset: u64,
    address: u64,
    bytes: u64,
}

/// What is still to be copied.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    pieces: Vec<Piece>,
    /// The first piece that nobody has taken.
    next: AtomicUsize,
}

impl Copies {
    /// Note a part of a file for copying. No piece crosses the border of a huge page, so that the
    /// host clears each page once, on behalf of the thread that fills it.
    pub(crate) fn add(&mut self, source: &Arc<Source>, offset: u64, address: u64, bytes: u64) {
        let mut done = 0;
        while done < bytes {
            let at = address + done;
            let piece = (HUGE_PAGE as u64 - at % HUGE_PAGE as u64).min(bytes - done);
            self.pieces.push(Piece {
                source: Arc::clone(source),
                offset: offset + done,
                address: at,
                bytes: piece,
            });
            done += piece;
        }
    }

    /// Copy pieces until none is left that nobody has taken. Any number of threads may do so.
    ///
    /// # Errors
    /// Why, and which file could not be copied.
    pub(crate) fn carry(&self, memory: &GuestMemory) -> Result<(), (LoadError, &Path)> {
        while let Some(piece) = self.pieces.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            copy(memory, piece).map_err(|error| (error, &*piece.source.path))?;
        }
        Ok(())
    }
}

fn copy(memory: &GuestMemory, piece: &Piece) -> Result<(), LoadError> {
    let len = usize::try_from(piece.bytes).map_err(|_| LoadError::DoesNotFit)?;
    let mut done = 0;
    while done < len {
        let mut vecs = Iovecs::new();
        let slice = memory
            .ram()
            .get_slice(GuestAddress(piece.address + done as u64), len - done)
            .map_err(|_| LoadError::DoesNotFit)?;
        vecs.push(&slice);
        let at = piece.offset + done as u64;
        match crate::memory::pread(piece.source.file.as_fd(), &vecs, at).map_err(LoadError::Read)? {
            0 => return Err(LoadError::Truncated),
            count => done += count,
        }
    }
    Ok(())
}
