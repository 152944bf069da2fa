//! Commands on volumes.

mod change;
mod list;
mod prune;

pub(crate) use list::space;
pub(crate) use prune::{prune, removed};

use crate::args::system::Kind;
use crate::args::volume::VolumeCommand;
use crate::output::failure::Failure;
use crate::system::inspect;

/// `volume …`.
pub(crate) fn volume(command: VolumeCommand) -> Result<(), Failure> {
    match command {
        VolumeCommand::Create(args) => change::create(args),
        VolumeCommand::Ls(args) => list::list(&args),
        VolumeCommand::Inspect(args) => inspect::inspect(&args.into_any(), Kind::Volume),
        VolumeCommand::Rm(args) => change::remove(&args),
        VolumeCommand::Prune(args) => prune(&args),
        VolumeCommand::Update(args) => change::update(&args),
    }
}
