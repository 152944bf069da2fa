//! What can be typed for containers that exist, and for their snapshots.

use super::bool_flag::BOOL;
use super::system::TemplateLsArgs;
use super::values::{DetachKeys, TimingArgs};
use clap::{Args, Subcommand, ValueEnum};
use hullbox_engine::plan::life::Restart;
use hullbox_engine::plan::units::{Bytes, NanoCpus, Signal};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Attach to its output, and pass signals on
    #[arg(short, long)]
    pub(crate) attach: bool,
    /// Attach to its input
    #[arg(short, long)]
    pub(crate) interactive: bool,
    #[command(flatten)]
    pub(crate) timing: TimingArgs,
    /// Keys that detach from a terminal: letters, or ctrl-X, separated by commas
    #[arg(long, value_name = "KEYS")]
    pub(crate) detach_keys: Option<DetachKeys>,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Signal to send instead of the container's stop signal
    #[arg(short, long)]
    pub(crate) signal: Option<Signal>,
    /// Seconds until SIGKILL; -1 for never
    #[arg(
        short = 't',
        long = "timeout",
        alias = "time",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    pub(crate) timeout_s: Option<i64>,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Signal to send
    #[arg(short, long, default_value = "KILL")]
    pub(crate) signal: Signal,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) names: Vec<String>,
}

/// What `wait` waits for, by the names of Docker's API.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ConditionArg {
    NotRunning,
    NextExit,
    Removed,
}

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// What to wait for: not-running, next-exit (also of a run to come), removed
    #[arg(
        long,
        value_enum,
        default_value = "not-running",
        hide_possible_values = true,
        value_name = "CONDITION"
    )]
    pub(crate) condition: ConditionArg,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct NamesArgs {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct PortArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) name: String,
    /// One port of the container; tcp unless it says udp
    #[arg(value_name = "PORT[/PROTOCOL]")]
    pub(crate) port: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RenameArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) name: String,
    /// Its new name
    #[arg(value_name = "NEW_NAME")]
    pub(crate) new_name: String,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "hullbox exec [OPTIONS] CONTAINER COMMAND [ARG...]",
    after_help = "Example:\n  hullbox exec -it web sh"
)]
pub(crate) struct ExecArgs {
    /// Run it in the background
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Allocate a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set a variable; NAME alone takes the caller's value
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<OsString>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User that runs it
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Give it all capabilities
    #[arg(long)]
    pub(crate) privileged: bool,
    #[command(flatten)]
    pub(crate) timing: TimingArgs,
    /// Keys that detach from a terminal: letters, or ctrl-X, separated by commas
    #[arg(long, value_name = "KEYS")]
    pub(crate) detach_keys: Option<DetachKeys>,
    /// The container, and the program and its arguments
    // One argument: whatever follows the container's name is the program's.
    #[arg(
        value_names = ["CONTAINER", "COMMAND"],
        required = true,
        num_args = 2..,
        trailing_var_arg = true
    )]
    pub(crate) words: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Do not attach to its input
    #[arg(long)]
    pub(crate) no_stdin: bool,
    /// Pass signals on
    #[arg(long, value_name = BOOL, default_value = "true")]
    pub(crate) sig_proxy: bool,
    /// Keys that detach from a terminal: letters, or ctrl-X, separated by commas
    #[arg(long, value_name = "KEYS")]
    pub(crate) detach_keys: Option<DetachKeys>,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Follow the output while the container runs
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only output since this time, or this long ago: 2026-11-21T12:00:00Z, 10m
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only output before this time, or this long ago
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Only the last N lines, or all
    #[arg(short = 'n', long, value_name = "N", default_value = "all")]
    pub(crate) tail: String,
    /// Show the time of each line
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Show attributes of each line; there are none
    #[arg(long, hide = true)]
    pub(crate) details: bool,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) name: String,
    /// As for ps(1): none, -ef or aux
    #[arg(
        value_name = "OPTIONS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) options: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Stopped containers too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Print once, and exit
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Show whole ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// `table`, `json`, a template, or a `table` with a template
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Names or ids; default: all that run
    #[arg(value_name = "CONTAINER")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// CPUs, at most as many as it started with
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<NanoCpus>,
    /// Memory, at most as much as a microVM started with
    #[arg(short, long, value_name = "SIZE")]
    pub(crate) memory: Option<Bytes>,
    /// Maximum number of processes; -1 for no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Start it again when it ends: no, always, unless-stopped, on-failure[:N]
    #[arg(long, value_name = "POLICY")]
    pub(crate) restart: Option<Restart>,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  hullbox cp web:/etc/hosts .\n  hullbox cp page.html web:/srv/\n  tar c dir | hullbox cp - web:/srv"
)]
pub(crate) struct CpArgs {
    /// Keep owners
    #[arg(short, long)]
    pub(crate) archive: bool,
    /// Copy what a symbolic link leads to
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    /// Print nothing
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// CONTAINER:PATH, a path here, or - for a tar archive
    #[arg(value_name = "FROM", allow_hyphen_values = true)]
    pub(crate) from: OsString,
    /// CONTAINER:PATH, a path here, or - for a tar archive
    #[arg(value_name = "TO", allow_hyphen_values = true)]
    pub(crate) to: OsString,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  hullbox commit -c 'CMD [\"nginx\"]' web mine:v2")]
pub(crate) struct CommitArgs {
    /// Author of the image
    #[arg(short, long)]
    pub(crate) author: Option<String>,
    /// Apply a Dockerfile instruction (CMD, ENTRYPOINT, ENV, USER, WORKDIR, …)
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    pub(crate) changes: Vec<String>,
    /// Message for the image's history
    #[arg(short, long)]
    pub(crate) message: Option<String>,
    /// Pause the container while it is committed
    #[arg(short, long, value_name = BOOL, default_value = "true")]
    pub(crate) pause: bool,
    /// Name or id of a container
    #[arg(value_name = "CONTAINER")]
    pub(crate) name: String,
    /// Name of the new image
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) image: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Show stopped containers too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Show only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show disk usage too
    #[arg(short, long)]
    pub(crate) size: bool,
    /// Show whole ids and commands
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show the newest only, stopped or not
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// Show the N newest, stopped or not; -1 for no limit
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) last: Option<i64>,
    /// Show only what matches: `name=`, `id=`, `status=`, `label=`, `ancestor=`, `exited=`, `network=`, `publish=`, `expose=`
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
    /// `table`, `json`, a template, or a `table` with a template
    #[arg(long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Kill running containers first, and ignore missing ones
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Remove their volumes that nobody named
    #[arg(short, long)]
    pub(crate) volumes: bool,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Save a running container (VM mode), which then runs on
    #[command(
        after_help = "Example:\n  hullbox snapshot create web warm && hullbox run -d --from-snapshot warm"
    )]
    Create(SnapshotCreateArgs),
    /// List snapshots
    #[command(alias = "list")]
    Ls(TemplateLsArgs),
    /// Remove snapshots; containers that were restored from them run on
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
