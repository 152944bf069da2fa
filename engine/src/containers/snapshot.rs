//! Saving running containers.

use super::{ContainerError, Engine};
use crate::monitor::control::Command;
use crate::snapshots::{About, Draft, SnapshotsError};
use crate::state::Record;
use hullbox_model::event::Verb;

impl Engine {
    /// Saves a running container under a name. It stands still meanwhile and then goes on.
    ///
    /// # Errors
    /// [`ContainerError`]; there is no snapshot then.
    pub fn snapshot(&self, record: &Record, name: &str) -> Result<(), ContainerError> {
        if let Some(mount) = record.spec.mounts.first() {
            return Err(ContainerError::Refused(format!(
                "container {} has files from outside (at {}), which a snapshot cannot hold: they go on changing, \
                 and a copy would find others where its memory has these",
                record.name, mount.target
            )));
        }
        let draft = Draft::begin(name, &self.roots.data)?;
        let about = About {
            container_id: record.id.clone(),
            container_name: record.name.clone(),
            image_id: record.image_id.clone(),
            image_ref: record.image_ref.clone(),
            created_s: chrono::Utc::now().timestamp(),
            // Its monitor knows.
            both_disks: false,
            spec: record.spec.clone(),
        };
        let about = serde_json::to_string(&about).map_err(SnapshotsError::About)?;
        let dir = draft.dir().to_owned();
        self.command(record, &Command::Save { dir, about })?;
        draft.finish()?;
        self.note(record, Verb::Checkpoint);
        Ok(())
    }
}
