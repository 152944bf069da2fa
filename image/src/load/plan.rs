//! What a source is, and which images it has.

use super::error::LoadError;
use super::parts::{Blobs, PlannedImage};
use super::{ArchiveKind, docker, oci};
use crate::reference::Reference;

/// What is wanted of a source.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Choice<'a> {
    /// Repository for images that have a bare tag.
    pub base_name: Option<&'a Reference>,
    /// What the source has to be.
    pub kind: Option<ArchiveKind>,
    /// The one image that is wanted.
    pub only: Option<&'a str>,
}

/// Finds out what a source is, and its images' parts.
pub(super) fn plan(
    blobs: &mut dyn Blobs,
    choice: Choice<'_>,
) -> Result<Vec<PlannedImage>, LoadError> {
    // Archives of recent Docker versions are both; manifest.json then has all the names.
    if choice.kind != Some(ArchiveKind::Oci)
        && let Some(manifest) = blobs.small("manifest.json")?
    {
        return docker::plan(&manifest, blobs, choice.only);
    }
    if choice.kind != Some(ArchiveKind::Docker)
        && let Some(index) = blobs.small("index.json")?
    {
        return oci::plan(&index, blobs, choice);
    }
    Err(LoadError::NotAnImage)
}
