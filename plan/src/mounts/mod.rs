//! What is mounted in a container: `--volume`, `--mount`, `--tmpfs`, `--volumes-from`, and the `VOLUME`s
//! of images, with Docker's rules and Docker's words for what breaks them.
//!
//! [`volume`] and [`flag`] read what was typed, [`together`] makes one list of all of it. Whether a path
//! of the host exists, and which volumes there are, is asked by whoever starts the container.

mod csv;
pub mod flag;
mod inherit;
pub mod tmpfs;
mod together;
pub mod volume;
pub mod volume_options;

pub use flag::MountFlag;
pub use hullbox_backend::mount::Propagation;
pub use inherit::VolumesFrom;
pub use together::{MountsError, together};
pub use volume::VolumeFlag;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything that was typed of mounts, with what was looked up for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountsRequest {
    /// `--volume`.
    pub volumes: Vec<VolumeFlag>,
    /// `--mount`.
    pub mounts: Vec<MountFlag>,
    /// `--volumes-from`.
    pub from: Vec<VolumesFrom>,
    /// The mounts of those containers, in the order of [`Self::from`]: see [`VolumesFrom::inherit`].
    pub inherited: Vec<ContainerMount>,
    /// `--volume-driver`, for volumes of `--volume` that there are not yet.
    pub driver: Option<String>,
    /// The command was forwarded to a helper machine: paths are those of the host outside.
    pub outside: bool,
}

/// A mount of a container, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerMount {
    /// What is mounted.
    pub source: Source,
    /// Absolute path in the container, without `.`, `..` and empty names.
    pub target: String,
    /// Nothing can be written there.
    #[serde(default)]
    pub read_only: bool,
    /// What is mounted below the source comes along.
    #[serde(default = "yes")]
    pub recursive: bool,
    /// What a read-only mount has below it.
    #[serde(default)]
    pub below: Below,
    /// How later mounts spread.
    #[serde(default)]
    pub propagation: Propagation,
    /// It gets what the image has there, if it is empty.
    #[serde(default)]
    pub copy_up: bool,
    /// Docker's `Mode`: the third field of `--volume`, or `z`.
    #[serde(default)]
    pub mode: String,
}

const fn yes() -> bool {
    true
}

/// What is mounted below the source of a read-only bind mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Below {
    /// Read-only where the kernel can (Linux 5.12).
    #[default]
    ReadOnly,
    /// Read-only, or the container does not start (`bind-recursive=readonly`).
    Forced,
    /// As the host has it (`bind-recursive=writable`).
    Writable,
}

/// What a [`ContainerMount`] shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A directory or a file of the host.
    Bind {
        /// Absolute path.
        path: String,
        /// Of the host outside the helper machine.
        #[serde(default)]
        outside: bool,
        /// It is made, as a directory, where it is missing.
        #[serde(default)]
        make: bool,
    },
    /// A volume.
    Volume(VolumeSource),
}

/// A volume of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSource {
    /// Its name. Empty in a plan is one that has to be made up.
    pub name: String,
    /// Nobody named it: it goes with its container.
    #[serde(default)]
    pub anonymous: bool,
    /// What of it is mounted, relative; empty for all.
    #[serde(default)]
    pub subpath: String,
    /// What it is made with if there is none of that name.
    #[serde(default)]
    pub make: VolumeMaking,
}

/// What a volume is made with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeMaking {
    /// The driver; `local` where it is empty.
    pub driver: String,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl ContainerMount {
    /// The volume that is mounted, if it is one.
    #[must_use]
    pub const fn volume(&self) -> Option<&VolumeSource> {
        match &self.source {
            Source::Volume(volume) => Some(volume),
            Source::Bind { .. } => None,
        }
    }

    /// A volume that nobody named.
    pub(crate) fn anonymous(target: String, driver: Option<&str>) -> Self {
        Self {
            source: Source::Volume(VolumeSource {
                anonymous: true,
                make: VolumeMaking {
                    driver: driver.unwrap_or_default().to_owned(),
                    ..VolumeMaking::default()
                },
                ..VolumeSource::default()
            }),
            target,
            read_only: false,
            recursive: true,
            below: Below::default(),
            propagation: Propagation::default(),
            copy_up: true,
            mode: String::new(),
        }
    }
}

/// An absolute path without `.`, `..` and empty names, as Go's `path.Clean` makes it.
#[must_use]
pub fn clean(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// A place in the container, cleaned.
///
/// # Errors
/// Docker's words: it is relative, or the root.
pub(crate) fn target(path: &str) -> Result<String, String> {
    // The root is said first: Docker looks at it first.
    if path.starts_with('/') && clean(path) == "/" {
        return Err("invalid specification: destination can't be '/'".to_owned());
    }
    if !path.starts_with('/') {
        return Err(format!(
            "invalid mount path: '{path}' mount path must be absolute"
        ));
    }
    Ok(clean(path))
}

/// Whether a path is another one or lies in it. Both clean.
#[must_use]
pub fn is_within(path: &str, of: &str) -> bool {
    let below = path.strip_prefix(of);
    below.is_some_and(|below| below.is_empty() || below.starts_with('/') || of == "/")
}

/// Propagation by its name.
pub(crate) fn propagation(word: &str) -> Option<Propagation> {
    Some(match word {
        "private" => Propagation::Private,
        "rprivate" => Propagation::Rprivate,
        "shared" => Propagation::Shared,
        "rshared" => Propagation::Rshared,
        "slave" => Propagation::Slave,
        "rslave" => Propagation::Rslave,
        _ => return None,
    })
}

/// The name of a propagation.
#[must_use]
pub const fn propagation_word(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Private => "private",
        Propagation::Rprivate => "rprivate",
        Propagation::Shared => "shared",
        Propagation::Rshared => "rshared",
        Propagation::Slave => "slave",
        Propagation::Rslave => "rslave",
    }
}

/// Longest name of a volume, in bytes: that of a directory.
const MAX_NAME: usize = 255;

/// Whether a volume can have this name.
///
/// # Errors
/// Docker's words.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.len() == 1 {
        return Err(
            "volume name is too short, names should be at least two alphanumeric characters"
                .to_owned(),
        );
    }
    let mut bytes = name.bytes();
    let first = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if !first || !rest {
        return Err(format!(
            "{name:?} includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use \
             absolute path"
        ));
    }
    if name.len() > MAX_NAME {
        return Err(format!("the name is longer than {MAX_NAME} bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
