//! Which commands the helper machine runs instead of this process.

use super::host_files::{self, HostFile};
use super::images;
use super::start::{failed, options, progress};
use super::streams::{self, Streams};
use crate::args::command::Command;
use crate::args::forwarded::Forwarded;
use crate::args::mounts::{self, HostBind};
use crate::output::failure::Failure;
use crate::registry::fetch::Wish;
use hullbox_engine::machine::{
    self, DataLock, Grant, Machine, MachineConfig, Route, hold_directly,
};
use hullbox_engine::paths::Roots;
use std::ffi::OsString;

/// Who runs the command.
pub(crate) enum Decision {
    /// The machine has run it, and this is its exit code.
    Forwarded(u8),
    /// This process. While the lock is held, no machine takes the data directory.
    Direct(Option<DataLock>),
}

/// Where the data directory is used.
pub(crate) enum Place {
    /// In this process. While the lock is held, no machine takes the data directory.
    Here(Option<DataLock>),
    /// In the helper machine.
    Machine,
}

/// Where the data directory is used, for a command that does part of its work in this process anyway.
///
/// # Errors
/// The machine uses it, against the policy.
pub(crate) fn place() -> Result<Place, Failure> {
    let roots = Roots::from_env()?;
    match machine::route(&MachineConfig::load()?, &roots) {
        Route::Machine(_) => Ok(Place::Machine),
        Route::Direct => hold(&roots).map(|lock| Place::Here(Some(lock))),
    }
}

/// Runs the command in the helper machine if the policy says so. `args` is the command line as it was
/// typed, without the program's name.
///
/// # Errors
/// The machine cannot run it, or a file of the host that belongs to the command cannot be written, or an
/// image that it needs cannot be fetched.
pub(crate) fn decide(command: &Command, args: &[OsString]) -> Result<Decision, Failure> {
    match streams::of(command) {
        Some(streams) => {
            let wish = images::wish_of(command);
            let own = Own {
                file: host_files::of(command),
                binds: mounts::binds_of(command),
            };
            route(streams, own, wish.as_ref(), args)
        }
        None => Ok(Decision::Direct(None)),
    }
}

/// The same for a hidden command that looks into a container.
///
/// # Errors
/// As of [`decide`].
pub(crate) fn decide_hidden(args: &[OsString]) -> Result<Decision, Failure> {
    route(Streams::default(), Own::default(), None, args)
}

/// The same for a hidden command that reads standard input.
///
/// # Errors
/// As of [`decide`].
pub(crate) fn decide_hidden_with_input(args: &[OsString]) -> Result<Decision, Failure> {
    let streams = Streams {
        stdin: true,
        terminal: false,
    };
    route(streams, Own::default(), None, args)
}

/// What of this host belongs to a command, if it is forwarded.
struct Own<'a> {
    /// The file that it writes.
    file: Result<Option<HostFile<'a>>, Failure>,
    /// The paths that it mounts.
    binds: Result<Vec<HostBind>, Failure>,
}

impl Default for Own<'_> {
    fn default() -> Self {
        Self {
            file: Ok(None),
            binds: Ok(Vec::new()),
        }
    }
}

/// Has everything there that is to be mounted, lets the machine have it, and gives the paths. Nothing is made
/// where one is missing.
fn prepare(machine: &Machine, binds: &[HostBind]) -> Result<Vec<String>, Failure> {
    binds.iter().try_for_each(HostBind::check)?;
    binds.iter().try_for_each(HostBind::prepare)?;
    let grants: Vec<Grant> = binds
        .iter()
        .map(|bind| Grant {
            path: bind.source.clone(),
            read_only: bind.read_only,
        })
        .collect();
    machine.grant(&grants).map_err(failed)?;
    let paths = binds.iter();
    Ok(paths
        .map(|bind| bind.source.to_string_lossy().into_owned())
        .collect())
}

fn route(
    streams: Streams,
    own: Own<'_>,
    wish: Option<&Wish>,
    args: &[OsString],
) -> Result<Decision, Failure> {
    let config = MachineConfig::load()?;
    let roots = Roots::from_env()?;
    let machine = Machine::new(&roots);
    if let Route::Machine(reason) = machine::route(&config, &roots) {
        let binds = prepare(&machine, &own.binds?)?;
        let forward = |forwarded: &Forwarded| {
            let forwarded = Forwarded {
                binds: binds.clone(),
                ..forwarded.clone()
            };
            let options = options(&roots, config.clone())?;
            let progress = |text: &str| match &reason {
                Some(reason) => progress(&format!("{text}, because {reason}")),
                None => progress(text),
            };
            let args = forwarded.command_line(args);
            machine
                .forward_self(
                    &args,
                    (streams.stdin, streams.terminal),
                    &options,
                    &progress,
                )
                .map_err(failed)
        };
        let run = |forwarded: &Forwarded| images::run(wish, streams.stdin, forwarded, forward);
        let code = match own.file? {
            Some(file) => file.run(run)?,
            None => run(&Forwarded::default())?,
        };
        return Ok(Decision::Forwarded(code));
    }
    hold(&roots).map(|lock| Decision::Direct(Some(lock)))
}

/// Takes the data directory for this process.
fn hold(roots: &Roots) -> Result<DataLock, Failure> {
    roots.create()?;
    hold_directly(&roots.data)?.ok_or_else(|| {
        Failure::new(format!(
            "the helper machine is using the data directory {}",
            roots.data.display()
        ))
        .with_hint("let it run the command (HULLBOX_MACHINE=auto), or 'hullbox machine stop'")
    })
}
