//! What can be typed for networks that containers share.

use super::bool_flag::BOOL;
use super::system::InspectArgs;
use clap::{Args, Subcommand};
use hullbox_engine::plan::network;
use hullbox_engine::plan::units::{Label, ValueError};
use std::net::{Ipv4Addr, Ipv6Addr};

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Create a network
    #[command(
        after_help = "Example:\n  hullbox network create --subnet 10.9.0.0/24 shop\n  \
                            hullbox run -d --network shop --name db postgres"
    )]
    Create(NetworkCreateArgs),
    /// List networks
    #[command(alias = "list")]
    Ls(NetworkLsArgs),
    /// Show everything that is known about networks
    Inspect(NetworkInspectArgs),
    /// Remove networks
    #[command(alias = "remove")]
    Rm(NetworkRmArgs),
    /// Remove networks in which no container runs
    Prune(NetworkPruneArgs),
    /// Connect a container to a network
    Connect(NetworkConnectArgs),
    /// Disconnect a container from a network
    Disconnect(NetworkDisconnectArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NetworkCreateArgs {
    /// Driver; there is one
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge")]
    pub(crate) driver: String,
    /// Range of its addresses, such as 10.9.0.0/24; one of IPv4, one of IPv6
    #[arg(long, value_name = "SUBNET", value_delimiter = ',')]
    pub(crate) subnet: Vec<String>,
    /// The gateway's address in it; the first one unless given
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub(crate) gateway: Vec<String>,
    /// Part of the subnet that containers get addresses from
    #[arg(long, value_name = "RANGE", value_delimiter = ',')]
    pub(crate) ip_range: Vec<String>,
    /// An address that no container gets
    #[arg(long, value_name = "NAME=IP")]
    pub(crate) aux_address: Vec<KeyValue>,
    /// Give containers IPv6 addresses too
    #[arg(long, value_name = BOOL)]
    pub(crate) ipv6: bool,
    /// Let containers reach one another and nothing else
    #[arg(long, value_name = BOOL)]
    pub(crate) internal: bool,
    /// For compatibility; every container may be connected
    #[arg(long, value_name = BOOL)]
    pub(crate) attachable: bool,
    /// Set a label
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) label: Vec<Label>,
    /// Set an option of the driver, such as com.docker.network.driver.mtu=1500
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) opt: Vec<KeyValue>,
    /// Who gives addresses; there is one
    #[arg(long, value_name = "DRIVER", hide = true, value_parser = ["default"])]
    pub(crate) ipam_driver: Option<String>,
    /// Where it is; there is one place
    #[arg(long, value_name = "SCOPE", hide = true, value_parser = ["local", ""])]
    pub(crate) scope: Option<String>,
    /// Its name
    #[arg(value_name = "NETWORK")]
    pub(crate) name: String,
}

/// `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyValue(pub(crate) String, pub(crate) String);

impl std::str::FromStr for KeyValue {
    type Err = ValueError;

    /// As Docker: without a value it is empty.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        match key {
            "" => Err(ValueError::new("the key is empty")),
            key => Ok(Self(key.to_owned(), value.to_owned())),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct NetworkLsArgs {
    /// Show only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show whole ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show only what matches: `name=`, `id=`, `label=`, `driver=`, `type=`, `dangling=`, `scope=`
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
    /// `table`, `json`, a template, or a `table` with a template
    #[arg(long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct NetworkInspectArgs {
    /// `json` or a template such as '{{.Containers}}'
    #[arg(short, long)]
    pub(crate) format: Option<String>,
    /// For compatibility; there is no more to show
    #[arg(short, long, hide = true)]
    pub(crate) verbose: bool,
    /// Names or ids
    #[arg(value_name = "NETWORK", required = true)]
    pub(crate) names: Vec<String>,
}

impl NetworkInspectArgs {
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
pub(crate) struct NetworkRmArgs {
    /// A network that does not exist is no failure
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Names or ids
    #[arg(value_name = "NETWORK", required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct NetworkPruneArgs {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Remove only what matches: `until=TIME`, `label=KEY[=VALUE]`, `label!=KEY[=VALUE]`
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct NetworkConnectArgs {
    /// IPv4 address of the container there
    #[arg(long, value_name = "IP", value_parser = network::ipv4)]
    pub(crate) ip: Option<Ipv4Addr>,
    /// IPv6 address of the container there
    #[arg(long, value_name = "IP", value_parser = network::ipv6)]
    pub(crate) ip6: Option<Ipv6Addr>,
    /// Another name of the container there
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) alias: Vec<String>,
    /// Name or id
    #[arg(value_name = "NETWORK")]
    pub(crate) network: String,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct NetworkDisconnectArgs {
    /// For compatibility; nothing is in the way
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Name or id
    #[arg(value_name = "NETWORK")]
    pub(crate) network: String,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}
