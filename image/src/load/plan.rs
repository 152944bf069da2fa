//! What a source is, and which images it has.

use super::error::LoadError;
use super::parts::{Blobs, PlannedImage};
use super::{docker, oci};
use crate::reference::Reference;

/// Finds out what a source is, and its images' parts.
pub(super) fn plan(
    blobs: &mut dyn Blobs,
    base_name: Option<&Reference>,
) -> Result<Vec<PlannedImage>, LoadError> {
    // Archives of recent Docker versions are both; manifest.json then has all the names.
    if let Some(manifest) = blobs.small("manifest.json")? {
        return docker::plan(&manifest, blobs);
    }
    if let Some(index) = blobs.small("index.json")? {
        return oci::plan(&index, blobs, base_name);
    }
    Err(LoadError::NotAnImage)
}
