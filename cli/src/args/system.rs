//! What can be typed for the whole installation, and for objects of any kind.

use clap::{Args, Subcommand, ValueEnum};
use hullbox_engine::plan::network::Egress;
use hullbox_engine::plan::units::{Bytes, NanoCpus};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct FormatArgs {
    /// `json`, or a template such as '{{.Version}}'
    #[arg(short, long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// `json` or a template such as '{{.Config.Cmd}}'
    #[arg(short, long)]
    pub(crate) format: Option<String>,
    /// Look for objects of this type only
    #[arg(long = "type", value_name = "KIND")]
    pub(crate) kind: Option<Kind>,
    /// Show the disk usage of containers too
    #[arg(short, long)]
    pub(crate) size: bool,
    /// Names or ids
    #[arg(value_name = "NAME|ID", required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// From this time, or this long ago: 2026-11-21T12:00:00Z, 10m
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Until this time; default: forever
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Only events that match: `container=`, `event=`, `type=`, `image=`, `network=`, `volume=`, `label=`
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
    /// `json` or a template
    #[arg(long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Remove only what matches: `until=TIME`, `label=KEY[=VALUE]`
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
    /// Images without a container too, not just those without a name (`system prune`)
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Volumes that nobody named, too (`system prune`)
    #[arg(long)]
    pub(crate) volumes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DfArgs {
    /// Show every image, container and volume
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// `json`, or a template such as '{{.Type}}'
    #[arg(long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Repair what can be repaired
    #[arg(long)]
    pub(crate) repair: bool,
    /// Do not read whole layers
    #[arg(long)]
    pub(crate) quick: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TemplateCommand {
    /// Make the template for a size of guest
    #[command(after_help = "Example:\n  hullbox template build --cpus 1 -m 128m")]
    Build(TemplateBuildArgs),
    /// List templates
    #[command(alias = "list")]
    Ls(TemplateLsArgs),
    /// Remove templates
    #[command(alias = "remove")]
    Rm(TemplateRmArgs),
    /// Remove templates that no guest can be restored from any more
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
    /// Remove all templates
    #[arg(short, long)]
    pub(crate) all: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EgressCommand {
    /// Show whether rules let a container connect somewhere, and which rule decides
    #[command(
        after_help = "Example:\n  hullbox egress check 'deny:a.example.com,*.example.com' b.example.com:443"
    )]
    Check(EgressCheckArgs),
}

#[derive(Debug, Args)]
pub(crate) struct EgressCheckArgs {
    /// As for --egress of run
    #[arg(value_name = "RULES")]
    pub(crate) rules: Egress,
    /// HOST:PORT, perhaps with /udp, or HOST/icmp
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
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

/// Types of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Container,
    Image,
    Network,
    Volume,
    /// A process beside a container's workload, by its id
    Exec,
    #[value(skip)]
    Any,
}

/// Shells for which there is a completion script.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// Shell to write it for
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Directory to write to; it is created if it is missing
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}
