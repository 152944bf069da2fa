//! The Internet checksum (RFC 1071), and the pseudo-headers of IPv4 and IPv6.

use std::net::IpAddr;

/// The ones' complement sum of `bytes`, not yet folded; `bytes` begins at an even offset.
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    let mut total = 0u64;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        total += u64::from(u32::from_be_bytes(*word));
    }
    let mut last = [0u8; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    total + u64::from(u32::from_be_bytes(last))
}

/// Folds a sum into 16 bits.
#[must_use]
pub fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// The sum of a pseudo-header (RFC 793 and RFC 8200, section 8.1). Addresses of unequal families
/// have no pseudo-header; the sum is then of no use, and callers do not let it happen.
#[must_use]
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u64 {
    let addresses = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            sum(&source.octets()) + sum(&destination.octets())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            sum(&source.octets()) + sum(&destination.octets())
        }
        _ => 0,
    };
    addresses + u64::from(protocol) + length as u64
}

/// The checksum field's value for a transport segment whose own field is zero.
#[must_use]
pub fn transport(source: IpAddr, destination: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    !fold(pseudo_header(source, destination, protocol, segment.len()) + sum(segment))
}

/// Whether a transport segment's checksum is right.
#[must_use]
pub fn transport_is_valid(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    segment: &[u8],
) -> bool {
    fold(pseudo_header(source, destination, protocol, segment.len()) + sum(segment)) == 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes)), 0xddf2);
    }

    #[test]
    fn an_odd_byte_counts_as_the_high_one() {
        assert_eq!(fold(sum(&[0x12])), 0x1200);
        assert_eq!(fold(sum(&[0, 0, 0, 1, 0x12])), 0x1201);
    }

    #[test]
    fn a_segment_with_its_checksum_is_valid_and_a_changed_one_is_not() {
        let (a, b) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut segment = vec![0, 53, 0, 54, 0, 11, 0, 0, b'x', b'y', b'z'];
        let check = transport(a, b, 17, &segment);
        segment[6..8].copy_from_slice(&check.to_be_bytes());
        assert!(transport_is_valid(a, b, 17, &segment));
        segment[10] ^= 1;
        assert!(!transport_is_valid(a, b, 17, &segment));
    }
}
