//! Commands on networks that containers share.

mod change;
mod list;
mod prune;

pub(crate) use prune::{prune, removed};

use crate::args::network::NetworkCommand;
use crate::args::system::Kind;
use crate::output::failure::Failure;
use crate::system::inspect;

/// `network …`.
pub(crate) fn network(command: NetworkCommand) -> Result<(), Failure> {
    match command {
        NetworkCommand::Create(args) => change::create(args),
        NetworkCommand::Ls(args) => list::list(&args),
        NetworkCommand::Inspect(args) => inspect::inspect(&args.into_any(), Kind::Network),
        NetworkCommand::Rm(args) => change::remove(&args),
        NetworkCommand::Prune(args) => prune(&args),
        NetworkCommand::Connect(args) => change::connect(args),
        NetworkCommand::Disconnect(args) => change::disconnect(&args),
    }
}
