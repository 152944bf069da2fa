//! Paths of the host that a command wants to have mounted, for whoever forwards it to the helper machine.

use super::command::{Command, ContainerCommand, LifeCommand};
use super::run::{MountArgs, RunArgs};
use super::volume::{VolumeCommand, VolumeCreateArgs};
use crate::output::failure::Failure;
use hullbox_engine::plan::mounts::flag::Kind;
use hullbox_engine::plan::mounts::volume::absolute;
use hullbox_engine::plan::mounts::volume_options::{Backing, backing};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// A path of the host that is to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostBind {
    /// Absolute.
    pub(crate) source: PathBuf,
    /// A missing one is made, as a directory.
    pub(crate) make: bool,
    /// Nothing is to be written there.
    pub(crate) read_only: bool,
}

impl HostBind {
    /// Whether it is there, or can be made.
    ///
    /// # Errors
    /// Docker's words.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match std::fs::metadata(&self.source) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.make => {
                Err(Failure::new(format!(
                    "invalid mount config for type \"bind\": bind source path does not exist: {}",
                    self.source.display()
                )))
            }
            _ => Ok(()),
        }
    }

    /// Makes it, if it is missing.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn prepare(&self) -> Result<(), Failure> {
        if !self.make || self.source.exists() {
            return Ok(());
        }
        std::fs::create_dir_all(&self.source).map_err(|error| {
            let path = self.source.display();
            Failure::of(
                format!("error while creating mount source path '{path}'"),
                &error,
            )
        })
    }
}

/// The paths of the host that a command wants to have mounted, in the order in which they were typed:
/// `--volume`, then `--mount`.
///
/// # Errors
/// There is no working directory that a relative one could be relative to.
pub(crate) fn binds_of(command: &Command) -> Result<Vec<HostBind>, Failure> {
    match command {
        Command::Life(LifeCommand::Run(args) | LifeCommand::Create(args))
        | Command::Container(ContainerCommand::Life(
            LifeCommand::Run(args) | LifeCommand::Create(args),
        )) => binds(args),
        Command::Volume(VolumeCommand::Create(args)) => Ok(device(args).into_iter().collect()),
        _ => Ok(Vec::new()),
    }
}

fn binds(args: &RunArgs) -> Result<Vec<HostBind>, Failure> {
    let mut all = Vec::new();
    let args = &args.mounts;
    let volumes = args.volume.iter();
    let volumes = volumes.filter_map(|flag| Some((flag.path()?, true, flag.read_only())));
    let mounts = args.mount.iter().filter(|flag| flag.kind() == Kind::Bind);
    let mounts = mounts.filter_map(|flag| Some((flag.path()?, false, flag.read_only())));
    for (path, make, read_only) in volumes.chain(mounts) {
        all.push(HostBind {
            source: absolute(path, &directory(path)?).into(),
            make,
            read_only,
        });
    }
    Ok(all)
}

/// Where a relative path is relative to.
fn directory(path: &str) -> Result<PathBuf, Failure> {
    if path.starts_with('/') {
        return Ok(PathBuf::new());
    }
    let what = || format!("there is no directory that {path} could be relative to");
    std::env::current_dir().map_err(|error| Failure::of(what(), &error))
}

/// The directory that a volume is made of.
fn device(args: &VolumeCreateArgs) -> Option<HostBind> {
    let options: BTreeMap<String, String> = args.options();
    match backing(&options) {
        Ok(Backing::Bind { path }) => Some(HostBind {
            source: path.into(),
            make: false,
            read_only: false,
        }),
        _ => None,
    }
}

impl MountArgs {
    /// Makes relative paths absolute.
    ///
    /// # Errors
    /// As of [`binds_of`].
    pub(crate) fn resolve(&mut self) -> Result<(), Failure> {
        let own = |path: Option<&str>| path.map(directory).transpose();
        for flag in &mut self.volume {
            if let Some(directory) = own(flag.path())? {
                *flag = flag.clone().resolved(&directory);
            }
        }
        for flag in &mut self.mount {
            if let Some(directory) = own(flag.path())? {
                *flag = flag.clone().resolved(&directory);
            }
        }
        Ok(())
    }

    /// In a helper machine: the paths are those of the host outside.
    pub(super) fn go_outside(&mut self, paths: &[String]) {
        let mut left = paths.iter().cloned();
        let volumes = self.volume.iter_mut();
        for flag in volumes.filter(|flag| flag.path().is_some()) {
            if let Some(path) = left.next() {
                flag.set_path(path);
            }
        }
        for flag in self
            .mount
            .iter_mut()
            .filter(|flag| flag.kind() == Kind::Bind)
        {
            if let Some(path) = left.next() {
                flag.set_path(path);
            }
        }
        self.outside = !paths.is_empty();
    }
}
