//! Segmentation in software, for a receiver that did not offer to take large segments or partial
//! checksums.

use super::build::{ip_header_bytes, seal_v4};
use super::ethernet::{self, Ethernet};
use super::ip::IpPacket;
use super::tcp::{FIN, PSH};
use super::{ETHERNET_BYTES, VNET_BYTES, be16, be32, checksum, protocol, vnet};

/// Smallest payload of a segment that is made, in bytes: a guest that asks for less would make
/// one frame into tens of thousands.
const MIN_SEGMENT_BYTES: usize = 256;

/// Turns a frame with offloads into plain frames, each of which is given to `emit`. A frame that
/// has none is given as it is. Returns `None` if the frame is malformed.
pub fn without_offloads(frame: &[u8], mut emit: impl FnMut(&[u8])) -> Option<()> {
    let header = vnet::VnetHeader::parse(frame)?;
    let gso = header.gso_type & !vnet::GSO_ECN;
    if gso == vnet::GSO_NONE {
        if header.flags & vnet::F_NEEDS_CSUM == 0 {
            emit(frame);
        } else {
            emit(&completed(frame, header)?);
        }
        return Some(());
    }
    if gso != vnet::GSO_TCPV4 && gso != vnet::GSO_TCPV6 {
        return None;
    }
    let (ethernet, bytes) = Ethernet::parse(frame.get(VNET_BYTES..)?)?;
    let packet = match ethernet.ethertype {
        ethernet::IPV4 => IpPacket::parse_v4(bytes)?,
        ethernet::IPV6 => IpPacket::parse_v6(bytes)?,
        _ => return None,
    };
    if packet.protocol != protocol::TCP || packet.fragment.is_some() {
        return None;
    }
    let tcp_bytes = usize::from(*packet.payload.get(12)? >> 4) * 4;
    if tcp_bytes < 20 {
        return None;
    }
    let (_, payload) = packet.payload.split_at_checked(tcp_bytes)?;
    let tcp_at = VNET_BYTES + ETHERNET_BYTES + packet.whole.len() - packet.payload.len();
    let headers = frame.get(..tcp_at + tcp_bytes)?;
    let size = usize::from(header.gso_bytes).max(MIN_SEGMENT_BYTES);
    let mut out = Vec::with_capacity(headers.len() + size);
    for (index, part) in payload.chunks(size).enumerate() {
        let last = (index + 1) * size >= payload.len();
        out.clear();
        out.extend_from_slice(headers);
        out.extend_from_slice(part);
        one_segment(&mut out, &packet, tcp_at, (index, index * size, last))?;
        emit(&out);
    }
    Some(())
}

/// Rewrites the headers of one segment: lengths, identification, sequence number, flags, sums.
fn one_segment(
    out: &mut [u8],
    packet: &IpPacket<'_>,
    tcp_at: usize,
    (index, offset, last): (usize, usize, bool),
) -> Option<()> {
    let ip_at = VNET_BYTES + ETHERNET_BYTES;
    out.get_mut(..VNET_BYTES)?
        .copy_from_slice(&vnet::VnetHeader::default().encode());
    let ip_bytes = out.len() - ip_at;
    let ip = out.get_mut(ip_at..tcp_at)?;
    if packet.source.is_ipv4() {
        let id = be16(ip, 4)?.wrapping_add(index as u16);
        ip.get_mut(2..4)?
            .copy_from_slice(&(ip_bytes as u16).to_be_bytes());
        ip.get_mut(4..6)?.copy_from_slice(&id.to_be_bytes());
        seal_v4(ip);
    } else {
        let length = (ip_bytes - ip_header_bytes(packet.source)) as u16;
        ip.get_mut(4..6)?.copy_from_slice(&length.to_be_bytes());
    }
    let tcp = out.get_mut(tcp_at..)?;
    let sequence = be32(tcp, 4)?.wrapping_add(offset as u32);
    tcp.get_mut(4..8)?.copy_from_slice(&sequence.to_be_bytes());
    if !last {
        *tcp.get_mut(13)? &= !(FIN | PSH);
    }
    tcp.get_mut(16..18)?.fill(0);
    let check = checksum::transport(packet.source, packet.destination, protocol::TCP, tcp);
    tcp.get_mut(16..18)?.copy_from_slice(&check.to_be_bytes());
    Some(())
}

