//! Mounts: as they are in a container, and as they were asked for.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Something that is mounted in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountPoint {
    /// `bind`, `volume`, `tmpfs`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// A volume's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where it comes from.
    pub source: String,
    /// Where it is.
    pub destination: String,
    /// A volume's driver.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// Options.
    pub mode: String,
    /// It can be written.
    #[serde(rename = "RW")]
    pub writable: bool,
    /// Whether later mounts are seen on the other side.
    pub propagation: String,
}

/// A mount of `--mount`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountSpec {
    /// `bind`, `volume`, `tmpfs`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// A path of the host, or a volume's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Where it is, as typed.
    pub target: String,
    /// It cannot be written.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// Means nothing here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub consistency: String,
    /// Of a path of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_options: Option<BindOptions>,
    /// Of a volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_options: Option<VolumeOptions>,
    /// Of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_options: Option<TmpfsOptions>,
}

/// What was said of a path of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BindOptions {
    /// How later mounts spread.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub propagation: String,
    /// What is mounted below it stays behind.
    #[serde(skip_serializing_if = "is_default")]
    pub non_recursive: bool,
    /// A missing one is made.
    #[serde(skip_serializing_if = "is_default")]
    pub create_mountpoint: bool,
    /// What is mounted below a read-only one is as the host has it.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only_non_recursive: bool,
    /// What is mounted below it is read-only, or it fails.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only_force_recursive: bool,
}

/// What was said of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeOptions {
    /// It is not filled from the image.
    #[serde(skip_serializing_if = "is_default")]
    pub no_copy: bool,
    /// Labels, if it is made.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its driver, if it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_config: Option<MountDriver>,
    /// What of it is mounted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subpath: String,
}

/// A volume's driver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountDriver {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// What was said of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TmpfsOptions {
    /// Bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub size_bytes: u64,
    /// Permissions of its root.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: u32,
}

/// Go leaves out what has no value.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
