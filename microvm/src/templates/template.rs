//! Finding a template and beginning there.

use super::error::TemplateError;
use super::files::place;
use super::key;
use crate::shape::{self, template_cmdline};
use hullbox_backend::bundle::GuestSize;
use hullbox_host::timing::{Phase, Timing};
use hullbox_vmm::{Foundation, Origin, Snapshot, VmShape, host_identity};
use sha2::{Digest, Sha256};
use std::io;
use std::path::Path;

/// What a template of this size is made from, digested.
pub(super) fn origin(size: GuestSize, data: &Path) -> Result<Origin, TemplateError> {
    let shape = shape::shape(size, data).map_err(TemplateError::Guest)?;
    origin_of(size, &shape)
}

/// The same for who has the shape that the size comes to.
fn origin_of(size: GuestSize, shape: &VmShape) -> Result<Origin, TemplateError> {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(part);
    };
    add(b"hullbox template 3");
    add(host_identity().map_err(TemplateError::Identity)?.as_bytes());
    for path in std::iter::once(&shape.kernel).chain(&shape.initramfs) {
        add(&file_identity(path).map_err(TemplateError::Identity)?);
    }
    add(template_cmdline().as_bytes());
    add(&[size.vcpus]);
    add(&size.memory_mib.to_le_bytes());
    add(&[size.disks]);
    Ok(hash.finalize().into())
}

/// A boot file that the program carries has its contents' hash in its name; any other is told by
/// its times of change.
fn file_identity(path: &Path) -> io::Result<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path)?;
    let mut identity = path.as_os_str().as_bytes().to_vec();
    for number in [metadata.mtime(), metadata.mtime_nsec()] {
        identity.extend_from_slice(&number.to_le_bytes());
    }
    identity.extend_from_slice(&metadata.len().to_le_bytes());
    Ok(identity)
}

/// A guest of this size that begins at a template, if there is one, and that template's id.
///
/// # Errors
/// There is one, and it cannot be used.
pub(crate) fn restore(
    size: GuestSize,
    data: &Path,
    timing: &Timing,
) -> Result<Option<(Foundation, String)>, TemplateError> {
    let shape = shape::shape(size, data).map_err(TemplateError::Guest)?;
    let origin = origin_of(size, &shape)?;
    let dir = place(&origin, data);
    if !dir.exists() {
        return Ok(None);
    }
    let key = key::read(data)?;
    let snapshot = Snapshot::open(&dir, &key, &origin, &[]).map_err(TemplateError::Snapshot)?;
    timing.mark(Phase::Template);
    let id = dir.file_name().unwrap_or_default().to_string_lossy();
    Foundation::restore(shape, snapshot)
        .map(|foundation| Some((foundation, id.into_owned())))
        .map_err(TemplateError::Restore)
}
