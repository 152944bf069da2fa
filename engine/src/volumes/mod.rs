//! What front ends do with volumes: make, find, list, change and remove them; and what a container gets
//! of them when it starts.

mod error;
mod mounted;
mod start;

pub use error::VolumesError;
pub(crate) use start::{resolve, settle};

use crate::containers::{ContainerError, Engine, disk_use};
use crate::events;
use crate::plan::mounts::volume_options::{self, Backing, DRIVER};
use crate::plan::mounts::{self};
use crate::state::{self, StateError, VolumeRecord, VolumeSpec};
use hullbox_model::event::{Kind, Verb};
use hullbox_model::filter::Filters;
use hullbox_model::time;
use hullbox_model::volume::{UsageData, Volume, VolumesPruned};
use std::collections::BTreeMap;

/// Keys of a listing's filters.
pub const VOLUME_FILTERS: &[&str] = &["dangling", "driver", "label", "name"];
/// Keys of the filters of what is to be removed.
pub const VOLUME_PRUNE_FILTERS: &[&str] = &["all", "label", "label!"];

/// Docker's word for a volume of this host.
const SCOPE: &str = "local";

/// What `volume create` is asked for.
#[derive(Debug, Clone, Default)]
pub struct VolumeOrder {
    /// The name; made up when it is empty.
    pub name: String,
    /// `--driver`; `local` where it is empty.
    pub driver: String,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--opt`.
    pub options: BTreeMap<String, String>,
    /// The command was forwarded to a helper machine: paths are those of the host outside.
    pub outside: bool,
}

impl Engine {
    /// Makes a volume; one that there is already is left as it is. Returns its name.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn create_volume(&self, order: VolumeOrder) -> Result<String, ContainerError> {
        let mut labels = order.labels;
        let name = match order.name.is_empty() {
            true => {
                labels.insert(state::ANONYMOUS.to_owned(), String::new());
                state::new_id().map_err(ContainerError::Random)?
            }
            false => order.name,
        };
        mounts::check_name(&name).map_err(|why| VolumesError::Name {
            name: name.clone(),
            why,
        })?;
        check_driver(&name, &order.driver)?;
        let backing = check_options(&name, &order.options)?;
        let spec = VolumeSpec {
            labels: (!labels.is_empty()).then_some(labels),
            options: order.options,
            outside: order.outside && matches!(backing, Backing::Bind { .. }),
        };
        let (record, new) = self.state().create_volume(&name, &spec)?;
        self.state().prepare_volume(&record)?;
        if let Backing::Disk { bytes } = backing {
            self.make_disk(&record, bytes)?;
        }
        if new {
            self.note_volume(&name, Verb::Create);
        }
        Ok(name)
    }

    /// The image of a block volume, made where it is missing.
    pub(crate) fn make_disk(&self, record: &VolumeRecord, bytes: u64) -> Result<(), VolumesError> {
        let path = record.disk();
        if path.exists() {
            return Ok(());
        }
        let made = hullbox_microvm::make_volume(&self.roots().data, &path, bytes);
        made.map_err(|source| VolumesError::Image {
            action: "make",
            name: record.name.clone(),
            source,
        })
    }

    /// The volumes that fit, in the order of their names.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn list_volumes(&self, filters: &Filters) -> Result<Vec<Volume>, ContainerError> {
        let dangling = filters.boolean("dangling")?;
        let used = self.state().volume_use_counts()?;
        let fits = |record: &VolumeRecord| {
            filters.matches("name", &record.name)
                && filters.exact("driver", DRIVER)
                && filters.labels("label", |name| label(record, name))
                && dangling.is_none_or(|wanted| used.contains_key(&record.name) != wanted)
        };
        let all = self.state().volumes()?.into_iter();
        Ok(all.filter(fits).map(|record| volume(&record)).collect())
    }

    /// All that is known of a volume.
    ///
    /// # Errors
    /// [`StateError::VolumeNotFound`] among others.
    pub fn inspect_volume(&self, name: &str) -> Result<Volume, ContainerError> {
        Ok(volume(&self.state().volume(name)?))
    }

    /// Removes a volume that no container has.
    ///
    /// # Errors
    /// [`StateError::VolumeInUse`] among others.
    pub fn remove_volume(&self, name: &str) -> Result<(), ContainerError> {
        self.forget_volume(name)?;
        Ok(())
    }

    /// Removes every volume that no container has and that fits: those that nobody named, and with the filter
    /// `all` the others, too.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn prune_volumes(&self, filters: &Filters) -> Result<VolumesPruned, ContainerError> {
        let all = filters.boolean("all")? == Some(true);
        let used = self.state().volume_use_counts()?;
        let mut pruned = VolumesPruned::default();
        for record in self.state().volumes()? {
            let anonymous = label(&record, state::ANONYMOUS).is_some();
            let fits = (all || anonymous)
                && !used.contains_key(&record.name)
                && filters.labels("label", |name| label(&record, name))
                && filters.not_labels("label!", |name| label(&record, name));
            if !fits {
                continue;
            }
            let bytes = self.volume_bytes(&record);
            match self.forget_volume(&record.name) {
                Ok(()) => {
                    pruned.volumes_deleted.push(record.name);
                    pruned.space_reclaimed = pruned.space_reclaimed.saturating_add(bytes);
                }
                // Somebody took or removed it meanwhile.
                Err(StateError::VolumeInUse { .. } | StateError::VolumeNotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.note_prune(Kind::Volume, pruned.space_reclaimed);
        Ok(pruned)
    }

    /// Makes the disk of a volume larger, while no container uses it.
    ///
    /// # Errors
    /// [`VolumesError::Grow`] among others.
    pub fn grow_volume(&self, name: &str, size: &str) -> Result<(), ContainerError> {
        let record = self.state().volume(name)?;
        let options = volume_options::grown(&record.spec.options, size);
        let wrong = |why| VolumesError::Update {
            name: name.to_owned(),
            why,
        };
        let options = options.map_err(wrong)?;
        let Backing::Disk { bytes } = volume_options::backing(&options).map_err(wrong)? else {
            return Ok(());
        };
        self.state().prepare_volume(&record)?;
        self.make_disk(&record, bytes)?;
        hullbox_microvm::grow_volume(&self.roots().data, &record.disk(), bytes).map_err(
            |error| VolumesError::Grow {
                name: name.to_owned(),
                why: error.to_string(),
            },
        )?;
        self.state()
            .change_volume(name, |spec| spec.options = options)?;
        Ok(())
    }

    /// What volumes take, in the order of their names.
    pub(crate) fn volume_usage(&self) -> Result<Vec<Volume>, ContainerError> {
        let used = self.state().volume_use_counts()?;
        let all = self.state().volumes()?.into_iter();
        let usage = |record: VolumeRecord| {
            let size = match volume_options::backing(&record.spec.options) {
                Ok(Backing::Directory | Backing::Disk { .. }) => self.volume_bytes(&record),
                // It is not ours.
                _ => 0,
            };
            Volume {
                usage_data: Some(UsageData {
                    size: i64::try_from(size).unwrap_or(i64::MAX),
                    ref_count: used.get(&record.name).copied().unwrap_or(0),
                }),
                ..volume(&record)
            }
        };
        Ok(all.map(usage).collect())
    }

    fn volume_bytes(&self, record: &VolumeRecord) -> u64 {
        match volume_options::backing(&record.spec.options) {
            Ok(Backing::FileSystem { .. }) => 0,
            _ => disk_use(record.dir()),
        }
    }

    /// Removes a volume, and what is mounted for it.
    fn forget_volume(&self, name: &str) -> Result<(), StateError> {
        if self.state().volume_users(name)?.is_empty()
            && let Ok(record) = self.state().volume(name)
        {
            mounted::unmount(&record);
        }
        self.state().remove_volume(name)?;
        self.note_volume(name, Verb::Destroy);
        Ok(())
    }

    /// Notes that something happened to a volume.
    pub(crate) fn note_volume(&self, name: &str, verb: Verb) {
        events::emit_all(self.roots(), &[events::volume_event(name, verb)]);
    }
}

fn check_driver(name: &str, driver: &str) -> Result<(), VolumesError> {
    match driver {
        "" | DRIVER => Ok(()),
        driver => Err(VolumesError::Driver {
            name: name.to_owned(),
            driver: driver.to_owned(),
        }),
    }
}

fn check_options(name: &str, options: &BTreeMap<String, String>) -> Result<Backing, VolumesError> {
    volume_options::backing(options).map_err(|why| VolumesError::Options {
        name: name.to_owned(),
        why,
    })
}

fn label<'a>(record: &'a VolumeRecord, name: &str) -> Option<&'a str> {
    let labels = record.spec.labels.as_ref()?;
    labels.get(name).map(String::as_str)
}

/// What is known of a volume.
fn volume(record: &VolumeRecord) -> Volume {
    let options = &record.spec.options;
    let mountpoint = match record.is_disk() {
        true => record.disk(),
        false => record.data(),
    };
    Volume {
        created_at: time::rfc3339(record.created_ns),
        driver: DRIVER.to_owned(),
        labels: record.spec.labels.clone(),
        mountpoint: mountpoint.to_string_lossy().into_owned(),
        name: record.name.clone(),
        options: (!options.is_empty()).then(|| options.clone()),
        scope: SCOPE.to_owned(),
        usage_data: None,
    }
}
