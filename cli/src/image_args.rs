//! What can be typed for saving images, their history, and giving their space back.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `--format` of `save`, in Podman's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum SaveFormat {
    /// What `docker save` writes
    #[default]
    DockerArchive,
    /// An OCI image layout in a tar
    OciArchive,
    /// An OCI image layout as a directory
    OciDir,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  hullbox save -o debian.tar debian:12")]
pub(crate) struct SaveArgs {
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// The form of the archive
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) format: SaveFormat,
    /// Names or ids; a name without a tag means all of its tags
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Show sizes and times for people
    #[arg(
        short = 'H',
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    pub(crate) human: bool,
    /// Show only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show whole ids and commands
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// `table`, `json`, a template, or a `table` with a template
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
}

#[derive(Debug, Args)]
pub(crate) struct ImagePruneArgs {
    /// Remove all images that no container uses, not just those without a name
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Remove only what fits: `until=TIME`, `label=KEY[=VALUE]`, `label!=KEY[=VALUE]`
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
}
