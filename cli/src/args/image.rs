//! What can be typed for images.

use super::bool_flag::BOOL;
use clap::{Args, ValueEnum};
use hullbox_image::Transport;
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
    /// Write to this file instead of standard output; or oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// Format of the archive
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) format: SaveFormat,
    /// Names or ids; a name without a tag means all of its tags
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}

impl SaveArgs {
    /// Takes an archive's place apart: `-o oci-archive:FILE` is a format and a file.
    pub(super) fn settle(&mut self) {
        let (format, path) = match self.place() {
            Some(Transport::OciArchive(path, None)) => (SaveFormat::OciArchive, path),
            Some(Transport::DockerArchive(path, None)) => (SaveFormat::DockerArchive, path),
            _ => return,
        };
        self.format = format;
        self.output = Some(path);
    }

    /// The place that the output is, if it begins with the name of a transport.
    pub(crate) fn place(&self) -> Option<Transport> {
        Transport::parse(self.output.as_ref()?.to_str()?)?.ok()
    }
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Show sizes and times in human-readable form
    #[arg(short = 'H', long, value_name = BOOL, default_value = "true")]
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
    /// Remove only what matches: `until=TIME`, `label=KEY[=VALUE]`, `label!=KEY[=VALUE]`
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  docker save debian:12 | hullbox load")]
pub(crate) struct LoadArgs {
    /// Read this file or directory instead of standard input; or oci:DIR[:TAG], docker-archive:FILE[:NAME], …
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
    /// Message for the image's history
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
    /// Show digests
    #[arg(long)]
    pub(crate) digests: bool,
    /// Show only what matches: `reference=PATTERN`, `dangling=true|false`
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
    /// `table`, `json`, a template, or a `table` with a template
    #[arg(long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Remove all names of an image; one that a stopped container uses stays
    #[arg(short, long)]
    pub(crate) force: bool,
    /// For compatibility; there are no untagged parents
    #[arg(long, hide = true)]
    pub(crate) no_prune: bool,
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
