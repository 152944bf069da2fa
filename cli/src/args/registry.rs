//! What can be typed for registries.

use clap::{Args, Subcommand, ValueEnum};
use hullbox_engine::registry::Platform;
use std::path::PathBuf;

/// `--progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum ProgressArg {
    /// Bars on a terminal, else lines
    #[default]
    Auto,
    /// A line for each step
    Plain,
    /// JSON lines on standard output, as Docker's API has them
    Json,
}

/// `--compression` of `push`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompressionArg {
    Gzip,
    Zstd,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  hullbox pull debian:12\n  hullbox pull oci:layout:v1")]
pub(crate) struct PullArgs {
    /// Pull all tags of the repository
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// Print only the image's name
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Platform to choose from an index, as OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<Platform>,
    /// Accept only what is signed by this public key (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) verify_key: Option<PathBuf>,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) progress: ProgressArg,
    /// The image; or oci:DIR[:TAG], docker-archive:FILE, oci-archive:FILE
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    pub(crate) image: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  hullbox push registry.example.com/team/app:1.0")]
pub(crate) struct PushArgs {
    /// Push all tags of the repository
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// Print only the image's name
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Compression of layers of which no compressed form is known; gzip if it is left out
    #[arg(long, value_enum, value_name = "FORM")]
    pub(crate) compression: Option<CompressionArg>,
    /// Its level: 1 to 9 of gzip, 1 to 20 of zstd
    #[arg(long, value_name = "N")]
    pub(crate) compression_level: Option<u8>,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) progress: ProgressArg,
    /// The image
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) image: String,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  hullbox login -u me --password-stdin registry.example.com <token"
)]
pub(crate) struct LoginArgs {
    /// User name
    #[arg(short, long)]
    pub(crate) username: Option<String>,
    /// Password or token; other users of this host see it while the command runs
    #[arg(short, long, conflicts_with = "password_stdin")]
    pub(crate) password: Option<Password>,
    /// Read the password from standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// The registry; docker.io if it is left out
    #[arg(value_name = "SERVER")]
    pub(crate) server: Option<String>,
}

/// A secret, which no diagnostics show.
#[derive(Clone)]
pub(crate) struct Password(pub(crate) String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl std::str::FromStr for Password {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  hullbox logout registry.example.com")]
pub(crate) struct LogoutArgs {
    /// The registry; docker.io if it is left out
    #[arg(value_name = "SERVER")]
    pub(crate) server: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ManifestCommand {
    /// Show the manifest or index of an image in a registry or a layout
    Inspect(ManifestInspectArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  hullbox manifest inspect debian:12")]
pub(crate) struct ManifestInspectArgs {
    /// Print the bytes as they are, whose SHA-256 is the digest
    #[arg(long)]
    pub(crate) raw: bool,
    /// The image; or oci:DIR[:TAG]
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    pub(crate) image: String,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  hullbox image copy debian:12 registry.example.com/debian:12\n  \
                  hullbox image copy --all debian:12 oci:layout:12\n  \
                  hullbox image copy docker-archive:saved.tar registry.example.com/app:1"
)]
pub(crate) struct CopyArgs {
    /// Copy all images of an index, not just the one of a platform
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Platform to choose from an index, as OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM", conflicts_with = "all")]
    pub(crate) platform: Option<Platform>,
    /// Print nothing but the digest
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) progress: ProgressArg,
    /// NAME[:TAG|@DIGEST] in a registry, oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:NAME]
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// The same, but no digest
    #[arg(value_name = "DESTINATION")]
    pub(crate) destination: String,
}
