//! Mounts, in Docker's shape.

use crate::paths::Roots;
use crate::plan::ContainerSpec;
use crate::plan::mounts::flag::shown_propagation;
use crate::plan::mounts::volume_options::{DRIVER, is_disk};
use crate::plan::mounts::{ContainerMount, Source, clean};
use hullbox_model::container::{Config, Empty, MountPoint, MountSpec, Set};
use hullbox_protocol::TmpfsMount;
use std::collections::BTreeMap;

/// What is mounted in a container, as `inspect` and `ps` tell it.
pub(crate) fn points(spec: &ContainerSpec, roots: &Roots) -> Vec<MountPoint> {
    let files = spec.mounts.iter().map(|mount| point(mount, roots));
    let memory = memory_flags(spec).map(|flag| MountPoint {
        kind: flag.kind.clone(),
        destination: clean(&flag.target),
        writable: !flag.read_only,
        ..MountPoint::default()
    });
    files.chain(memory).collect()
}

fn point(mount: &ContainerMount, roots: &Roots) -> MountPoint {
    let common = MountPoint {
        destination: mount.target.clone(),
        mode: mount.mode.clone(),
        writable: !mount.read_only,
        propagation: shown_propagation(mount).to_owned(),
        ..MountPoint::default()
    };
    match &mount.source {
        Source::Bind { path, .. } => MountPoint {
            kind: "bind".to_owned(),
            source: path.clone(),
            ..common
        },
        Source::Volume(volume) => {
            let file = if is_disk(&volume.make.options) {
                "disk.ext4"
            } else {
                "_data"
            };
            let path = roots.volumes_dir().join(&volume.name).join(file);
            MountPoint {
                kind: "volume".to_owned(),
                name: volume.name.clone(),
                source: path.to_string_lossy().into_owned(),
                driver: DRIVER.to_owned(),
                ..common
            }
        }
    }
}

/// `--mount type=tmpfs`.
fn memory_flags(spec: &ContainerSpec) -> impl Iterator<Item = &MountSpec> {
    let typed = spec.typed.mounts.iter();
    typed.filter(|flag| flag.kind == "tmpfs")
}

/// `--tmpfs`, and what an init system gets. Docker tells of `--mount` elsewhere.
pub(super) fn tmpfs(spec: &ContainerSpec) -> BTreeMap<String, String> {
    let is_flag = |one: &TmpfsMount| {
        let path = clean(&one.path);
        memory_flags(spec).any(|flag| clean(&flag.target) == path)
    };
    let all = spec.setup.tmpfs.iter().filter(|one| !is_flag(one));
    all.map(|one| (one.path.clone(), one.options.clone()))
        .collect()
}

/// The directories that are to be volumes whatever is mounted there: the image's, and those that nobody named.
pub(super) fn wanted(spec: &ContainerSpec, image: &Config) -> Option<Set> {
    let mut all = image.volumes.clone().unwrap_or_default();
    let typed = spec.typed.volumes.iter();
    all.extend(typed.map(|place| (place.clone(), Empty {})));
    (!all.is_empty()).then_some(all)
}
