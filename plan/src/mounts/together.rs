//! One list of everything that is mounted in a container.

use super::{ContainerMount, MountsRequest, is_within, tmpfs};
use crate::units::Tmpfs;
use hullbox_backend::mount::MAX_MOUNTS;
use hullbox_protocol::TmpfsMount;

/// Why mounts cannot be made of what was typed, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MountsError {
    /// Two at one place.
    #[error("Duplicate mount point: {0}")]
    Duplicate(String),
    /// More than anybody means.
    #[error("more than {MAX_MOUNTS} mounts")]
    TooMany,
    /// A part of the kernel's own file systems.
    #[error("{0:?} cannot be mounted because it is inside /proc")]
    Proc(String),
    /// A tmpfs with an option that there is not.
    #[error("{0}")]
    Tmpfs(String),
    /// The image wants a volume where none can be.
    #[error("the image's configuration is invalid: VOLUME {0:?}: {1}")]
    Image(String, String),
}

/// Everything of files and everything of memory, each behind what it lies in.
///
/// Docker's order: what comes from other containers, then what was typed over that, then the image's
/// volumes and those that nobody named, where nothing is yet.
///
/// # Errors
/// [`MountsError`].
pub fn together(
    request: &MountsRequest,
    tmpfs: &[Tmpfs],
    image: &[String],
) -> Result<(Vec<ContainerMount>, Vec<TmpfsMount>), MountsError> {
    let mut memory = Vec::new();
    for mount in tmpfs {
        tmpfs::check(&mount.options).map_err(MountsError::Tmpfs)?;
        // Of two at one place the last counts, as Docker's map has it.
        let path = super::clean(&mount.path);
        memory.retain(|other: &TmpfsMount| super::clean(&other.path) != path);
        memory.push(TmpfsMount {
            path: mount.path.clone(),
            options: mount.options.clone(),
        });
    }
    let mut all: Vec<ContainerMount> = Vec::new();
    for mount in &request.inherited {
        put(&mut all, mount.clone());
    }
    let mut typed: Vec<String> = memory.iter().map(|one| super::clean(&one.path)).collect();
    let named = request.volumes.iter().filter(|flag| flag.source.is_some());
    let driver = request.driver.as_deref();
    for flag in named {
        claim(&mut typed, &flag.target)?;
        put(&mut all, flag.mount(driver, request.outside));
    }
    for flag in &request.mounts {
        claim(&mut typed, flag.target())?;
        if let Some(mount) = flag.mount(request.outside) {
            put(&mut all, mount);
        }
        memory.extend(flag.tmpfs());
    }
    let anonymous = request.volumes.iter().filter(|flag| flag.source.is_none());
    let mut places: Vec<String> = anonymous.map(|flag| flag.target.clone()).collect();
    for place in image {
        let wrong = |why| MountsError::Image(place.clone(), why);
        places.push(super::target(place).map_err(wrong)?);
    }
    for place in places {
        let taken = all.iter().any(|mount| mount.target == place) || typed.contains(&place);
        if !taken {
            all.push(ContainerMount::anonymous(place, driver));
        }
    }
    // What comes from another container gives way to memory that was asked for here.
    all.retain(|mount| {
        !memory
            .iter()
            .any(|one| super::clean(&one.path) == mount.target)
    });
    for mount in &all {
        if is_within(&mount.target, "/proc") {
            return Err(MountsError::Proc(mount.target.clone()));
        }
    }
    if all.len() + memory.len() > MAX_MOUNTS {
        return Err(MountsError::TooMany);
    }
    all.sort_by_key(|mount| depth(&mount.target));
    Ok((all, memory))
}

/// Nobody else was typed for this place.
fn claim(typed: &mut Vec<String>, target: &str) -> Result<(), MountsError> {
    if typed.iter().any(|other| other == target) {
        return Err(MountsError::Duplicate(target.to_owned()));
    }
    typed.push(target.to_owned());
    Ok(())
}

/// Of two at one place the later one.
fn put(all: &mut Vec<ContainerMount>, mount: ContainerMount) {
    all.retain(|other| other.target != mount.target);
    all.push(mount);
}

fn depth(path: &str) -> usize {
    path.split('/').filter(|name| !name.is_empty()).count()
}

impl MountsRequest {
    /// `HostConfig.Binds`.
    #[must_use]
    pub fn binds(&self) -> Vec<String> {
        self.volumes
            .iter()
            .filter_map(super::VolumeFlag::bind)
            .collect()
    }

    /// `Config.Volumes`, as far as it was typed.
    #[must_use]
    pub fn anonymous(&self) -> Vec<String> {
        let anonymous = self.volumes.iter().filter(|flag| flag.source.is_none());
        anonymous.map(|flag| flag.target.clone()).collect()
    }
}
