//! Whether the containers' state and what lies on the disk agree.

use super::{ContainerError, Engine};
use crate::paths::short_id;
use crate::snapshots;
use crate::state::{Phase, Stray, StrayVolume};
use std::collections::HashSet;
use std::fs;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What, in words.
    pub what: String,
    /// It is no longer so.
    pub repaired: bool,
}

impl Engine {
    /// Looks for what nobody tells of: directories without a record, records without a directory
    /// or an image. With `repair`, what lies around is removed.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn check(&self, repair: bool) -> Result<Vec<Finding>, ContainerError> {
        let mut findings = Vec::new();
        for what in self.state.problems()? {
            findings.push(Finding {
                what: format!("the container database: {what}"),
                repaired: false,
            });
        }
        // Directories first: a container that is made meanwhile has its record by then.
        let mut seen = Vec::new();
        for (dir, named) in [
            (self.roots.data.join("containers"), "container directory"),
            (self.roots.runtime.clone(), "runtime directory"),
        ] {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let ours = matches!(name.len(), 12 | 64)
                    && name.bytes().all(|byte| byte.is_ascii_hexdigit());
                if ours {
                    seen.push((named, name, entry.path()));
                }
            }
        }
        let records = self.state.list()?;
        let known: HashSet<&str> = records
            .iter()
            .flat_map(|record| [record.id.as_str(), short_id(&record.id)])
            .collect();
        for (named, name, path) in seen {
            if !known.contains(name.as_str()) {
                let repaired = repair && fs::remove_dir_all(&path).is_ok();
                let what = format!("the {named} {} belongs to no container", path.display());
                findings.push(Finding { what, repaired });
            }
        }
        for stray in self.state.stray_networks(repair)? {
            let what = match stray {
                Stray::Network(id, name) => {
                    format!(
                        "the record of network {name} ({}) is damaged",
                        short_id(&id)
                    )
                }
                Stray::Endpoint(network, container) => format!(
                    "container {} has a place in network {}, of which one is gone",
                    short_id(&container),
                    short_id(&network)
                ),
            };
            findings.push(Finding {
                what,
                repaired: repair,
            });
        }
        for (stray, repaired) in self.state.stray_volumes(repair)? {
            let what = match stray {
                StrayVolume::Directory(path) => {
                    format!("the directory {} belongs to no volume", path.display())
                }
                StrayVolume::Record(name) => format!("the record of volume {name} is damaged"),
                StrayVolume::Use(volume, container) => format!(
                    "container {} has volume {volume}, of which one is gone",
                    short_id(&container)
                ),
            };
            findings.push(Finding { what, repaired });
        }
        for (path, repaired) in snapshots::abandoned(&self.roots.data, repair) {
            let what = format!("the snapshot {} was never finished", path.display());
            findings.push(Finding { what, repaired });
        }
        let store = self.images()?;
        for record in &records {
            let missing = |what: &str| Finding {
                what: format!("container {} has lost its {what}", short_id(&record.id)),
                repaired: false,
            };
            // Whoever made it may have been killed before its directory: it has one when it is used.
            let unused = record.phase == Phase::Created;
            if !unused && !self.roots.container_dir(&record.id).is_dir() {
                findings.push(missing("directory"));
            }
            if store.resolve(&record.image_id).is_err() {
                findings.push(missing("image"));
            }
        }
        Ok(findings)
    }
}
