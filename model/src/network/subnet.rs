//! Ranges of addresses in CIDR notation.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses: `172.18.0.0/16`, `fd00::/64`. Bits behind the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    first: IpAddr,
    prefix: u8,
}

/// Why a text is no range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// It is not `ADDRESS/LENGTH`.
    #[error("invalid CIDR block notation")]
    Notation,
    /// Bits behind the prefix are set.
    #[error("it should be {0}")]
    HostBits(Subnet),
}

impl Subnet {
    /// The range with this prefix that an address is in; none where the prefix is longer than an address.
    #[must_use]
    pub fn around(address: IpAddr, prefix: u8) -> Option<Self> {
        let host_bits = width(address).checked_sub(prefix)?;
        let bits = clear_low(to_bits(address), host_bits);
        let first = from_bits(bits, address.is_ipv6());
        Some(Self { first, prefix })
    }

    /// Its first address, which names it.
    #[must_use]
    pub const fn first(self) -> IpAddr {
        self.first
    }

    /// Its last address, which in IPv4 is the broadcast address.
    #[must_use]
    pub fn last(self) -> IpAddr {
        let bits = to_bits(self.first) | low_mask(self.host_bits());
        from_bits(bits, self.is_ipv6())
    }

    /// Length of the prefix, in bits.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether it is of IPv6.
    #[must_use]
    pub const fn is_ipv6(self) -> bool {
        self.first.is_ipv6()
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv6() == self.is_ipv6()
            && clear_low(to_bits(address), self.host_bits()) == to_bits(self.first)
    }

    /// Whether some address is in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// Its addresses in order.
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> {
        let (first, last) = (to_bits(self.first), to_bits(self.last()));
        (first..=last).map(move |bits| from_bits(bits, self.is_ipv6()))
    }

    fn host_bits(self) -> u8 {
        width(self.first).saturating_sub(self.prefix)
    }
}

const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Of IPv4 the low bits count.
fn from_bits(bits: u128, ipv6: bool) -> IpAddr {
    match u32::try_from(bits) {
        Ok(bits) if !ipv6 => Ipv4Addr::from_bits(bits).into(),
        _ => Ipv6Addr::from_bits(bits).into(),
    }
}

fn low_mask(count: u8) -> u128 {
    1u128
        .checked_shl(count.into())
        .map_or(u128::MAX, |bit| bit - 1)
}

fn clear_low(bits: u128, count: u8) -> u128 {
    bits & !low_mask(count)
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let (address, prefix) = text.split_once('/').ok_or(SubnetError::Notation)?;
        let address: IpAddr = address.parse().map_err(|_| SubnetError::Notation)?;
        // No sign, no zero before other digits, as Go has it.
        let digits = prefix.bytes().all(|digit| digit.is_ascii_digit());
        let plain = digits && (prefix == "0" || !prefix.starts_with('0'));
        let prefix = prefix.parse().ok().filter(|_| plain);
        let prefix = prefix.ok_or(SubnetError::Notation)?;
        let subnet = Self::around(address, prefix).ok_or(SubnetError::Notation)?;
        match subnet.first == address {
            true => Ok(subnet),
            false => Err(SubnetError::HostBits(subnet)),
        }
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;

    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_are_read_as_they_are_written() {
        for text in [
            "172.18.0.0/16",
            "10.0.0.1/32",
            "0.0.0.0/0",
            "fd00::/64",
            "::/0",
            "::1/128",
        ] {
            assert_eq!(subnet(text).to_string(), text);
        }
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "fd00::/129",
            "x/8",
            "10.0.0.0/8/8",
            "10.0.0.0/256",
        ] {
            assert_eq!(text.parse::<Subnet>(), Err(SubnetError::Notation), "{text}");
        }
        for (text, meant) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("fd00::1/64", "fd00::/64"),
            ("10.0.0.1/31", "10.0.0.0/31"),
        ] {
            let why = text.parse::<Subnet>().unwrap_err().to_string();
            assert_eq!(why, format!("it should be {meant}"));
        }
    }

    #[test]
    fn a_range_has_a_first_and_a_last_address() {
        for (text, last) in [
            ("172.18.0.0/16", "172.18.255.255"),
            ("10.0.0.4/30", "10.0.0.7"),
            ("10.0.0.4/32", "10.0.0.4"),
            ("0.0.0.0/0", "255.255.255.255"),
            ("fd00::/64", "fd00::ffff:ffff:ffff:ffff"),
            ("::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            assert_eq!(subnet(text).last().to_string(), last, "{text}");
        }
        let all: Vec<_> = subnet("10.0.0.4/30").addresses().collect();
        assert_eq!(all.len(), 4);
        assert_eq!(all[3].to_string(), "10.0.0.7");
        assert_eq!(
            subnet("::/0").addresses().nth(2).unwrap().to_string(),
            "::2"
        );
        assert_eq!(subnet("255.255.255.255/32").addresses().count(), 1);
    }

    #[test]
    fn families_do_not_mix() {
        let contains =
            |range: &str, address: &str| subnet(range).contains(address.parse().unwrap());
        assert!(contains("172.18.0.0/16", "172.18.255.255"));
        assert!(!contains("172.18.0.0/16", "172.19.0.0"));
        assert!(contains("0.0.0.0/0", "1.2.3.4") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("fd00::/64", "fd00::9") && !contains("fd00::/64", "fd00:0:0:1::"));
        for (one, other, both) in [
            ("172.18.0.0/16", "172.18.4.0/24", true),
            ("172.18.4.0/24", "172.18.0.0/16", true),
            ("172.18.0.0/16", "172.19.0.0/16", false),
            ("0.0.0.0/0", "::/0", false),
            ("fd00::/8", "fd12::/64", true),
        ] {
            assert_eq!(subnet(one).overlaps(subnet(other)), both, "{one} {other}");
        }
        assert_eq!(Subnet::around("1.2.3.4".parse().unwrap(), 33), None);
    }

    #[test]
    fn it_is_kept_as_text() {
        let kept = serde_json::to_string(&subnet("fd00::/64")).unwrap();
        assert_eq!(kept, "\"fd00::/64\"");
        assert_eq!(
            serde_json::from_str::<Subnet>(&kept).unwrap(),
            subnet("fd00::/64")
        );
        assert!(serde_json::from_str::<Subnet>("\"1.2.3.4/8\"").is_err());
    }
}
