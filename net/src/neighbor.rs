//! ARP (RFC 826) and neighbour discovery (RFC 4861): who has which MAC address is known from the
//! configuration, so requests are answered here and reach no other member.

use crate::core::{Core, MemberId};
use crate::frame::ethernet::{self, Mac};
use crate::frame::ip::IpPacket;
use crate::frame::{ETHERNET_BYTES, VNET_BYTES, build, checksum, protocol, vnet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ARP_BYTES: usize = 28;
/// Hardware type Ethernet, protocol type IPv4, their lengths, operation "request".
const ARP_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];

/// ICMPv6's type of a neighbour solicitation.
pub const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Length of an advertisement with one link-layer address, in bytes.
const ADVERTISEMENT_BYTES: usize = 32;
const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

fn owner(core: &mut Core, asker: MemberId, address: IpAddr) -> Option<Mac> {
    if core.config.is_gateway(address) {
        return Some(core.config.gateway_mac);
    }
    let id = *core.by_address.get(&address)?;
    if id == asker {
        return None;
    }
    core.members.get_mut(id).map(|member| member.mac)
}

/// Answers an ARP request.
pub fn arp(core: &mut Core, from: MemberId, bytes: &[u8]) {
    let Some(request) = bytes.first_chunk::<ARP_BYTES>() else {
        core.count(from, |counters| counters.malformed += 1);
        return;
    };
    let field = |at: usize| {
        Ipv4Addr::new(
            request[at],
            request[at + 1],
            request[at + 2],
            request[at + 3],
        )
    };
    let (sender, target) = (field(14), field(24));
    let Some(member) = core.members.get_mut(from) else {
        return;
    };
    if request[..8] != ARP_REQUEST {
        core.count(from, |counters| counters.ignored += 1);
        return;
    }
    let own_mac = member.mac;
    // The address 0.0.0.0 asks whether an address is free (RFC 5227).
    let is_own = sender.is_unspecified() || member.ipv4 == Some(sender);
    if request[8..14] != own_mac.0 || !is_own {
        core.count(from, |counters| counters.spoofed += 1);
        return;
    }
    let Some(mac) = owner(core, from, target.into()) else {
        core.count(from, |counters| counters.ignored += 1);
        return;
    };
    let mut reply = *request;
    reply[7] = 2;
    reply[8..14].copy_from_slice(&mac.0);
    reply[14..18].copy_from_slice(&target.octets());
    reply[18..24].copy_from_slice(&own_mac.0);
    reply[24..28].copy_from_slice(&sender.octets());
    send(core, from, (mac, ethernet::ARP), &[&reply]);
}

/// Answers a neighbour solicitation, whose ICMPv6 checksum was verified.
pub fn solicitation(core: &mut Core, from: MemberId, packet: &IpPacket<'_>) {
    let (IpAddr::V6(source), Some(target)) = (packet.source, packet.payload.get(8..24)) else {
        core.count(from, |counters| counters.malformed += 1);
        return;
    };
    // A router does not pass hop limits of 255 on: the packet was sent by a neighbour.
    let Ok(target) = <[u8; 16]>::try_from(target).map(Ipv6Addr::from) else {
        return;
    };
    if packet.hop_limit != 255 {
        core.count(from, |counters| counters.malformed += 1);
        return;
    }
    let found = owner(core, from, target.into());
    let (Some(mac), false) = (found, source.is_unspecified()) else {
        // Nobody's, its own, or the question whether an address is free, which it is.
        core.count(from, |counters| counters.ignored += 1);
        return;
    };
    let router = if core.config.is_gateway(target.into()) {
        FLAG_ROUTER
    } else {
        0
    };
    let mut reply = [0u8; ADVERTISEMENT_BYTES];
    reply[0] = ADVERTISEMENT;
    reply[4] = router | FLAG_SOLICITED | FLAG_OVERRIDE;
    reply[8..24].copy_from_slice(&target.octets());
    // Option: target link-layer address, one unit of eight bytes.
    reply[24..26].copy_from_slice(&[2, 1]);
    reply[26..32].copy_from_slice(&mac.0);
    let (ours, theirs) = (target.into(), source.into());
    let check = checksum::transport(ours, theirs, protocol::ICMPV6, &reply);
    reply[2..4].copy_from_slice(&check.to_be_bytes());
    let mut header = [0u8; 40];
    build::put_ip(&mut header, ours, theirs, protocol::ICMPV6, reply.len());
    header[7] = 255;
    send(core, from, (mac, ethernet::IPV6), &[&header, &reply]);
}

fn send(core: &mut Core, to: MemberId, (source, kind): (Mac, u16), parts: &[&[u8]]) {
    let Some(mac) = core.members.get_mut(to).map(|member| member.mac) else {
        return;
    };
    let mut frame = Vec::with_capacity(128);
    frame.extend_from_slice(&vnet::VnetHeader::default().encode());
    frame.resize(VNET_BYTES + ETHERNET_BYTES, 0);
    if let Some(header) = frame.get_mut(VNET_BYTES..) {
        build::put_ethernet(header, mac, source, kind);
    }
    for part in parts {
        frame.extend_from_slice(part);
    }
    let length = frame.len();
    if let Some(room) = core.frame.get_mut(..length) {
        room.copy_from_slice(&frame);
    }
    // Who asked asks again.
    let _ = core.send_built(to, length);
}
