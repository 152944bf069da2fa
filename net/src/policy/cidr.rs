//! Ranges of addresses, and which of them are no public ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range of addresses: those that begin like its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// The address; bits beyond the prefix are zero.
    network: IpAddr,
    prefix: u8,
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Cidr {
    /// The range of that prefix in which an address lies. A prefix that is too long is the
    /// address alone.
    #[must_use]
    pub fn containing(address: IpAddr, prefix: u8) -> Self {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.min(longest);
        let kept = bits(address) & mask(prefix);
        let network = match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits((kept >> 96) as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(kept)),
        };
        Self { network, prefix }
    }

    /// Whether an address lies in the range.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.network.is_ipv4() == address.is_ipv4()
            && (bits(self.network) ^ bits(address)) & mask(self.prefix) == 0
    }
}

fn mask(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Cidr {
    Cidr {
        network: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        prefix,
    }
}

const fn v6(first: u16, second: u16, prefix: u8) -> Cidr {
    Cidr {
        network: IpAddr::V6(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0)),
        prefix,
    }
}

/// Ranges of the IANA special-purpose registries (RFC 6890) behind which lies somebody's own
/// network: loopback, private, shared, link-local (metadata services), benchmarking, multicast,
/// unique local.
const RESERVED: [Cidr; 15] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(224, 0, 0, 0, 3),
    v6(0, 0, 16),
    v6(0x64, 0xff9b, 32),
    v6(0xfc00, 0, 7),
    v6(0xfe80, 0, 9),
    v6(0xff00, 0, 8),
];

/// Whether an address lies in a reserved range.
pub fn is_reserved(address: IpAddr) -> bool {
    RESERVED.iter().any(|range| range.contains(address))
}

/// Whether a range lies in a reserved one as a whole.
pub fn is_within_reserved(cidr: Cidr) -> bool {
    RESERVED
        .iter()
        .any(|range| range.prefix <= cidr.prefix && range.contains(cidr.network))
}

/// The IPv4 address that an IPv6 address stands for: mapped (`::ffff:0:0/96`), compatible
/// (`::/96`), NAT64 (`64:ff9b::/96`), 6to4 (`2002::/16`). Any other address is itself.
pub fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let value = v6.to_bits();
    let low = Ipv4Addr::from_bits(value as u32);
    let is_own = value <= 1;
    match value >> 32 {
        0 if !is_own => low.into(),
        0xffff => low.into(),
        prefix if prefix == 0x0064_ff9b_u128 << 64 => low.into(),
        _ if value >> 112 == 0x2002 => Ipv4Addr::from_bits((value >> 80) as u32).into(),
        _ => address,
    }
}
