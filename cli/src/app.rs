//! What can be typed.

use crate::bench::BenchArgs;
use crate::completions::{CompletionArgs, ManArgs};
use crate::container_args::{
    AttachArgs, CheckArgs, CommitArgs, CpArgs, EventsArgs, ExecArgs, ExportArgs, KillArgs,
    LogsArgs, NameArgs, NamesArgs, PruneArgs, RenameArgs, StartArgs, StatsArgs, StopArgs, TopArgs,
    UpdateArgs, WaitArgs,
};
use crate::image_args::{HistoryArgs, ImagePruneArgs, SaveArgs};
use crate::inspect::Kind;
use crate::run_args::RunArgs;
use clap::{Args, Parser, Subcommand};
use hullbox_engine::plan::units::{Bytes, NanoCpus};
use std::ffi::OsString;
use std::path::PathBuf;

/// Runs Linux containers, each in its own microVM or in namespaces of this kernel.
#[derive(Debug, Parser)]
#[command(
    name = "hullbox",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    subcommand_value_name = "COMMAND",
    after_help = "Example:\n  hullbox load -i image.tar\n  hullbox run --rm -it debian:12 bash"
)]
pub(crate) struct Cli {
    /// Show what goes on inside on standard error
    #[arg(long, global = true)]
    pub(crate) debug: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Life(LifeCommand),
    /// Load images from a tar archive or a directory
    Load(LoadArgs),
    /// Make an image from the tarball of a root filesystem
    Import(ImportArgs),
    /// Save images as an archive
    Save(SaveArgs),
    /// List images
    Images(ListArgs),
    /// Show how an image was made
    History(HistoryArgs),
    /// Remove images
    Rmi(RmiArgs),
    /// Give an image another name
    Tag(TagArgs),
    /// Show all about images or containers
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
    /// Show what happens to containers and images
    Events(EventsArgs),
    /// Commands on the whole installation
    #[command(subcommand)]
    System(SystemCommand),
    /// Guests that were booted once, for others to begin where they are ready
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Running containers that were saved, for others to go on from there
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// The helper machine, for hosts whose KVM cannot run a guest
    #[command(subcommand)]
    Machine(MachineCommand),
    /// Measure VMs, containers and other programs' containers side by side
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
    /// Make a container from an image and run it
    Run(Box<RunArgs>),
    /// Make a container, and start it later
    #[command(override_usage = "hullbox create [OPTIONS] IMAGE [COMMAND] [ARG...]")]
    Create(Box<RunArgs>),
    /// Start containers that do not run
    Start(StartArgs),
    /// Stop containers: their stop signal, and SIGKILL after a while
    Stop(StopArgs),
    /// Stop and start containers
    Restart(StopArgs),
    /// Send containers a signal
    Kill(KillArgs),
    /// Freeze containers
    Pause(NamesArgs),
    /// Let frozen containers go on
    Unpause(NamesArgs),
    /// Wait for containers' ends, and print their exit codes
    Wait(WaitArgs),
    /// Give a container another name
    Rename(RenameArgs),
    /// Change limits and the restart policy of containers
    Update(UpdateArgs),
    /// Run a program in a running container
    Exec(ExecArgs),
    /// Join the standard streams of a running container
    Attach(AttachArgs),
    /// Show what a container has said
    Logs(LogsArgs),
    /// Show what runs in a container
    Top(TopArgs),
    /// Show what containers use
    Stats(StatsArgs),
    /// Copy files into a container or out of it
    Cp(CpArgs),
    /// Show what a container has changed in its image's files
    Diff(NameArgs),
    /// Write a container's files as a tar archive
    Export(ExportArgs),
    /// Make an image of a container's changes
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
    /// Load images from a tar archive or a directory
    Load(LoadArgs),
    /// Make an image from the tarball of a root filesystem
    Import(ImportArgs),
    /// Give an image another name
    Tag(TagArgs),
    /// Save images as an archive
    Save(SaveArgs),
    /// Show how an image was made
    History(HistoryArgs),
    /// Remove images that nothing uses
    Prune(ImagePruneArgs),
    /// Show all about images
    Inspect(InspectArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContainerCommand {
    #[command(flatten)]
    Life(LifeCommand),
    /// Remove containers that do not run
    Prune(PruneArgs),
    /// List containers
    #[command(alias = "list", alias = "ps")]
    Ls(PsArgs),
    /// Remove containers
    #[command(alias = "remove")]
    Rm(RmArgs),
    /// Show all about containers
    Inspect(InspectArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SystemCommand {
    /// Show what images and containers take on the disk
    Df(FormatArgs),
    /// Verify everything that is kept
    Check(CheckArgs),
    /// Remove containers that do not run, and images that nobody uses
    Prune(PruneArgs),
    /// Show what happens to containers and images
    Events(EventsArgs),
    /// Show this installation: directories, images, containers
    Info(FormatArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TemplateCommand {
    /// Make the template of a size of guest
    #[command(after_help = "Example:\n  hullbox template build --cpus 1 -m 128m")]
    Build(TemplateBuildArgs),
    /// List templates
    #[command(alias = "list")]
    Ls(TemplateLsArgs),
    /// Remove templates
    #[command(alias = "remove")]
    Rm(TemplateRmArgs),
    /// Remove the templates that no guest can begin at any more
    Prune(TemplatePruneArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TemplateBuildArgs {
    /// Number of CPUs, as for `run`
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<NanoCpus>,
    /// Memory, as for `run`
    #[arg(short, long, value_name = "SIZE")]
    pub(crate) memory: Option<Bytes>,
}

#[derive(Debug, Args)]
pub(crate) struct TemplateLsArgs {
    /// Show only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// `table`, `json`, a template, or a `table` with a template
    #[arg(long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TemplateRmArgs {
    /// Ids, or what they begin with
    #[arg(value_name = "TEMPLATE", required = true)]
    pub(crate) ids: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TemplatePruneArgs {
    /// All of them
    #[arg(short, long)]
    pub(crate) all: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Save a running container (VM mode), which then goes on
    #[command(
        after_help = "Example:\n  hullbox snapshot create web warm && hullbox run -d --from-snapshot warm"
    )]
    Create(SnapshotCreateArgs),
    /// List snapshots
    #[command(alias = "list")]
    Ls(TemplateLsArgs),
    /// Remove snapshots; containers that began there run on
    #[command(alias = "remove")]
    Rm(SnapshotRmArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotCreateArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
    /// The snapshot's name
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotRmArgs {
    /// Names
    #[arg(value_name = "SNAPSHOT", required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MachineCommand {
    /// Start the machine
    Start,
    /// Stop the machine
    Stop,
    /// Show whether the machine runs
    Status(FormatArgs),
    /// Run a program of this host in the machine
    #[command(after_help = "Example:\n  hullbox machine exec -- uname -a")]
    Exec(MachineExecArgs),
}

#[derive(Debug, Args)]
pub(crate) struct MachineExecArgs {
    /// The program and its arguments
    #[arg(
        value_name = "PROGRAM",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) argv: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct FormatArgs {
    /// `json`, or a template such as '{{.Version}}'
    #[arg(short, long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  docker save debian:12 | hullbox load")]
pub(crate) struct LoadArgs {
    /// Read this file or directory instead of standard input
    #[arg(short, long, value_name = "PATH")]
    pub(crate) input: Option<PathBuf>,
    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  hullbox import -c 'CMD [\"/bin/sh\"]' rootfs.tar.gz mine:v1")]
pub(crate) struct ImportArgs {
    /// Apply a Dockerfile instruction (CMD, ENTRYPOINT, ENV, USER, WORKDIR, …)
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    pub(crate) changes: Vec<String>,
    /// Note this message in the image's history
    #[arg(short, long)]
    pub(crate) message: Option<String>,
    /// The tarball, or - for standard input
    #[arg(value_name = "FILE")]
    pub(crate) source: PathBuf,
    /// Name of the new image
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Show only images of this repository or with this name
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: Option<String>,
    /// For compatibility; there are no intermediate images
    #[arg(short, long, hide = true)]
    pub(crate) all: bool,
    /// Show only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show whole ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show only what fits: `reference=PATTERN`, `dangling=true|false`
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
    /// `table`, `json`, a template, or a `table` with a template
    #[arg(long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Remove all names of an image, and the image under stopped containers' feet not at all
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Name or id of an image
    #[arg(value_name = "IMAGE")]
    pub(crate) source: String,
    /// Its new name
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) target: String,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// `json` or a template such as '{{.Config.Cmd}}'
    #[arg(short, long)]
    pub(crate) format: Option<String>,
    /// Look for one kind of thing only
    #[arg(long = "type", value_name = "KIND")]
    pub(crate) kind: Option<Kind>,
    /// Show what containers take on the disk, too
    #[arg(short, long)]
    pub(crate) size: bool,
    /// Names or ids
    #[arg(value_name = "NAME|ID", required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Show the stopped ones too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Show only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show what they take on the disk, too
    #[arg(short, long)]
    pub(crate) size: bool,
    /// Show whole ids and commands
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show the newest only, stopped or not
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// Show the N newest, stopped or not
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) last: Option<usize>,
    /// Show only what fits: `name=`, `id=`, `status=`, `label=`, `ancestor=`, `exited=`
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
    /// `table`, `json`, a template, or a `table` with a template
    #[arg(long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Kill the running ones first, and do not mind missing ones
    #[arg(short, long)]
    pub(crate) force: bool,
    /// For compatibility; there are no anonymous volumes
    #[arg(short, long, hide = true)]
    pub(crate) volumes: bool,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) names: Vec<String>,
}
