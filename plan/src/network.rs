//! What a container's network is to be: from `--network` and its family to
//! [`Network`] and the interface inside. Words for what does not go together are Docker 26.1's.

mod judge;
mod mode;
mod rate;
mod shared;

pub use judge::{Judgement, judge};
pub use mode::{Attachment, MacAddress, Mode, ipv4, ipv6};
pub use rate::NetworkRate;
pub use shared::{Attached, Known, MAX_NETWORKS, fit_sysctls, order_routes};

use super::error::PlanError;
use super::ipam::IpamError;
use super::ports::{Port, PortSet, Publish};
use super::request::RunRequest;
use super::spec::ContainerSpec;
use super::units::{HostAddress, ValueError};
use hullbox_backend::network::{MAX_PUBLISHED, Network, PublishedPort, UserNetwork};
use hullbox_host::paths::short_id;
use hullbox_model::isolation::Isolation;
use hullbox_net::policy::Policy;
use hullbox_protocol::{Addresses, Interface};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The gateway of a network of its own, which is the name server too.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
/// The container in it. Nobody else is in its network, so all containers have the same addresses.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Length of the prefix, in bits.
pub const PREFIX: u8 = 24;
/// The gateway's IPv6 address: in a unique local range (RFC 4193).
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd48, 0x554c, 0x4c42, 0, 0, 0, 0, 1);
/// The container's.
pub const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd48, 0x554c, 0x4c42, 0, 0, 0, 0, 2);
/// Length of its prefix, in bits.
pub const PREFIX_V6: u8 = 64;
/// The gateway's MAC address, locally administered.
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0x48, 0x55, 0x4c, 0x4c, 0x01];
/// In bytes: segments of 64 KiB are moved at a time.
pub const MTU: u16 = 65520;

/// Where a container may connect to, in the words of `hullbox_net::policy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Egress(String);

impl Egress {
    /// As typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Egress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for Egress {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        match text.parse::<Policy>() {
            Ok(_) => Ok(Self(text)),
            Err(error) => Err(ValueError::new(error.to_string())),
        }
    }
}

impl From<Egress> for String {
    fn from(egress: Egress) -> Self {
        egress.0
    }
}

/// What somebody asks of the network, as typed.
#[derive(Debug, Clone, Default)]
pub struct NetworkRequest {
    /// `--network`, each one.
    pub attachments: Vec<Attachment>,
    /// `--network-alias`.
    pub aliases: Vec<String>,
    /// `--ip`.
    pub ipv4: Option<Ipv4Addr>,
    /// `--ip6`.
    pub ipv6: Option<Ipv6Addr>,
    /// `--mac-address`.
    pub mac_address: Option<MacAddress>,
    /// `--publish`.
    pub publish: Vec<Publish>,
    /// `--publish-all`.
    pub publish_all: bool,
    /// `--expose`.
    pub expose: Vec<super::ports::Expose>,
    /// `--egress`, or the configured default.
    pub egress: Option<Egress>,
    /// `--network-rate`.
    pub rate: Option<NetworkRate>,
    /// The container whose network it joins, where that is asked for: looked up by whoever knows
    /// containers.
    pub joined: Option<Joined>,
    /// The networks that were asked for by name, as far as there are such, in the same order.
    pub known: Vec<Known>,
}

/// A container whose network another one joins: what they share besides.
#[derive(Debug, Clone, Default)]
pub struct Joined {
    /// Full id.
    pub id: String,
    /// How it is isolated.
    pub isolation: Isolation,
    /// Host name.
    pub hostname: String,
    /// /etc/hosts.
    pub etc_hosts: String,
    /// /etc/resolv.conf.
    pub etc_resolv_conf: String,
}

impl NetworkRequest {
    /// What is to be; Docker's `bridge` unless something else was typed.
    #[must_use]
    pub fn mode(&self) -> Mode {
        let first = self.attachments.first();
        first.map_or(Mode::User, |attachment| attachment.mode.clone())
    }

