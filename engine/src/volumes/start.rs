//! What a container gets of files from outside when it starts.

use super::{VolumesError, check_driver, check_options, mounted};
use crate::bundle::Isolation;
use crate::containers::{ContainerError, Engine};
use crate::plan::ContainerSpec;
use crate::plan::mounts::volume_options::{Backing, backing};
use crate::plan::mounts::{Below, ContainerMount, Source, VolumeSource};
use crate::state::{self, StateError, VolumeRecord};
use hullbox_backend::mount::{Mount, MountSource};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Looks whether everything that a new container is to have can be had, gives volumes that nobody named a
/// name, and notes the options of those that there are. Nothing is made.
pub(crate) fn settle(engine: &Engine, spec: &mut ContainerSpec) -> Result<(), ContainerError> {
    let isolation = spec.isolation;
    for mount in &mut spec.mounts {
        match &mut mount.source {
            Source::Bind {
                path,
                outside: false,
                make: false,
            } if !Path::new(path).exists() => {
                return Err(VolumesError::NoSource(path.clone()).into());
            }
            Source::Bind { .. } => {}
            Source::Volume(volume) => {
                if volume.name.is_empty() {
                    volume.name = state::new_id().map_err(ContainerError::Random)?;
                }
                volume.make.options = check_volume(engine, isolation, volume)?;
            }
        }
    }
    Ok(())
}

fn check_volume(
    engine: &Engine,
    isolation: Isolation,
    volume: &VolumeSource,
) -> Result<BTreeMap<String, String>, ContainerError> {
    let name = &volume.name;
    check_driver(name, &volume.make.driver)?;
    let options = match engine.state().volume(name) {
        Ok(record) => {
            let wanted = &volume.make.options;
            if !wanted.is_empty() && *wanted != record.spec.options {
                return Err(StateError::VolumeDiffers(name.clone()).into());
            }
            record.spec.options
        }
        Err(StateError::VolumeNotFound(_)) => volume.make.options.clone(),
        Err(error) => return Err(error.into()),
    };
    match check_options(name, &options)? {
        Backing::Disk { .. } if isolation == Isolation::Container => {
            Err(VolumesError::Disk(name.clone()).into())
        }
        _ => Ok(options),
    }
}

/// The mounts of a container that is about to start. Paths of the host that are to be made are made,
/// volumes' directories are there, and their file systems are mounted.
pub(crate) fn resolve(
    engine: &Engine,
    id: &str,
    spec: &ContainerSpec,
) -> Result<Vec<Mount>, ContainerError> {
    let one = |mount: &ContainerMount| -> Result<Mount, ContainerError> {
        let (source, subpath, volume) = match &mount.source {
            Source::Bind {
                path,
                outside: true,
                ..
            } => (MountSource::Outside(path.into()), String::new(), false),
            Source::Bind { path, make, .. } => {
                ensure_source(path, *make)?;
                (MountSource::Here(path.into()), String::new(), false)
            }
            Source::Volume(volume) => {
                let record = engine.state().volume(&volume.name)?;
                let (source, own) = of_volume(engine, id, &record)?;
                (source, volume.subpath.clone(), own)
            }
        };
        Ok(Mount {
            source,
            subpath,
            target: mount.target.clone(),
            read_only: mount.read_only,
            recursive: mount.recursive,
            writable_submounts: mount.below == Below::Writable,
            propagation: mount.propagation,
            copy_up: mount.copy_up,
            volume,
        })
    };
    spec.mounts.iter().map(one).collect()
}

fn ensure_source(path: &str, make: bool) -> Result<(), VolumesError> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && make => {
            std::fs::create_dir_all(path).map_err(|source| VolumesError::MakeSource {
                path: path.to_owned(),
                source,
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(VolumesError::NoSource(path.to_owned()))
        }
        // What else is the matter is told by whoever mounts it.
        _ => Ok(()),
    }
}

/// Where a volume's files are, and whether their owners are the container's users.
fn of_volume(
    engine: &Engine,
    id: &str,
    record: &VolumeRecord,
) -> Result<(MountSource, bool), ContainerError> {
    engine.state().prepare_volume(record)?;
    let wrong = |why| VolumesError::Options {
        name: record.name.clone(),
        why,
    };
    Ok(match backing(&record.spec.options).map_err(wrong)? {
        Backing::Directory => (MountSource::Here(record.data()), true),
        Backing::Bind { path } if record.spec.outside => (MountSource::Outside(path.into()), false),
        Backing::Bind { path } => (MountSource::Here(bound(record, path)?), false),
        Backing::FileSystem {
            kind,
            device,
            options,
        } => {
            let used = in_use(engine, id, record)?;
            mounted::mount(record, (&kind, &device, &options), used)?;
            (MountSource::Here(record.data()), false)
        }
        Backing::Disk { bytes } => {
            engine.make_disk(record, bytes)?;
            (MountSource::Disk(record.disk()), true)
        }
    })
}

/// The directory that is to be a volume: Docker mounts it, and makes none.
fn bound(record: &VolumeRecord, path: String) -> Result<PathBuf, VolumesError> {
    match std::fs::metadata(&path) {
        Ok(_) => Ok(path.into()),
        Err(source) => Err(VolumesError::Mount {
            name: record.name.clone(),
            device: path,
            on: record.data(),
            source,
        }),
    }
}

/// Whether another container that runs has the volume.
fn in_use(engine: &Engine, id: &str, record: &VolumeRecord) -> Result<bool, ContainerError> {
    for user in engine.state().volume_users(&record.name)? {
        if user == id {
            continue;
        }
        match engine.state().get(&user) {
            Ok(other) if engine.state().is_held(&other)? => return Ok(true),
            _ => {}
        }
    }
    Ok(false)
}
