//! What is in a file of a snapshot, whichever file it is in.
//!
//! The stamp says at once that a file is the one that was saved. A copy of it, one that came back
//! from a backup, or one whose label was changed has another stamp and the same contents; so these
//! are digested when the snapshot is made, and again when the stamp does not fit.

use super::memory_file::Stamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const PAGE: usize = 4096;
const BLOCK: usize = 1 << 20;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Contents {
    stamp: Stamp,
    digest: [u8; 32],
}

/// What a file is, compared with what was saved.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The file that was saved.
    Same,
    /// Another one, or a file whose times changed, with the same contents.
    Equal(Contents),
    /// Something else.
    Changed,
}

impl Contents {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        Ok(Self {
            stamp: Stamp::of(file)?,
            digest: digest(file)?,
        })
    }

    /// Compare a file with this. Reads it only if its stamp is another one.
    pub(super) fn compare(&self, file: &File) -> io::Result<Verdict> {
        let stamp = Stamp::of(file)?;
        if stamp == self.stamp {
            return Ok(Verdict::Same);
        }
        if stamp.bytes() != self.stamp.bytes() || digest(file)? != self.digest {
            return Ok(Verdict::Changed);
        }
        // Who wrote to it meanwhile has changed its stamp again.
        if Stamp::of(file)? != stamp {
            return Ok(Verdict::Changed);
        }
        let digest = self.digest;
        Ok(Verdict::Equal(Self { stamp, digest }))
    }
}

/// The digest of a file's length and of its pages that are not zero, each with its place: holes
/// may be filled, and zeroes become holes, when a file is copied.
fn digest(file: &File) -> io::Result<[u8; 32]> {
    let len = file.metadata()?.len();
    let mut hash = Sha256::new();
    hash.update(len.to_le_bytes());
    let mut block = vec![0u8; BLOCK];
    let mut at = 0;
    while at < len {
        match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => at = data - data % PAGE as u64,
            // Nothing but a hole is left.
            Err(rustix::io::Errno::NXIO) => break,
            // A file system that knows no holes.
            Err(_) => {}
        }
        let count = file.read_at(&mut block, at)?;
        // Whole pages, but for the file's end: the rest is read again.
        let count = match count {
            0 => break,
            count if count >= PAGE => count - count % PAGE,
            count => count,
        };
        for (index, page) in block[..count].chunks(PAGE).enumerate() {
            if page.iter().any(|byte| *byte != 0) {
                hash.update((at + (index * PAGE) as u64).to_le_bytes());
                hash.update(page);
            }
        }
        at += count as u64;
    }
    Ok(hash.finalize().into())
}