    /// The name or id of the container whose network is to be joined.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        match self.attachments.first().map(|first| &first.mode) {
            Some(Mode::Container(name)) => Some(name),
            _ => None,
        }
    }

    /// The published ports, each one.
    pub(super) fn published(&self) -> Vec<PublishedPort> {
        let flags = self.publish.iter();
        flags.flat_map(|Publish(ports)| ports).cloned().collect()
    }

    /// What to warn of. `in_machine`: the container is made in the helper machine.
    #[must_use]
    pub fn warnings(&self, in_machine: bool) -> Vec<&'static str> {
        if self.mode() != Mode::Host {
            return Vec::new();
        }
        let discarded = "Published ports are discarded when using host network mode";
        let machine = "The host's network is the helper machine's, which has the loopback alone";
        let discarded = (!self.publish.is_empty()).then_some(discarded);
        discarded
            .into_iter()
            .chain(in_machine.then_some(machine))
            .collect()
    }
}

/// What makes no sense together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkError {
    /// No network has this name.
    #[error("network {0} not found")]
    NotFound(String),
    /// The flag has no meaning in the network mode.
    #[error("conflicting options: {0} and the network mode")]
    Mode(&'static str),
    /// A port of another container's network.
    #[error("conflicting options: port publishing and the container type network mode")]
    Publish,
    /// The same.
    #[error("conflicting options: port exposing and the container type network mode")]
    Expose,
    /// A network was named twice.
    #[error("network {0:?} is specified multiple times")]
    Twice(String),
    /// Two networks of which one is no network that containers share.
    #[error(
        "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
    )]
    Several,
    /// Two networks that no containers share.
    #[error("conflicting options: of none, bridge, host and container networks there can be one")]
    Multiple,
    /// Two words for one thing.
    #[error("conflicting options: cannot specify both --network-alias and per-network alias")]
    AliasTwice,
    /// Nobody else is in the network who could use it.
    #[error("network-scoped aliases are only supported for user-defined networks")]
    Alias,
    /// Its addresses are fixed.
    #[error("user specified IP address is supported on user defined networks only")]
    Address,
    /// Two words for one address.
    #[error("conflicting options: cannot specify both --{0} and per-network {1}")]
    AddressTwice(&'static str, &'static str),
    /// A network cannot give an address.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// More than [`MAX_NETWORKS`].
    #[error("too many networks: the most is {}", MAX_NETWORKS)]
    TooManyNetworks,
    /// Far too many names in one network.
    #[error("too many network-scoped aliases")]
    TooManyAliases,
    /// No name.
    #[error("invalid network-scoped alias {0:?}")]
    BadAlias(String),
    /// Another kernel's namespace.
    #[error(
        "--network {0} needs --isolation=container: a microVM's network is in a kernel of its own"
    )]
    Vm(String),
    /// The same the other way round.
    #[error("cannot join the network of container {}: it is in a microVM's own kernel", short_id(.0))]
    JoinVm(String),
    /// It would set the host's own.
    #[error("sysctl {0:?} not allowed in host network namespace")]
    Sysctl(String),
    /// More than [`MAX_PUBLISHED`].
    #[error("too many published ports: the most is {}", MAX_PUBLISHED)]
    TooMany,
    /// `--publish-all` of what cannot be published.
    #[error("cannot publish port {0}: only ports of tcp and udp can be published")]
    Transport(Port),
}

/// A container's network, all questions answered.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) network: Network,
    /// That of a network of its own, if it has one.
    pub(super) interfaces: Vec<Interface>,
    /// The networks that it shares.
    pub(super) shared: Vec<Attached>,
    pub(super) exposed: PortSet,
}

/// Decides; `image` are the ports that the image exposes.
pub(super) fn plan(id: &str, request: &RunRequest, image: PortSet) -> Result<Planned, PlanError> {
    let asked = &request.network;
    let mode = asked.mode();
    check(request, &mode)?;
    let mut exposed = image;
    exposed.extend(asked.expose.iter().flat_map(|expose| expose.0.ports()));
    exposed.extend(asked.published().iter().map(container_port));
    let (network, interfaces) = match mode {
        Mode::None => (Network::None, Vec::new()),
        Mode::Host => (Network::Host, Vec::new()),
        Mode::Container(name) => {
            let joined = asked.joined.as_ref();
            let joined =
                joined.ok_or_else(|| NetworkError::NotFound(format!("container:{name}")))?;
            (Network::Container(joined.id.clone()), Vec::new())
        }
        Mode::User | Mode::Named(_) => {
            let network = UserNetwork {
                egress: asked.egress.clone().map(String::from),
                host_gateway: has_host_gateway(request),
                dns: request.dns.clone(),
                ports: ports(asked, &exposed)?,
                shared: Vec::new(),
                rate: asked.rate.map(|rate| rate.0).unwrap_or_default(),
            };
            let own = (mode == Mode::User).then(|| own_interface(id, asked.mac()));
            let mut own: Vec<_> = own.into_iter().collect();
            let sysctls = request.sysctls.iter();
            let sysctls: Vec<_> = sysctls.map(|s| (s.name.clone(), s.value.clone())).collect();
            fit_sysctls(&mut own, &sysctls);
            (Network::User(network), own)
        }
    };
    let shared = match asked.names().next() {
        Some(_) => asked.attached()?,
        None => Vec::new(),
    };
    Ok(Planned {
        network,
        interfaces,
        shared,
        exposed,
    })
}

