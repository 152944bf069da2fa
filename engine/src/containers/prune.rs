//! Removing the containers that do not run.

use super::{ContainerError, Engine};
use crate::state::Record;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunedContainers {
    /// Full ids.
    pub ids: Vec<String>,
    /// Disk space that they took, in bytes.
    pub reclaimed_bytes: u64,
}

impl Engine {
    /// Removes every container that does not run and that fits.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn prune(
        &self,
        fits: impl Fn(&Record) -> bool,
    ) -> Result<PrunedContainers, ContainerError> {
        let mut pruned = PrunedContainers::default();
        for record in self.state.list()? {
            if record.is_active() || !fits(&record) {
                continue;
            }
            let bytes = disk_use(&self.roots.container_dir(&record.id));
            match self.remove(&record.id, false) {
                Ok(()) => {
                    pruned.ids.push(record.id);
                    pruned.reclaimed_bytes += bytes;
                }
                // Somebody started or removed it meanwhile.
                Err(ContainerError::Running(_) | ContainerError::State(_)) => {}
                Err(error) => return Err(error),
            }
        }
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
