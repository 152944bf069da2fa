//! Which of our standard streams a command uses, so that a forwarded one gets them.

use crate::args::command::{Command, ContainerCommand, ImageCommand, LifeCommand, SystemCommand};
use crate::args::container::CpArgs;
use crate::args::network::NetworkCommand;
use crate::args::volume::VolumeCommand;
use crate::images::load;
use rustix::termios::isatty;
use std::io;
use std::os::fd::AsFd;

/// What a command does with our standard streams.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Streams {
    /// It reads standard input.
    pub(super) stdin: bool,
    /// It wants a terminal (`-t`).
    pub(super) terminal: bool,
}

/// The streams that a command uses; `None` for one that does not use the data directory, and so is never
/// forwarded.
pub(super) fn of(command: &Command) -> Option<Streams> {
    let reads = |stdin| Streams {
        stdin,
        terminal: false,
    };
    match command {
        Command::Life(command) | Command::Container(ContainerCommand::Life(command)) => {
            of_life(command)
        }
        Command::Load(args) | Command::Image(ImageCommand::Load(args)) => {
            Some(reads(args.input.is_none()))
        }
        Command::Import(args) | Command::Image(ImageCommand::Import(args)) => {
            Some(reads(args.source.as_os_str() == "-"))
        }
        Command::Image(ImageCommand::Prune(args)) => Some(reads(!args.force)),
        Command::Network(NetworkCommand::Prune(args)) => Some(reads(!args.force)),
        Command::Volume(VolumeCommand::Prune(args)) => Some(reads(!args.force)),
        Command::Container(ContainerCommand::Prune(args))
        | Command::System(SystemCommand::Prune(args)) => Some(reads(!args.force)),
        // From a registry this process pulls, and asks the store where it is.
        Command::Pull(args) | Command::Image(ImageCommand::Pull(args)) => {
            load::transport(&args.image).map(|_| Streams::default())
        }
        Command::Push(_)
        | Command::Login(_)
        | Command::Logout(_)
        | Command::Manifest(_)
        | Command::Image(ImageCommand::Push(_) | ImageCommand::Copy(_))
        | Command::Machine(_)
        | Command::Egress(_)
        | Command::Doctor(_)
        | Command::Version(_)
        | Command::Completion(_)
        | Command::Man(_) => None,
        _ => Some(Streams::default()),
    }
}

fn of_life(command: &LifeCommand) -> Option<Streams> {
    match command {
        LifeCommand::Run(args) => Some(runs(args.interactive, args.tty, args.detach)),
        LifeCommand::Exec(args) => Some(runs(args.interactive, args.tty, args.detach)),
        // Whether it has a terminal is known to the container's record only.
        LifeCommand::Attach(args) => Some(joins(!args.no_stdin)),
        LifeCommand::Start(args) => Some(joins(args.interactive)),
        LifeCommand::Cp(args) if !is_stream(args) => None,
        LifeCommand::Cp(args) => Some(Streams {
            stdin: args.from == "-",
            terminal: false,
        }),
        _ => Some(Streams::default()),
    }
}

/// `run` and `exec`.
const fn runs(interactive: bool, tty: bool, detach: bool) -> Streams {
    Streams {
        stdin: interactive && !detach,
        terminal: tty && !detach,
    }
}

/// Whether `cp` only passes a stream on. Otherwise it reads or writes the host's files itself, and has
/// the other half done by processes that are forwarded.
fn is_stream(args: &CpArgs) -> bool {
    args.from == "-" || args.to == "-"
}

/// A command that attaches to a container's streams: with our terminal, if we have one.
fn joins(stdin: bool) -> Streams {
    Streams {
        stdin,
        terminal: stdin && isatty(io::stdin().as_fd()),
    }
}
