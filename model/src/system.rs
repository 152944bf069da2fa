//! What images and containers take, and what was given back.

use crate::{container, image, volume};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is on the disk, in the shape of Docker's `/system/df`: the fields of its first version and
/// those of API 1.52.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DiskUsage {
    /// Bytes of the files in all layers, each layer counted once.
    pub layers_size: u64,
    /// The images.
    pub images: Vec<image::Summary>,
    /// The containers, with their sizes.
    pub containers: Vec<container::Summary>,
    /// The volumes, with what they take.
    pub volumes: Vec<volume::Volume>,
    /// Always empty.
    pub build_cache: Vec<Value>,
    /// All images together.
    pub image_usage: Usage,
    /// All containers together.
    pub container_usage: Usage,
    /// All volumes together.
    pub volume_usage: Usage,
    /// Templates together: a kind of ours.
    pub template_usage: Usage,
    /// Snapshots together: a kind of ours.
    pub snapshot_usage: Usage,
}

/// Objects of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Usage {
    /// Of them, how many are in use.
    pub active_count: u64,
    /// How many there are.
    pub total_count: u64,
    /// Bytes that those take which are not in use.
    pub reclaimable: u64,
    /// Bytes that all of them take.
    pub total_size: u64,
    /// Space on the disk that all of them take, in bytes: layers are compressed, and disks have
    /// holes.
    pub disk_size: u64,
}

impl Usage {
    /// Counts one more.
    pub const fn add(&mut self, size: u64, disk_size: u64, active: bool) {
        self.total_count += 1;
        self.total_size = self.total_size.saturating_add(size);
        self.disk_size = self.disk_size.saturating_add(disk_size);
        if active {
            self.active_count += 1;
        } else {
            self.reclaimable = self.reclaimable.saturating_add(size);
        }
    }
}

/// What `container prune` did, as `/containers/prune` answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainersPruned {
    /// Full ids.
    pub containers_deleted: Vec<String>,
    /// Space on the disk that they took, in bytes.
    pub space_reclaimed: u64,
}

/// What `image prune` did, as `/images/prune` answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImagesPruned {
    /// Step by step.
    pub images_deleted: Vec<ImageDeleted>,
    /// Space on the disk that they took, in bytes.
    pub space_reclaimed: u64,
}

/// A step of removing images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageDeleted {
    /// A name was taken away.
    Untagged(String),
    /// The image with this id is gone.
    Deleted(String),
}

/// What `wait` waited for, as `/containers/ID/wait` answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Waited {
    /// The exit code.
    pub status_code: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_dockers() {
        let pruned = ImagesPruned {
            images_deleted: vec![
                ImageDeleted::Untagged("a:1".to_owned()),
                ImageDeleted::Deleted("sha256:0".to_owned()),
            ],
            space_reclaimed: 7,
        };
        assert_eq!(
            serde_json::to_string(&pruned).unwrap(),
            r#"{"ImagesDeleted":[{"Untagged":"a:1"},{"Deleted":"sha256:0"}],"SpaceReclaimed":7}"#
        );
        let text = serde_json::to_string(&DiskUsage::default()).unwrap();
        assert!(text.starts_with(r#"{"LayersSize":0,"Images":[],"Containers":[],"Volumes":[]"#));
    }
}
