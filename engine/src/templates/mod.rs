//! Templates: guests that were booted once for each shape and saved when their agent was ready,
//! so that others of the shape begin there instead of booting.
//!
//! ```text
//! templates/key              the secret that snapshots are authenticated with, 0600
//! templates/lock             held by the one who makes a template
//! templates/KEY/             one template: memory, state (see hullbox_vmm::Snapshot), about.json
//! templates/KEY.staging/     one that is being made, or was when somebody was killed
//! templates/KEY.failed       when it was last tried in vain, or replaced, in the background
//! ```
//!
//! KEY is a digest of everything that a template depends on: kernel, initramfs, command line,
//! virtual CPUs, memory, this program's version, the host's kernel and processor. What is not found
//! under its key does not exist; what is there under another key is stale.
//!
//! A template is taken before any workload, disk or network exists. So none of them is shared by
//! the guests that begin there; what they share by nature, the kernel's random state, is replaced
//! before the workload's first instruction (see [`hullbox_protocol::Setup::entropy`]).

mod build;
mod key;
mod list;

pub use build::{BuildError, Built, build, build_in_background, main};
pub(crate) use list::discard;
pub use list::{ListError, Listed, list, prune, remove};

use crate::config::{self, File, FileError};
use crate::plan::GuestSize;
use crate::timing::{Phase, Timing};
use crate::vm::{self, GuestError};
use hullbox_vmm::{
    Foundation, Origin, Snapshot, SnapshotError, SnapshotKey, VmError, VmShape, host_identity,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

/// The hidden argument that makes the program a builder of templates.
pub const ENTRY: &str = "__template";

/// The environment variable of [`Policy`].
pub const POLICY_VARIABLE: &str = "HULLBOX_TEMPLATES";

/// Whether guests may begin at a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// If there is one; and one is made after a run that found none.
    #[default]
    Auto,
    /// Every guest boots, and none is made.
    Never,
}

/// Why the policy cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The environment says something unknown.
    #[error("{POLICY_VARIABLE} is `{0}`; it can be never or auto")]
    Unknown(String),
    /// The configuration file.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What the configuration file says about templates.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Section {
    policy: Option<Policy>,
}

impl Policy {
    /// Of one container, for which the user may want it cold.
    pub(crate) fn of(cold: bool) -> Result<Self, PolicyError> {
        let policy = Self::configured()?;
        Ok(if cold { Self::Never } else { policy })
    }

    /// As the environment says, else the configuration file.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn configured() -> Result<Self, PolicyError> {
        Self::of_settings(config::variable(POLICY_VARIABLE).as_deref(), config::file)
    }

    /// The file is only looked at if the environment leaves it open.
    fn of_settings<'a>(
        variable: Option<&OsStr>,
        file: impl FnOnce() -> Result<&'a File, FileError>,
    ) -> Result<Self, PolicyError> {
        match variable {
            None => {
                let section: Section = file()?.table("templates")?;
                Ok(section.policy.unwrap_or_default())
            }
            Some(value) => match value.to_str() {
                Some("auto") => Ok(Self::Auto),
                Some("never") => Ok(Self::Never),
                _ => Err(PolicyError::Unknown(value.to_string_lossy().into_owned())),
            },
        }
    }
}

/// Why a template that is there cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// Its key cannot be computed.
    #[error("cannot tell which template it would be")]
    Identity(#[source] io::Error),
    /// Kernel or initramfs are not to be had.
    #[error("cannot tell what its guest boots")]
    Guest(#[source] GuestError),
    /// The secret cannot be read or made.
    #[error("cannot use {}", path.display())]
    Key {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The snapshot is refused.
    #[error("its snapshot cannot be used")]
    Snapshot(#[source] SnapshotError),
    /// The virtual machine cannot be made of it.
    #[error("its virtual machine cannot be restored")]
    Restore(#[source] VmError),
}

fn directory(data: &Path) -> PathBuf {
    data.join("templates")
}

/// What a template of this size is made from, digested.
fn origin(size: GuestSize, data: &Path) -> Result<Origin, TemplateError> {
    let shape = vm::shape(size, data).map_err(TemplateError::Guest)?;
    origin_of(size, &shape)
}

/// The same for who has the shape that the size comes to.
fn origin_of(size: GuestSize, shape: &VmShape) -> Result<Origin, TemplateError> {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(part);
    };
    add(b"hullbox template 1");
    add(host_identity().map_err(TemplateError::Identity)?.as_bytes());
    for path in std::iter::once(&shape.kernel).chain(&shape.initramfs) {
        add(&file_identity(path).map_err(TemplateError::Identity)?);
    }
    add(vm::template_cmdline().as_bytes());
    add(&[size.vcpus]);
    add(&size.memory_mib.to_le_bytes());
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

/// The directory of the template with this origin.
fn place(origin: &Origin, data: &Path) -> PathBuf {
    let mut name = String::with_capacity(32);
    for byte in &origin[..16] {
        name.push_str(&format!("{byte:02x}"));
    }
    directory(data).join(name)
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
    let shape = vm::shape(size, data).map_err(TemplateError::Guest)?;
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

/// The secret that makes a data directory's snapshots its own, made if there is none.
pub(crate) fn secret(data: &Path) -> Result<SnapshotKey, TemplateError> {
    match key::read(data) {
        Err(TemplateError::Key { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let _lock = build::lock(data, true).map_err(|error| TemplateError::Key {
                path: directory(data),
                source: io::Error::other(error),
            })?;
            key::read_or_make(data)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
