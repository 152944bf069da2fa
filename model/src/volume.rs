//! A volume, in the shape of Docker's `/volumes/NAME`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All that is known of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Volume {
    /// When it was made, in RFC 3339's form.
    pub created_at: String,
    /// Always `local`.
    pub driver: String,
    /// Labels; `null` where none were given, as in Docker.
    pub labels: Option<BTreeMap<String, String>>,
    /// Where its files are; of a block volume its image.
    pub mountpoint: String,
    /// Its name.
    pub name: String,
    /// Options of its driver; `null` where none were given.
    pub options: Option<BTreeMap<String, String>>,
    /// Always `local`.
    pub scope: String,
    /// What it takes and who uses it, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_data: Option<UsageData>,
}

/// What a volume takes, and who uses it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UsageData {
    /// Bytes on the disk; -1 of what is not ours.
    pub size: i64,
    /// How many containers have it, running or not.
    pub ref_count: i64,
}

/// What `volume ls` lists, as `/volumes` answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Listed {
    /// The volumes.
    pub volumes: Vec<Volume>,
    /// Always empty.
    pub warnings: Option<Vec<String>>,
}

/// What `volume prune` did, as `/volumes/prune` answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumesPruned {
    /// Names.
    pub volumes_deleted: Vec<String>,
    /// Space on the disk that they took, in bytes.
    pub space_reclaimed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_dockers_object() {
        let volume = Volume {
            name: "v".to_owned(),
            driver: "local".to_owned(),
            ..Volume::default()
        };
        let text = serde_json::to_string(&volume).unwrap();
        assert_eq!(
            text,
            r#"{"CreatedAt":"","Driver":"local","Labels":null,"Mountpoint":"","Name":"v","Options":null,"Scope":""}"#
        );
        assert_eq!(serde_json::from_str::<Volume>(&text).unwrap(), volume);
    }
}
