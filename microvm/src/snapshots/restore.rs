//! Going on from where a guest was saved.

use super::error::{SavedGuestError, file_error};
use crate::shape::shape;
use crate::templates;
use hullbox_backend::bundle::GuestSize;
use hullbox_backend::saving::DESCRIPTION_FILE;
use hullbox_host::paths::DISK_FILE;
use hullbox_host::timing::{Phase, Timing};
use hullbox_vmm::{Foundation, Origin, Snapshot};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;

/// What a description says of the guest itself; the rest is not this crate's.
#[derive(Debug, Deserialize)]
pub(crate) struct Saved {
    /// It has both disks, whether there is something behind them or not.
    pub(crate) both_disks: bool,
    spec: GuestSize,
}

/// A guest that goes on where it was saved, and what of.
pub(crate) fn restore(
    dir: &Path,
    data: &Path,
    timing: &Timing,
) -> Result<(Saved, Foundation), SavedGuestError> {
    let path = dir.join(DESCRIPTION_FILE);
    let text = fs::read(&path).map_err(file_error(&path))?;
    let saved: Saved = serde_json::from_slice(&text).map_err(SavedGuestError::Description)?;
    let shape = shape(saved.spec, data).map_err(SavedGuestError::Guest)?;
    let key = templates::secret(data)?;
    let origin = origin(&text);
    let snapshot =
        Snapshot::open(dir, &key, &origin, &[DISK_FILE]).map_err(SavedGuestError::Refused)?;
    timing.mark(Phase::Template);
    let foundation = Foundation::restore(shape, snapshot).map_err(SavedGuestError::Restore)?;
    Ok((saved, foundation))
}

/// The description as it is, digested.
pub(super) fn origin(about: &[u8]) -> Origin {
    let mut hash = Sha256::new();
    hash.update(b"hullbox snapshot 3");
    hash.update(about);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_part_of_it() {
        assert_eq!(origin(b"{}"), origin(b"{}"));
        assert_ne!(origin(b"{}"), origin(b"{ }"));
    }
}