impl NetworkRequest {
    /// The MAC address that was asked for, with either flag.
    pub(super) fn mac(&self) -> Option<MacAddress> {
        let first = self.attachments.first();
        let own = first.and_then(|attachment| attachment.mac_address);
        own.or(self.mac_address)
    }
}

/// Gives a container that was saved a network like the one it had, with ports and, unless nothing was typed,
/// a policy of the request: two copies cannot have the same ports of the host. Each has a MAC address of
/// its own.
pub(super) fn copy(
    id: &str,
    request: &RunRequest,
    spec: &mut ContainerSpec,
) -> Result<(), NetworkError> {
    let asked = &request.network;
    let exposed = asked.expose.iter().flat_map(|expose| expose.0.ports());
    spec.exposed.extend(exposed);
    spec.exposed
        .extend(asked.published().iter().map(container_port));
    spec.typed.publish = asked.published();
    spec.typed.publish_all = asked.publish_all;
    if let Network::User(network) = &mut spec.network {
        network.ports = ports(asked, &spec.exposed)?;
        if let Some(egress) = &asked.egress {
            network.egress = Some(egress.as_str().to_owned());
        }
        if let Some(NetworkRate(rate)) = asked.rate {
            network.rate = rate;
        }
        spec.typed.mac_address = None;
        for interface in &mut spec.setup.interfaces {
            interface.mac = own_mac(id);
        }
        // The original may run, and has them.
        for attached in &mut spec.networks {
            (attached.ipv4, attached.ipv6, attached.mac) = (None, None, None);
        }
    }
    Ok(())
}

/// Whether the kernel is told to have no IPv6 on the interface, where it then takes no address.
fn is_ipv6_disabled(interface: &str, sysctls: &[(String, String)]) -> bool {
    ["all", interface].into_iter().any(|of| {
        let name = format!("net.ipv6.conf.{of}.disable_ipv6");
        let mut typed = sysctls.iter().rev();
        let last = typed.find(|(typed, _)| *typed == name);
        last.is_some_and(|(_, value)| value != "0")
    })
}

/// Whether a name leads to the host's loopback.
fn has_host_gateway(request: &RunRequest) -> bool {
    let mut hosts = request.add_host.iter();
    hosts.any(|host| host.address == HostAddress::Gateway)
}

fn container_port(port: &PublishedPort) -> Port {
    Port {
        number: port.container_port,
        transport: port.protocol.into(),
    }
}

/// The ports to publish: those that were typed, and with `-P` all others that are exposed.
fn ports(asked: &NetworkRequest, exposed: &PortSet) -> Result<Vec<PublishedPort>, NetworkError> {
    let mut ports = asked.published();
    if asked.publish_all {
        let typed: PortSet = ports.iter().map(container_port).collect();
        for port in exposed.iter().filter(|port| !typed.contains(*port)) {
            let protocol = port.transport.published();
            ports.push(PublishedPort {
                protocol: protocol.ok_or(NetworkError::Transport(port))?,
                host_ip: None,
                host_ports: (0, 0),
                container_port: port.number,
            });
        }
    }
    if ports.len() > MAX_PUBLISHED {
        return Err(NetworkError::TooMany);
    }
    Ok(ports)
}

/// The container's interface in a network of its own.
#[must_use]
pub fn own_interface(id: &str, mac: Option<MacAddress>) -> Interface {
    Interface {
        mac: mac.map_or_else(|| own_mac(id), |mac| mac.0),
        mtu: MTU,
        ipv4: Some(Addresses {
            address: ADDRESS,
            prefix: PREFIX,
            gateway: Some(GATEWAY),
        }),
        ipv6: Some(Addresses {
            address: ADDRESS_V6,
            prefix: PREFIX_V6,
            gateway: Some(GATEWAY_V6),
        }),
        gateway_mac: GATEWAY_MAC,
        route_metric: Some(0),
    }
}

