//! `--network` and `--mac-address` as they are typed.

use super::GATEWAY_MAC;
use crate::units::ValueError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A kind of network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Mode {
    /// `none`: the loopback alone.
    None,
    /// `bridge`, `default` or `user`: a network of its own.
    #[default]
    User,
    /// `host`: the host's.
    Host,
    /// `container:NAME`: that of another container, by name or id.
    Container(String),
    /// A network that was made with this name.
    Named(String),
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::User => f.write_str("bridge"),
            Self::Host => f.write_str("host"),
            Self::Container(name) => write!(f, "container:{name}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl FromStr for Mode {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Ok(match text {
            "none" => Self::None,
            "bridge" | "default" | "user" => Self::User,
            "host" => Self::Host,
            _ => match text.split_once(':') {
                Some(("container", name)) if !name.is_empty() => Self::Container(name.to_owned()),
                _ if text.trim().is_empty() => {
                    return Err(ValueError::new("no name set for network"));
                }
                _ if text == "container" || text == "container:" => {
                    return Err(ValueError::new(
                        "invalid network mode: invalid container format container:<name|id>",
                    ));
                }
                _ => Self::Named(text.to_owned()),
            },
        })
    }
}

/// `--network`: one network that a container is to be in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attachment {
    /// Which.
    pub mode: Mode,
    /// `alias=`.
    pub aliases: Vec<String>,
    /// `ip=`.
    pub ipv4: Option<Ipv4Addr>,
    /// `ip6=`.
    pub ipv6: Option<Ipv6Addr>,
    /// `mac-address=`.
    pub mac_address: Option<MacAddress>,
}

impl FromStr for Attachment {
    type Err = ValueError;

    /// A name, or `name=NAME,alias=…,mac-address=…` with Docker's keys.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        if !text.contains('=') {
            return Ok(Self {
                mode: text.parse()?,
                ..Self::default()
            });
        }
        let mut name = None;
        let mut one = Self::default();
        for field in text.split(',') {
            let (key, value) = field
                .split_once('=')
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| ValueError::new(format!("invalid field {field}")))?;
            let value = value.trim();
            match key.trim().to_ascii_lowercase().as_str() {
                "name" => name = Some(value),
                "alias" => one.aliases.push(value.to_owned()),
                "ip" => one.ipv4 = Some(ipv4(value)?),
                "ip6" => one.ipv6 = Some(ipv6(value)?),
                "mac-address" => one.mac_address = Some(value.parse()?),
                "driver-opt" | "gw-priority" | "link-local-ip" => {
                    let why = format!("{} is not supported yet", key.trim());
                    return Err(ValueError::new(why));
                }
                key => return Err(ValueError::new(format!("invalid field key {key}"))),
            }
        }
        let name = name.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| ValueError::new("network name/id is not specified"))?;
        one.mode = name.parse()?;
        Ok(one)
    }
}

/// `--ip` and its like.
///
/// # Errors
/// It is no IPv4 address.
pub fn ipv4(text: &str) -> Result<Ipv4Addr, ValueError> {
    text.parse()
        .map_err(|_| ValueError::new(format!("invalid IPv4 address: {text}")))
}

/// `--ip6` and its like.
///
/// # Errors
/// It is no IPv6 address.
pub fn ipv6(text: &str) -> Result<Ipv6Addr, ValueError> {
    text.parse()
        .map_err(|_| ValueError::new(format!("invalid IPv6 address: {text}")))
}

/// The hardware address of an interface of Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl TryFrom<String> for MacAddress {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let between = if at == 0 { "" } else { ":" };
            write!(f, "{between}{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for MacAddress {
    type Err = ValueError;

    /// Six bytes, as `02:42:ac:11:00:02`, `02-42-ac-11-00-02` or `0242.ac11.0002`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let invalid = || ValueError::new(format!("{text} is not a valid mac address"));
        let plain = text.trim();
        let (between, digits) = match plain.as_bytes().get(2) {
            Some(b':') => (':', 2),
            Some(b'-') => ('-', 2),
            _ => ('.', 4),
        };
        let parts: Vec<&str> = plain.split(between).collect();
        let hex =
            |part: &str| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        if parts.len() * digits != 12 || !parts.iter().all(|part| hex(part)) {
            return Err(invalid());
        }
        let bits = u64::from_str_radix(&parts.concat(), 16).map_err(|_| invalid())?;
        let [_, _, mac @ ..] = bits.to_be_bytes();
        match mac {
            // Linux gives no interface such an address.
            [first, ..] if first & 1 == 1 => Err(ValueError::new(format!(
                "{text} is a multicast address, which no interface can have"
            ))),
            [0, 0, 0, 0, 0, 0] => Err(invalid()),
            GATEWAY_MAC => Err(ValueError::new(format!("{text} is the gateway's address"))),
            mac => Ok(Self(mac)),
        }
    }
}
