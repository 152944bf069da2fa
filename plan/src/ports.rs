//! Ports as people type them: `-p`, `--expose`, `80/tcp`. The syntax is that of Docker 26.1, and so are the
//! words for what is wrong with it.

use super::units::ValueError;
use hullbox_backend::network::{PortProtocol, PublishedPort};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// What a container's port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP, which can be exposed and not published.
    Sctp,
}

impl Transport {
    /// In lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The same as of a published port; none of SCTP.
    #[must_use]
    pub const fn published(self) -> Option<PortProtocol> {
        match self {
            Self::Tcp => Some(PortProtocol::Tcp),
            Self::Udp => Some(PortProtocol::Udp),
            Self::Sctp => None,
        }
    }
}

impl From<PortProtocol> for Transport {
    fn from(protocol: PortProtocol) -> Self {
        match protocol {
            PortProtocol::Tcp => Self::Tcp,
            PortProtocol::Udp => Self::Udp,
        }
    }
}

impl FromStr for Transport {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.to_ascii_lowercase().as_str() {
            "" | "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(ValueError::new(format!("invalid proto: {text}"))),
        }
    }
}

/// A container's port: `80/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Its number, never 0.
    pub number: u16,
    /// What it speaks.
    pub transport: Transport,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.transport.as_str())
    }
}

/// `80`, `80-90/udp`: one port or several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last, not below the first.
    pub last: u16,
    /// What they speak.
    pub transport: Transport,
}

impl PortRange {
    /// Its ports.
    pub fn ports(self) -> impl Iterator<Item = Port> {
        let transport = self.transport;
        (self.first..=self.last).map(move |number| Port { number, transport })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.last != self.first {
            write!(f, "-{}", self.last)?;
        }
        write!(f, "/{}", self.transport.as_str())
    }
}

impl FromStr for PortRange {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (numbers, transport) = text.split_once('/').unwrap_or((text, ""));
        let (first, last) = range(numbers)
            .filter(|(first, _)| *first > 0)
            .ok_or_else(|| ValueError::new(format!("invalid port: {numbers}")))?;
        Ok(Self {
            first,
            last,
            transport: transport.parse()?,
        })
    }
}

/// A number, or two with a hyphen between them, the second not below the first.
fn range(text: &str) -> Option<(u16, u16)> {
    // Rust's numbers may have a sign.
    let number = |text: &str| {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
        is_plain.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

/// Ports, each once. They are kept as ranges: an image may expose all there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct PortSet(BTreeSet<Port>);

impl PortSet {
    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = Port> {
        self.0.iter().copied()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it has this one.
    #[must_use]
    pub fn contains(&self, port: Port) -> bool {
        self.0.contains(&port)
    }

    fn ranges(&self) -> Vec<PortRange> {
        let mut ports: Vec<Port> = self.iter().collect();
        ports.sort_by_key(|port| (port.transport, port.number));
        let mut ranges: Vec<PortRange> = Vec::new();
        for Port { number, transport } in ports {
            match ranges.last_mut() {
                Some(range)
                    if range.transport == transport
                        && range.last.checked_add(1) == Some(number) =>
                {
                    range.last = number;
                }
                _ => ranges.push(PortRange {
                    first: number,
                    last: number,
                    transport,
                }),
            }
        }
        ranges
    }
}

impl Extend<Port> for PortSet {
    fn extend<I: IntoIterator<Item = Port>>(&mut self, ports: I) {
        self.0.extend(ports);
    }
}

impl FromIterator<Port> for PortSet {
    fn from_iter<I: IntoIterator<Item = Port>>(ports: I) -> Self {
        Self(ports.into_iter().collect())
    }
}

impl TryFrom<Vec<String>> for PortSet {
    type Error = ValueError;

    fn try_from(texts: Vec<String>) -> Result<Self, ValueError> {
        let mut set = Self::default();
        for text in texts {
            set.extend(text.parse::<PortRange>()?.ports());
        }
        Ok(set)
    }
}

impl From<PortSet> for Vec<String> {
    fn from(set: PortSet) -> Self {
        set.ranges().iter().map(ToString::to_string).collect()
    }
}

/// `--expose`: what one flag exposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expose(pub PortRange);

impl FromStr for Expose {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.contains(':') {
            let why = format!("invalid port format for --expose: {text}");
            return Err(ValueError::new(why));
        }
        let (numbers, transport) = text.split_once('/').unwrap_or((text, ""));
        match range(numbers) {
            Some((first, last)) if first > 0 => Ok(Self(PortRange {
                first,
                last,
                transport: transport.parse()?,
            })),
            _ => Err(ValueError::new(format!(
                "invalid range format for --expose: {text}"
            ))),
        }
    }
}

/// `-p`: what one flag publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish(pub Vec<PublishedPort>);

impl FromStr for Publish {
    type Err = ValueError;

    /// `[IP:][HOST]:CONTAINER[/PROTOCOL]`, or `target=CONTAINER,published=HOST,protocol=…`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.contains('=') {
            return short(&long_as_short(text)?);
        }
        short(text)
    }
}

