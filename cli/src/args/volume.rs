//! What can be typed for volumes.

use super::network::KeyValue;
use super::system::InspectArgs;
use clap::{Args, Subcommand};
use hullbox_engine::plan::units::Label;
use std::collections::BTreeMap;

#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Create a volume
    #[command(after_help = "Example:\n  hullbox volume create data\n  \
                            hullbox volume create --opt type=ext4 --opt size=20g db")]
    Create(VolumeCreateArgs),
    /// List volumes
    #[command(alias = "list")]
    Ls(VolumeLsArgs),
    /// Show everything that is known about volumes
    Inspect(VolumeInspectArgs),
    /// Remove volumes that no container has
    #[command(alias = "remove")]
    Rm(VolumeRmArgs),
    /// Remove all volumes that nobody named and no container has
    Prune(VolumePruneArgs),
    /// Grow a volume with a disk of its own
    #[command(after_help = "Example:\n  hullbox volume update --opt size=40g db")]
    Update(VolumeUpdateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct VolumeCreateArgs {
    /// Driver; there is one
    #[arg(short, long, value_name = "DRIVER", default_value = "local")]
    pub(crate) driver: String,
    /// Set a label
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) label: Vec<Label>,
    /// Set an option: type, o, device; type=ext4 and size for a disk of its own (VM mode)
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) opt: Vec<KeyValue>,
    /// Its name, in Docker's old way
    #[arg(long = "name", value_name = "VOLUME", hide = true)]
    pub(crate) named: Option<String>,
    /// The device is of the host outside: see [`super::forwarded`]
    #[arg(skip)]
    pub(crate) outside: bool,
    /// Its name; made up when missing
    #[arg(value_name = "VOLUME")]
    pub(crate) name: Option<String>,
}

impl VolumeCreateArgs {
    /// `--opt`.
    pub(crate) fn options(&self) -> BTreeMap<String, String> {
        let options = self.opt.iter();
        options
            .map(|KeyValue(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

#[derive(Debug, Args)]
pub(crate) struct VolumeLsArgs {
    /// Show only names
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show only what matches: `name=`, `label=`, `driver=`, `dangling=`
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
    /// `table`, `json`, a template, or a `table` with a template
    #[arg(long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct VolumeInspectArgs {
    /// `json` or a template such as '{{.Mountpoint}}'
    #[arg(short, long)]
    pub(crate) format: Option<String>,
    /// Names
    #[arg(value_name = "VOLUME", required = true)]
    pub(crate) names: Vec<String>,
}

impl VolumeInspectArgs {
    /// The same for objects of any type.
    pub(crate) fn into_any(self) -> InspectArgs {
        InspectArgs {
            format: self.format,
            kind: None,
            size: false,
            names: self.names,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct VolumeRmArgs {
    /// A volume that does not exist is no failure
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Names
    #[arg(value_name = "VOLUME", required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct VolumePruneArgs {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Those with a name, too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Remove only what matches: `label=KEY[=VALUE]`, `label!=KEY[=VALUE]`
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct VolumeUpdateArgs {
    /// size=SIZE
    #[arg(short, long, value_name = "KEY=VALUE", required = true)]
    pub(crate) opt: Vec<KeyValue>,
    /// Its name
    #[arg(value_name = "VOLUME")]
    pub(crate) name: String,
}
