//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers.

use super::{be16, be32, checksum, protocol};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most extension headers of one IPv6 packet that are skipped; a packet with more is dropped.
const MAX_EXTENSIONS: usize = 8;

/// Which part of a datagram a fragment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentInfo {
    /// What is common to the fragments of one datagram, beside addresses and protocol.
    pub id: u32,
    /// Where the fragment lies in the datagram, in bytes.
    pub offset: usize,
    /// Whether others follow.
    pub more: bool,
}

/// One IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpPacket<'a> {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The transport protocol.
    pub protocol: u8,
    /// Set if the packet is a fragment: then `payload` is a part of the transport's bytes.
    pub fragment: Option<FragmentInfo>,
    /// Routers must not fragment it (always so with IPv6).
    pub dont_fragment: bool,
    /// Hop limit or time to live.
    pub hop_limit: u8,
    /// The transport's bytes.
    pub payload: &'a [u8],
    /// The whole packet, headers included, without padding.
    pub whole: &'a [u8],
}

impl<'a> IpPacket<'a> {
    /// Parses an IPv4 packet; its header checksum must be right.
    #[must_use]
    pub fn parse_v4(bytes: &'a [u8]) -> Option<Self> {
        let first = *bytes.first()?;
        let header_bytes = usize::from(first & 15) * 4;
        let total = usize::from(be16(bytes, 2)?);
        if first >> 4 != 4 || header_bytes < 20 || total < header_bytes {
            return None;
        }
        let whole = bytes.get(..total)?;
        let (header, payload) = whole.split_at_checked(header_bytes)?;
        if checksum::fold(checksum::sum(header)) != 0xffff {
            return None;
        }
        let flags = be16(header, 6)?;
        let offset = usize::from(flags & 0x1fff) * 8;
        let more = flags & 0x2000 != 0;
        let source: [u8; 4] = header.get(12..16)?.try_into().ok()?;
        let destination: [u8; 4] = header.get(16..20)?.try_into().ok()?;
        Some(Self {
            source: Ipv4Addr::from(source).into(),
            destination: Ipv4Addr::from(destination).into(),
            protocol: *header.get(9)?,
            fragment: (more || offset != 0).then_some(FragmentInfo {
                id: u32::from(be16(header, 4)?),
                offset,
                more,
            }),
            dont_fragment: flags & 0x4000 != 0,
            hop_limit: *header.get(8)?,
            payload,
            whole,
        })
    }

    /// Parses an IPv6 packet and skips its extension headers. A routing header is refused: it
    /// would name another destination than the one that is judged.
    #[must_use]
    pub fn parse_v6(bytes: &'a [u8]) -> Option<Self> {
        if *bytes.first()? >> 4 != 6 {
            return None;
        }
        let total = 40 + usize::from(be16(bytes, 4)?);
        let whole = bytes.get(..total)?;
        let source: [u8; 16] = whole.get(8..24)?.try_into().ok()?;
        let destination: [u8; 16] = whole.get(24..40)?.try_into().ok()?;
        let mut next = *whole.get(6)?;
        let mut payload = whole.get(40..)?;
        let mut fragment = None;
        for _ in 0..=MAX_EXTENSIONS {
            match next {
                // Hop-by-hop and destination options.
                0 | 60 if fragment.is_none() => {
                    let length = (usize::from(*payload.get(1)?) + 1) * 8;
                    next = *payload.first()?;
                    payload = payload.get(length..)?;
                }
                protocol::IPV6_FRAGMENT if fragment.is_none() => {
                    let word = be16(payload, 2)?;
                    fragment = Some(FragmentInfo {
                        id: be32(payload, 4)?,
                        offset: usize::from(word & 0xfff8),
                        more: word & 1 != 0,
                    });
                    next = *payload.first()?;
                    payload = payload.get(8..)?;
                }
                0 | 43 | 60 | protocol::IPV6_FRAGMENT => return None,
                _ => {
                    return Some(Self {
                        source: Ipv6Addr::from(source).into(),
                        destination: Ipv6Addr::from(destination).into(),
                        protocol: next,
                        // An atomic fragment (RFC 6946) is a whole datagram.
                        fragment: fragment.filter(|part| part.more || part.offset != 0),
                        dont_fragment: true,
                        hop_limit: *whole.get(7)?,
                        payload,
                        whole,
                    });
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::build;

    fn v4(payload: &[u8]) -> Vec<u8> {
        let (a, b) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut packet = vec![0; build::ip_header_bytes(a)];
        build::put_ip(&mut packet, a, b, 17, payload.len());
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn a_packet_of_ours_is_parsed_without_its_padding() {
        let mut bytes = v4(b"hello");
        bytes.extend_from_slice(&[0; 21]);
        let packet = IpPacket::parse_v4(&bytes).unwrap();
        assert_eq!(packet.payload, b"hello");
        assert_eq!(packet.whole.len(), 25);
        assert_eq!(packet.fragment, None);
    }

    #[test]
    fn wrong_lengths_and_checksums_are_refused() {
        let good = v4(b"hello");
        for cut in 0..good.len() {
            assert!(IpPacket::parse_v4(&good[..cut]).is_none(), "{cut}");
        }
        for at in 0..20 {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(IpPacket::parse_v4(&bad).is_none(), "{at}");
        }
    }

    #[test]
    fn a_routing_header_is_refused_and_options_are_skipped() {
        let (a, b) = (
            "2001:db8::1".parse().unwrap(),
            "2001:db8::2".parse().unwrap(),
        );
        let mut bytes = vec![0; 40];
        build::put_ip(&mut bytes, a, b, 60, 8 + 4);
        bytes.extend_from_slice(&[17, 0, 1, 4, 0, 0, 0, 0]);
        bytes.extend_from_slice(b"data");
        let packet = IpPacket::parse_v6(&bytes).unwrap();
        assert_eq!((packet.protocol, packet.payload), (17, &b"data"[..]));
        bytes[6] = 43;
        assert!(IpPacket::parse_v6(&bytes).is_none());
    }

    #[test]
    fn a_chain_of_extensions_ends() {
        let (a, b) = (
            "2001:db8::1".parse().unwrap(),
            "2001:db8::2".parse().unwrap(),
        );
        let mut bytes = vec![0; 40];
        build::put_ip(&mut bytes, a, b, 60, 8 * 200);
        for _ in 0..200 {
            bytes.extend_from_slice(&[60, 0, 1, 4, 0, 0, 0, 0]);
        }
        assert!(IpPacket::parse_v6(&bytes).is_none());
    }
}