/// The long syntax in the short one's form.
fn long_as_short(text: &str) -> Result<String, ValueError> {
    let (mut published, mut target, mut protocol) = ("", "", "tcp");
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("published", value)) => published = value,
            Some(("target", value)) => target = value,
            Some(("protocol", value)) => protocol = value,
            // A port of one host is published there.
            Some(("mode", "host" | "ingress")) => {}
            None | Some(("", _)) => {
                let why = "invalid publish opts format (should be name=value but got";
                return Err(ValueError::new(format!("{why} '{field}')")));
            }
            // Docker ignores these: `host_ip=127.0.0.1` would publish at all addresses.
            Some((key, _)) => return Err(ValueError::new(format!("invalid field key {key}"))),
        }
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

fn short(text: &str) -> Result<Publish, ValueError> {
    let (rest, container) = text.rsplit_once(':').unwrap_or(("", text));
    let (ip, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    let (numbers, transport) = container.split_once('/').unwrap_or((container, ""));
    let host_ip = host_ip(ip)?;
    if numbers.is_empty() {
        let why = format!("no port specified: {text}<empty>");
        return Err(ValueError::new(why));
    }
    let (first, last) = range(numbers)
        .filter(|(first, _)| *first > 0)
        .ok_or_else(|| ValueError::new(format!("invalid containerPort: {numbers}")))?;
    let hosts = host_ports(host)?;
    let count = last - first;
    let as_many = hosts.is_none_or(|(low, high)| high - low == count);
    if !as_many && count != 0 {
        return Err(ValueError::new(format!(
            "invalid ranges specified for container and host Ports: {numbers} and {host}"
        )));
    }
    let transport: Transport = transport.parse()?;
    let protocol = transport.published().ok_or_else(|| {
        ValueError::new("sctp is not supported: only ports of tcp and udp can be published")
    })?;
    let port = |offset| PublishedPort {
        protocol,
        host_ip,
        host_ports: match hosts {
            None => (0, 0),
            Some(range) if count == 0 => range,
            Some((low, _)) => (low + offset, low + offset),
        },
        container_port: first + offset,
    };
    Ok(Publish((0..=count).map(port).collect()))
}

/// The ports of the host; none leaves the choice to the kernel.
fn host_ports(text: &str) -> Result<Option<(u16, u16)>, ValueError> {
    if text.is_empty() {
        return Ok(None);
    }
    match range(text) {
        Some((0, 0)) => Ok(None),
        Some((first, last)) if first > 0 => Ok(Some((first, last))),
        _ => Err(ValueError::new(format!("invalid hostPort: {text}"))),
    }
}

/// An address with or without brackets; none is all of the host's.
fn host_ip(text: &str) -> Result<Option<IpAddr>, ValueError> {
    if text.is_empty() {
        return Ok(None);
    }
    let invalid = || ValueError::new(format!("invalid IP address: {text}"));
    let address = match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or_else(invalid)?,
        None => text,
    };
    address.parse().map(Some).map_err(|_| invalid())
}

#[cfg(test)]
mod tests;
