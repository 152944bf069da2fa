//! Ethernet II headers and MAC addresses.

use super::{ETHERNET_BYTES, be16};
use std::fmt;
use std::str::FromStr;

/// The EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// The EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// The EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// A MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether frames to it are for more than one receiver (multicast and broadcast).
    #[must_use]
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text is no MAC address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a MAC address is six pairs of hexadecimal digits with colons between them")]
pub struct MacError;

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or(MacError)?;
            if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(MacError);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| MacError)?;
        }
        if parts.next().is_some() {
            return Err(MacError);
        }
        Ok(Self(mac))
    }
}

/// An Ethernet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ethernet {
    /// Where the frame goes.
    pub destination: Mac,
    /// Where it says it comes from.
    pub source: Mac,
    /// What it carries.
    pub ethertype: u16,
}

impl Ethernet {
    /// Splits a frame (without its virtio-net header) into its header and what it carries.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<(Self, &[u8])> {
        let (header, payload) = frame.split_at_checked(ETHERNET_BYTES)?;
        Some((
            Self {
                destination: Mac(header.get(..6)?.try_into().ok()?),
                source: Mac(header.get(6..12)?.try_into().ok()?),
                ethertype: be16(header, 12)?,
            },
            payload,
        ))
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(self) -> [u8; ETHERNET_BYTES] {
        let mut bytes = [0; ETHERNET_BYTES];
        bytes[..6].copy_from_slice(&self.destination.0);
        bytes[6..12].copy_from_slice(&self.source.0);
        bytes[12..].copy_from_slice(&self.ethertype.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_as_text() {
        let mac: Mac = "02:00:5e:10:00:ff".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:10:00:ff");
        for wrong in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:ff:01",
            "2:0:5:1:0:f",
            "02:00:5e:10:00:+f",
        ] {
            assert_eq!(wrong.parse::<Mac>(), Err(MacError), "{wrong}");
        }
    }

    #[test]
    fn a_header_of_thirteen_bytes_is_none() {
        assert!(Ethernet::parse(&[0; 13]).is_none());
    }
}