/// Completes a partial checksum.
fn completed(frame: &[u8], header: vnet::VnetHeader) -> Option<Vec<u8>> {
    let mut out = frame.to_vec();
    out.get_mut(..VNET_BYTES)?
        .copy_from_slice(&vnet::VnetHeader::default().encode());
    let start = VNET_BYTES + usize::from(header.csum_start);
    let field = start + usize::from(header.csum_offset);
    // The field holds the pseudo-header's sum and is summed with the rest.
    let check = !checksum::fold(checksum::sum(out.get(start..)?));
    out.get_mut(field..field.checked_add(2)?)?
        .copy_from_slice(&check.to_be_bytes());
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::build;
    use crate::frame::ethernet::Mac;
    use crate::frame::tcp::{ACK, TcpSegment};
    use std::net::IpAddr;

    fn large(source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
        let ip = build::ip_header_bytes(source);
        let mut frame = vec![0; VNET_BYTES + ETHERNET_BYTES + ip + 20];
        let (head, tcp) = frame.split_at_mut(VNET_BYTES + ETHERNET_BYTES + ip);
        let fields = build::TcpFields {
            source_port: 1,
            destination_port: 2,
            sequence: u32::MAX - 10,
            acknowledgement: 7,
            flags: ACK | PSH | FIN,
            window: 100,
        };
        build::put_tcp(tcp, &fields, &[]);
        let length = 20 + payload.len();
        build::put_ip(&mut head[26..], source, destination, 6, length);
        let mac = Mac([2; 6]);
        build::put_ethernet(&mut head[12..26], mac, mac, build::ethertype(source));
        let pseudo = checksum::fold(checksum::pseudo_header(source, destination, 6, length));
        tcp[16..18].copy_from_slice(&pseudo.to_be_bytes());
        let mut vnet = build::partial_checksum(ETHERNET_BYTES + ip, 16);
        vnet.gso_bytes = 1000;
        vnet.gso_type = if source.is_ipv4() {
            vnet::GSO_TCPV4
        } else {
            vnet::GSO_TCPV6
        };
        head[..12].copy_from_slice(&vnet.encode());
        frame.extend_from_slice(payload);
        frame
    }

    fn parse(frame: &[u8]) -> IpPacket<'_> {
        let (ethernet, bytes) = Ethernet::parse(&frame[VNET_BYTES..]).unwrap();
        match ethernet.ethertype {
            ethernet::IPV4 => IpPacket::parse_v4(bytes).unwrap(),
            _ => IpPacket::parse_v6(bytes).unwrap(),
        }
    }

    #[test]
    fn a_large_segment_becomes_small_ones_with_valid_sums() {
        let payload: Vec<u8> = (0..3500u32).map(|n| n as u8).collect();
        for (a, b) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let frame = large(a.parse().unwrap(), b.parse().unwrap(), &payload);
            let mut got = Vec::new();
            let mut flags = Vec::new();
            without_offloads(&frame, |part| {
                let packet = parse(part);
                assert!(checksum::transport_is_valid(
                    packet.source,
                    packet.destination,
                    6,
                    packet.payload
                ));
                let segment = TcpSegment::parse(packet.payload).unwrap();
                let expected = (u32::MAX - 10).wrapping_add(got.len() as u32);
                assert_eq!(segment.sequence, expected);
                got.extend_from_slice(segment.payload);
                flags.push(segment.flags);
            })
            .unwrap();
            assert_eq!(got, payload);
            assert_eq!(flags, [ACK, ACK, ACK, ACK | PSH | FIN]);
        }
    }

    #[test]
    fn a_partial_checksum_is_completed() {
        let mut frame = large(
            "10.0.0.1".parse().unwrap(),
            "10.0.0.2".parse().unwrap(),
            b"abc",
        );
        frame[1] = vnet::GSO_NONE;
        let mut count = 0;
        without_offloads(&frame, |part| {
            let packet = parse(part);
            assert!(checksum::transport_is_valid(
                packet.source,
                packet.destination,
                6,
                packet.payload
            ));
            count += 1;
        })
        .unwrap();
        assert_eq!(count, 1);
    }

    #[test]
    fn a_checksum_field_beyond_the_frame_is_refused() {
        let mut frame = large(
            "10.0.0.1".parse().unwrap(),
            "10.0.0.2".parse().unwrap(),
            b"abc",
        );
        frame[1] = vnet::GSO_NONE;
        frame[8..10].copy_from_slice(&u16::MAX.to_le_bytes());
        assert!(without_offloads(&frame, |_| unreachable!()).is_none());
    }
}
