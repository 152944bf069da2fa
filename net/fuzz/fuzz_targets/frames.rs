//! Any bytes as a frame, and as the fragments of datagrams; also with the checksum that their IPv4 header has to
//! have, which a fuzzer does not find.
#![no_main]

use hullbox_net::frame::build;
use hullbox_net::frame::ethernet::{self, Ethernet};
use hullbox_net::frame::fragment::Reassembly;
use hullbox_net::frame::ip::IpPacket;
use hullbox_net::frame::segment::without_offloads;
use hullbox_net::frame::tcp::TcpSegment;
use hullbox_net::frame::{ETHERNET_BYTES, MAX_FRAME_BYTES, VNET_BYTES};
use libfuzzer_sys::fuzz_target;

/// Where the IPv4 header is in a frame.
const IPV4_AT: usize = VNET_BYTES + ETHERNET_BYTES;

fuzz_target!(|data: &[u8]| {
    read(data);
    let mut sealed = data.to_vec();
    if let Some(header) = sealed.get_mut(IPV4_AT..IPV4_AT + 20) {
        header[0] = 0x45;
        build::seal_v4(header);
        sealed[IPV4_AT - 2..IPV4_AT].copy_from_slice(&ethernet::IPV4.to_be_bytes());
        read(&sealed);
    }
});

fn read(data: &[u8]) {
    let mut total = 0;
    let _ = without_offloads(data, |frame| {
        assert!(frame.len() <= MAX_FRAME_BYTES.max(data.len()));
        total += frame.len();
    });
    // Headers are repeated at most once for each 256 bytes of payload.
    assert!(total <= data.len() * 2 + 256);
    let Some((header, bytes)) = data.get(VNET_BYTES..).and_then(Ethernet::parse) else {
        return;
    };
    let packet = match header.ethertype {
        ethernet::IPV4 => IpPacket::parse_v4(bytes),
        ethernet::IPV6 => IpPacket::parse_v6(bytes),
        _ => None,
    };
    let Some(packet) = packet else { return };
    let _ = TcpSegment::parse(packet.payload);
    if packet.fragment.is_some() {
        let mut reassembly = Reassembly::default();
        let _ = reassembly.push(&packet, 0);
        let _ = reassembly.push(&packet, 1);
    }
}
