//! What images and containers take on the disk.

use super::list::ImageSizes;
use super::{ContainerError, Engine, disk_use};
use crate::{snapshots, templates};
use hullbox_model::system::{DiskUsage, Usage};

impl Engine {
    /// What is on the disk.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn disk_usage(&self) -> Result<DiskUsage, ContainerError> {
        let store = self.images()?;
        let usage = store.usage(&mut |id| self.image_use(id))?;
        let mut images = store.summaries()?;
        let records = self.state.list()?;
        for image in &mut images {
            let made = records.iter().filter(|record| record.image_id == image.id);
            image.containers = i64::try_from(made.count()).unwrap_or(i64::MAX);
        }
        let mut containers = Vec::new();
        let mut container_usage = Usage::default();
        let (mut sizes, now_ns) = (ImageSizes::new(&store), crate::events::now_ns());
        for record in &records {
            let bytes = disk_use(&self.roots.container_dir(&record.id));
            container_usage.add(bytes, bytes, record.is_active());
            containers.push(self.summary_with_sizes(record, now_ns, &mut sizes));
        }
        let mut template_usage = Usage::default();
        for one in templates::list(&self.roots.data)? {
            template_usage.add(one.disk_bytes, one.disk_bytes, one.current);
        }
        let mut snapshot_usage = Usage::default();
        for one in snapshots::list(&self.roots.data)? {
            snapshot_usage.add(one.disk_bytes, one.disk_bytes, true);
        }
        let volumes = self.volume_usage()?;
        let mut volume_usage = Usage::default();
        for volume in &volumes {
            let usage = volume.usage_data.unwrap_or_default();
            let bytes = u64::try_from(usage.size).unwrap_or(0);
            volume_usage.add(bytes, bytes, usage.ref_count > 0);
        }
        Ok(DiskUsage {
            layers_size: usage.size_bytes,
            images,
            containers,
            volumes,
            volume_usage,
            image_usage: Usage {
                active_count: usage.active,
                total_count: usage.images,
                // What was left of downloads goes with `image prune` too.
                reclaimable: usage.reclaimable_bytes + usage.partial.reclaimable_bytes,
                total_size: usage.size_bytes + usage.partial.disk_bytes,
                disk_size: usage.disk_bytes + usage.partial.disk_bytes,
            },
            container_usage,
            template_usage,
            snapshot_usage,
            ..DiskUsage::default()
        })
    }
}
