//! Headers of what a guest is sent.

use super::ethernet::{self, Ethernet, Mac};
use super::{checksum, vnet};
use std::net::IpAddr;

/// Hop limit of packets that come from a host's socket: they are this network's own.
const HOP_LIMIT: u8 = 64;

/// Length of the IP header that goes before an address's packets, in bytes.
#[must_use]
pub fn ip_header_bytes(address: IpAddr) -> usize {
    if address.is_ipv4() { 20 } else { 40 }
}

/// The EtherType of an address's packets.
#[must_use]
pub fn ethertype(address: IpAddr) -> u16 {
    if address.is_ipv4() {
        ethernet::IPV4
    } else {
        ethernet::IPV6
    }
}

/// Writes an IP header for `payload_bytes` of a transport into the whole of `header`, which is
/// `ip_header_bytes` long. IPv4 packets say that they must not be fragmented.
pub fn put_ip(
    header: &mut [u8],
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    payload_bytes: usize,
) {
    header.fill(0);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) if header.len() == 20 => {
            header[0] = 0x45;
            header[2..4].copy_from_slice(&((payload_bytes + 20) as u16).to_be_bytes());
            header[6] = 0x40;
            header[8] = HOP_LIMIT;
            header[9] = protocol;
            header[12..16].copy_from_slice(&source.octets());
            header[16..20].copy_from_slice(&destination.octets());
            seal_v4(header);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) if header.len() == 40 => {
            header[0] = 0x60;
            header[4..6].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
            header[6] = protocol;
            header[7] = HOP_LIMIT;
            header[8..24].copy_from_slice(&source.octets());
            header[24..40].copy_from_slice(&destination.octets());
        }
        _ => {}
    }
}

/// Writes the checksum of an IPv4 header.
pub fn seal_v4(header: &mut [u8]) {
    header[10..12].fill(0);
    let check = !checksum::fold(checksum::sum(header));
    header[10..12].copy_from_slice(&check.to_be_bytes());
}

/// Writes an Ethernet header for an IP packet into the whole of `header`.
pub fn put_ethernet(header: &mut [u8], destination: Mac, source: Mac, ethertype: u16) {
    header.copy_from_slice(
        &Ethernet {
            destination,
            source,
            ethertype,
        }
        .encode(),
    );
}

/// What a TCP header says.
#[derive(Debug, Clone, Copy)]
pub struct TcpFields {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Flags.
    pub flags: u8,
    /// Window as it is written, scaled already.
    pub window: u16,
}

/// Writes a TCP header with zero for a checksum; `header` is as long as header and options.
pub fn put_tcp(header: &mut [u8], fields: &TcpFields, options: &[u8]) {
    let length = header.len();
    header[..2].copy_from_slice(&fields.source_port.to_be_bytes());
    header[2..4].copy_from_slice(&fields.destination_port.to_be_bytes());
    header[4..8].copy_from_slice(&fields.sequence.to_be_bytes());
    header[8..12].copy_from_slice(&fields.acknowledgement.to_be_bytes());
    header[12] = ((length / 4) << 4) as u8;
    header[13] = fields.flags;
    header[14..16].copy_from_slice(&fields.window.to_be_bytes());
    header[16..20].fill(0);
    header[20..].copy_from_slice(options);
}

/// Writes a UDP header with zero for a checksum into the first eight bytes.
pub fn put_udp(header: &mut [u8], source_port: u16, destination_port: u16, payload_bytes: usize) {
    header[..2].copy_from_slice(&source_port.to_be_bytes());
    header[2..4].copy_from_slice(&destination_port.to_be_bytes());
    header[4..6].copy_from_slice(&((payload_bytes + 8) as u16).to_be_bytes());
    header[6..8].fill(0);
}

/// The virtio-net header of a frame whose transport checksum the receiver completes.
#[must_use]
pub fn partial_checksum(csum_start: usize, csum_offset: usize) -> vnet::VnetHeader {
    vnet::VnetHeader {
        flags: vnet::F_NEEDS_CSUM,
        csum_start: csum_start as u16,
        csum_offset: csum_offset as u16,
        ..vnet::VnetHeader::default()
    }
}