/// A locally administered address made of the first ten digits of an id; never the gateway's.
fn own_mac(id: &str) -> [u8; 6] {
    let mut mac = [0x02, 0, 0, 0, 0, 0];
    for (at, byte) in mac.iter_mut().skip(1).enumerate() {
        let digits = id.get(2 * at..2 * at + 2).unwrap_or_default();
        *byte = u8::from_str_radix(digits, 16).unwrap_or(0);
    }
    if mac == GATEWAY_MAC {
        mac[5] ^= 0x80;
    }
    mac
}

/// What does not go together, in Docker's order.
fn check(request: &RunRequest, mode: &Mode) -> Result<(), NetworkError> {
    let asked = &request.network;
    attachments(asked)?;
    if matches!(mode, Mode::Host | Mode::Container(_)) && request.isolation == Isolation::Vm {
        return Err(NetworkError::Vm(mode.to_string()));
    }
    let joins = matches!(mode, Mode::Container(_));
    if joins && request.hostname.is_some() {
        return Err(NetworkError::Mode("hostname"));
    }
    if joins && !request.dns.is_empty() {
        return Err(NetworkError::Mode("dns"));
    }
    if joins && !request.add_host.is_empty() {
        return Err(NetworkError::Mode("custom host-to-IP mapping"));
    }
    let shares = joins || *mode == Mode::Host;
    if shares && asked.mac().is_some() {
        return Err(NetworkError::Mode("mac-address"));
    }
    if joins && (!asked.publish.is_empty() || asked.publish_all) {
        return Err(NetworkError::Publish);
    }
    if joins && !asked.expose.is_empty() {
        return Err(NetworkError::Expose);
    }
    // What it sends passes by all that could refuse it.
    if shares && asked.egress.is_some() {
        return Err(NetworkError::Mode("egress"));
    }
    if shares && asked.rate.is_some() {
        return Err(NetworkError::Mode("network-rate"));
    }
    if *mode == Mode::Host {
        let mut sysctls = request.sysctls.iter();
        if let Some(sysctl) = sysctls.find(|sysctl| sysctl.name.starts_with("net.")) {
            return Err(NetworkError::Sysctl(sysctl.name.clone()));
        }
    }
    match &asked.joined {
        Some(joined) if joins && joined.isolation == Isolation::Vm => {
            Err(NetworkError::JoinVm(joined.id.clone()))
        }
        _ => Ok(()),
    }
}

/// What was typed of the networks themselves.
fn attachments(asked: &NetworkRequest) -> Result<(), NetworkError> {
    let default = [Attachment::default()];
    let all = match asked.attachments.as_slice() {
        [] => &default,
        typed => typed,
    };
    for (at, one) in all.iter().enumerate() {
        // The flags without a network's name mean the first one.
        let is_first = at == 0;
        let aliases = is_first && !asked.aliases.is_empty();
        if aliases && !one.aliases.is_empty() {
            return Err(NetworkError::AliasTwice);
        }
        let has_address = is_first && (asked.ipv4.is_some() || asked.ipv6.is_some());
        if is_first && asked.ipv4.is_some() && one.ipv4.is_some() {
            return Err(NetworkError::AddressTwice("ip", "IPv4 address"));
        }
        if is_first && asked.ipv6.is_some() && one.ipv6.is_some() {
            return Err(NetworkError::AddressTwice("ip6", "IPv6 address"));
        }
        if is_first && asked.mac_address.is_some() && one.mac_address.is_some() {
            return Err(NetworkError::AddressTwice("mac-address", "MAC address"));
        }
        if all.iter().take(at).any(|other| other.mode == one.mode) {
            return Err(NetworkError::Twice(one.mode.to_string()));
        }
        let is_own = !matches!(one.mode, Mode::Named(_));
        if is_own && (aliases || !one.aliases.is_empty()) {
            return Err(NetworkError::Alias);
        }
        if is_own && (has_address || one.ipv4.is_some() || one.ipv6.is_some()) {
            return Err(NetworkError::Address);
        }
    }
    let mut names = all.iter().filter_map(|one| match &one.mode {
        Mode::Named(name) => Some(name),
        _ => None,
    });
    match (names.next(), names.count() + 1 == all.len()) {
        (Some(_), true) => Ok(()),
        (Some(_), false) => Err(NetworkError::Several),
        (None, _) if all.len() > 1 => Err(NetworkError::Multiple),
        (None, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
