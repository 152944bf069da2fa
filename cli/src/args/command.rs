//! The tree of commands.

use super::bench::BenchArgs;
use super::container::{
    AttachArgs, CommitArgs, CpArgs, ExecArgs, ExportArgs, KillArgs, LogsArgs, NameArgs, NamesArgs,
    PortArgs, PsArgs, RenameArgs, RmArgs, SnapshotCommand, StartArgs, StatsArgs, StopArgs, TopArgs,
    UpdateArgs, WaitArgs,
};
use super::forwarded::Forwarded;
use super::image::{
    HistoryArgs, ImagePruneArgs, ImportArgs, ListArgs, LoadArgs, RmiArgs, SaveArgs, TagArgs,
};
use super::network::NetworkCommand;
use super::registry::{CopyArgs, LoginArgs, LogoutArgs, ManifestCommand, PullArgs, PushArgs};
use super::run::RunArgs;
use super::system::{
    CheckArgs, CompletionArgs, DfArgs, EgressCommand, EventsArgs, FormatArgs, InspectArgs,
    MachineCommand, ManArgs, PruneArgs, TemplateCommand,
};
use super::volume::VolumeCommand;
use clap::{Parser, Subcommand};
use std::ffi::OsString;

/// Runs Linux containers, each in its own microVM or in namespaces of this kernel.
#[derive(Debug, Parser)]
#[command(
    name = "hullbox",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    subcommand_value_name = "COMMAND",
    after_help = "Example:\n  hullbox run --rm -it debian:12 bash\n  hullbox load -i image.tar"
)]
pub(crate) struct Cli {
    /// Show diagnostics on standard error
    #[arg(long, global = true)]
    pub(crate) debug: bool,
    #[command(flatten)]
    pub(crate) forwarded: Forwarded,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The part of [`Cli`] that is parsed most often and is waited for: defining all commands takes
/// several times as long as parsing one.
#[derive(Debug, Parser)]
#[command(name = "hullbox", disable_help_subcommand = true)]
pub(crate) struct FrequentCli {
    #[arg(long, global = true)]
    debug: bool,
    #[command(flatten)]
    forwarded: Forwarded,
    #[command(subcommand)]
    command: FrequentCommand,
}

/// See [`LifeCommand`].
#[derive(Debug, Subcommand)]
enum FrequentCommand {
    Run(Box<RunArgs>),
    Exec(ExecArgs),
}

impl FrequentCli {
    /// Whether a command line, the program's name in front, is of one of these commands.
    pub(crate) fn has(args: &[OsString]) -> bool {
        args.get(1)
            .is_some_and(|name| name == "run" || name == "exec")
    }
}

impl From<FrequentCli> for Cli {
    fn from(cli: FrequentCli) -> Self {
        Self {
            debug: cli.debug,
            forwarded: cli.forwarded,
            command: Command::Life(match cli.command {
                FrequentCommand::Run(args) => LifeCommand::Run(args),
                FrequentCommand::Exec(args) => LifeCommand::Exec(args),
            }),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Life(LifeCommand),
    /// Get an image from a registry, a layout or an archive
    Pull(PullArgs),
    /// Send an image to a registry
    Push(PushArgs),
    /// Log in to a registry
    Login(LoginArgs),
    /// Log out from a registry
    Logout(LogoutArgs),
    /// Manifests of images, where they are
    #[command(subcommand)]
    Manifest(ManifestCommand),
    /// Load images from a tar archive or a directory
    Load(LoadArgs),
    /// Create an image from the tar archive of a root filesystem
    Import(ImportArgs),
    /// Save images as an archive
    Save(SaveArgs),
    /// List images
    Images(ListArgs),
    /// Show the history of an image
    History(HistoryArgs),
    /// Remove images
    Rmi(RmiArgs),
    /// Give an image another name
    Tag(TagArgs),
    /// Show everything that is known about images, containers, networks or volumes
    Inspect(InspectArgs),
    /// List containers
    Ps(PsArgs),
    /// Remove containers
    Rm(RmArgs),
    /// Commands on images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Commands on containers
    #[command(subcommand)]
    Container(ContainerCommand),
    /// Networks that containers share
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Volumes: files that outlive containers
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Show events of containers, images, networks and volumes
    Events(EventsArgs),
    /// Commands on the installation
    #[command(subcommand)]
    System(SystemCommand),
    /// Booted guests that were saved, from which later guests are restored
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Saved running containers, from which new ones are restored
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Rules of where containers may connect to
    #[command(subcommand)]
    Egress(EgressCommand),
    /// The helper machine, for hosts whose KVM cannot run a guest
    #[command(subcommand)]
    Machine(MachineCommand),
    /// Measure VMs, containers and other programs' containers in turns
    Bench(BenchArgs),
    /// Examine what this host offers, with a remedy for what it lacks
    Doctor(FormatArgs),
    /// Show this installation: directories, images, containers
    Info(FormatArgs),
    /// Show the version
    Version(FormatArgs),
    /// Print a script that completes commands and flags in a shell
    Completion(CompletionArgs),
    /// Write manual pages, one for each command
    Man(ManArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum LifeCommand {
    /// Create a container from an image and run it
    Run(Box<RunArgs>),
    /// Create a container without starting it
    #[command(override_usage = "hullbox create [OPTIONS] IMAGE [COMMAND] [ARG...]")]
    Create(Box<RunArgs>),
    /// Start stopped containers
    Start(StartArgs),
    /// Stop containers with their stop signal, or SIGKILL after a timeout
    Stop(StopArgs),
    /// Stop and start containers
    Restart(StopArgs),
    /// Send containers a signal
    Kill(KillArgs),
    /// Freeze containers
    Pause(NamesArgs),
    /// Thaw frozen containers
    Unpause(NamesArgs),
    /// Wait until containers exit, and print their exit codes
    Wait(WaitArgs),
    /// Give a container another name
    Rename(RenameArgs),
    /// Change limits and the restart policy of containers
    Update(UpdateArgs),
    /// Run a program in a running container
    Exec(ExecArgs),
    /// Attach to the standard streams of a running container
    Attach(AttachArgs),
    /// Show the output of a container
    Logs(LogsArgs),
    /// Show where the ports of a container are published
    Port(PortArgs),
    /// Show the processes of a container
    Top(TopArgs),
    /// Show the resource usage of containers
    Stats(StatsArgs),
    /// Copy files into a container or out of it
    Cp(CpArgs),
    /// Show which files a container has changed
    Diff(NameArgs),
    /// Write a container's files as a tar archive
    Export(ExportArgs),
    /// Create an image from a container's changes
    Commit(CommitArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// List images
    #[command(alias = "list")]
    Ls(ListArgs),
    /// Remove images
    #[command(alias = "remove")]
    Rm(RmiArgs),
    /// Get an image from a registry, a layout or an archive
    Pull(PullArgs),
    /// Send an image to a registry
    Push(PushArgs),
    /// Copy an image between registries and layouts
    Copy(CopyArgs),
    /// Load images from a tar archive or a directory
    Load(LoadArgs),
    /// Create an image from the tar archive of a root filesystem
    Import(ImportArgs),
    /// Give an image another name
    Tag(TagArgs),
    /// Save images as an archive
    Save(SaveArgs),
    /// Show the history of an image
    History(HistoryArgs),
    /// Remove unused images
    Prune(ImagePruneArgs),
    /// Show everything that is known about images
    Inspect(InspectArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContainerCommand {
    #[command(flatten)]
    Life(LifeCommand),
    /// Remove stopped containers
    Prune(PruneArgs),
    /// List containers
    #[command(alias = "list", alias = "ps")]
    Ls(PsArgs),
    /// Remove containers
    #[command(alias = "remove")]
    Rm(RmArgs),
    /// Show everything that is known about containers
    Inspect(InspectArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SystemCommand {
    /// Show the disk usage of images, containers and volumes
    Df(DfArgs),
    /// Verify images, layers and containers on record
    Check(CheckArgs),
    /// Remove stopped containers, unused networks and unused images
    Prune(PruneArgs),
    /// Show events of containers, images, networks and volumes
    Events(EventsArgs),
    /// Show this installation: directories, images, containers
    Info(FormatArgs),
}
