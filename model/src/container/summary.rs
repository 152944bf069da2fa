//! A line of `ps`, in the shape of Docker's `/containers/json`.

use super::{MountPoint, Network};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a listing tells of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Summary {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name after a slash.
    pub names: Vec<String>,
    /// The image as it was named.
    pub image: String,
    /// The image's id.
    #[serde(rename = "ImageID")]
    pub image_id: String,
    /// What it runs, in one line.
    pub command: String,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// Ports that are exposed or published.
    pub ports: Vec<Port>,
    /// Bytes of what it has written, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<u64>,
    /// The same with its image's files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<u64>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Docker's word for where in its life it is.
    pub state: String,
    /// The same for people: `Up 2 hours (healthy)`.
    pub status: String,
    /// Its network.
    pub host_config: SummaryHostConfig,
    /// The networks it is in.
    pub network_settings: SummaryNetworks,
    /// What is mounted in it.
    pub mounts: Vec<MountPoint>,
    /// `vm` or `container`: what stands between it and the host.
    pub isolation: String,
}

/// Part of [`super::HostConfig`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SummaryHostConfig {
    /// Its network, by name.
    pub network_mode: String,
}

/// Part of [`super::NetworkSettings`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SummaryNetworks {
    /// By name.
    pub networks: BTreeMap<String, Network>,
}

/// A port that is exposed, or published at one address of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Port {
    /// Address of the host.
    #[serde(rename = "IP", skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// In the container.
    pub private_port: u16,
    /// On the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_port: Option<u16>,
    /// `tcp`, `udp`.
    #[serde(rename = "Type")]
    pub kind: String,
}
