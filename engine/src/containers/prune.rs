//! Removing the containers that do not run.

use super::{ContainerError, Engine};
use crate::state::Record;
use hullbox_model::event::Kind;
use hullbox_model::filter::Filters;
use hullbox_model::system::ContainersPruned;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Keys of the filters of what is to be removed.
pub const PRUNE_FILTERS: &[&str] = &["label", "label!", "until"];

impl Engine {
    /// Removes every container that does not run and that fits.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn prune(&self, filters: &Filters) -> Result<ContainersPruned, ContainerError> {
        let until_ns = filters.until()?;
        let fits = |record: &Record| {
            let label = |name: &str| record.spec.labels.get(name).map(String::as_str);
            until_ns.is_none_or(|until| record.created_ns < until)
                && filters.labels("label", label)
                && filters.not_labels("label!", label)
        };
        let mut pruned = ContainersPruned::default();
        for record in self.state.list()? {
            if record.is_active() || !fits(&record) {
                continue;
            }
            let bytes = disk_use(&self.roots.container_dir(&record.id));
            match self.remove(&record.id, false, false) {
                Ok(()) => {
                    pruned.containers_deleted.push(record.id);
                    pruned.space_reclaimed += bytes;
                }
                // Somebody started or removed it meanwhile.
                Err(ContainerError::Running(_) | ContainerError::State(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.note_prune(Kind::Container, pruned.space_reclaimed);
        Ok(pruned)
    }
}

/// Space that a directory of ours takes, in bytes. What cannot be looked at counts nothing.
#[must_use]
pub fn disk_use(dir: &Path) -> u64 {
    let mut bytes = 0;
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    bytes
}
