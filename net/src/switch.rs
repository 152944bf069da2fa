//! What becomes of a member's frame: it is judged, and then switched to other members, answered,
//! or given to the flows.

use crate::core::{Core, MemberId};
use crate::dns::Dns;
use crate::frame::ethernet::{self, Ethernet, Mac};
use crate::frame::fragment::Reassembled;
use crate::frame::ip::IpPacket;
use crate::frame::{VNET_BYTES, checksum, protocol, vnet::VnetHeader};
use crate::icmp::echo::Echo;
use crate::neighbor;
use crate::publish::Ports;
use crate::tcp::Tcp;
use crate::udp::Udp;
use std::net::IpAddr;

/// All flows of a network.
#[derive(Debug, Default)]
pub struct Flows {
    /// TCP.
    pub tcp: Tcp,
    /// UDP.
    pub udp: Udp,
    /// ICMP echo.
    pub echo: Echo,
    /// Published ports.
    pub ports: Ports,
    /// The name server.
    pub dns: Dns,
}

/// What a frame's source addresses are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The sender's own.
    Own,
    /// None yet, or one that means something on this link alone.
    Local,
    /// Somebody else's.
    Foreign,
}

impl Flows {
    /// Takes a frame that a member sent, virtio-net header included.
    pub fn on_frame(&mut self, core: &mut Core, from: MemberId, frame: &mut [u8]) {
        core.count(from, |counters| {
            counters.frames_received += 1;
            counters.bytes_received += frame.len().saturating_sub(VNET_BYTES) as u64;
        });
        let parsed =
            VnetHeader::parse(frame).zip(frame.get(VNET_BYTES..).and_then(Ethernet::parse));
        let Some((offloads, (ethernet, bytes))) = parsed else {
            core.count(from, |counters| counters.malformed += 1);
            return;
        };
        let Some(member) = core.members.get_mut(from) else {
            return;
        };
        if ethernet.source != member.mac {
            core.count(from, |counters| counters.spoofed += 1);
            return;
        }
        let packet = match ethernet.ethertype {
            ethernet::ARP => return neighbor::arp(core, from, bytes),
            ethernet::IPV4 => IpPacket::parse_v4(bytes),
            ethernet::IPV6 => IpPacket::parse_v6(bytes),
            _ => {
                core.count(from, |counters| counters.ignored += 1);
                return;
            }
        };
        let Some(packet) = packet else {
            core.count(from, |counters| counters.malformed += 1);
            return;
        };
        match origin(core, from, packet.source) {
            Origin::Own => {}
            Origin::Local => return on_local(core, from, offloads, &packet),
            Origin::Foreign => {
                core.count(from, |counters| counters.spoofed += 1);
                return;
            }
        }
        if is_neighbor_message(&packet) {
            return on_local(core, from, offloads, &packet);
        }
        let by_address = core.by_address.get(&packet.destination).copied();
        if ethernet.destination != core.config.gateway_mac {
            forward_by_mac(core, from, ethernet.destination, frame);
        } else if let Some(to) = by_address {
            forward_by_address(core, from, to, frame);
        } else {
            self.on_packet(core, from, offloads, &packet);
        }
    }

    /// Takes a packet for the world outside.
    fn on_packet(
        &mut self,
        core: &mut Core,
        from: MemberId,
        offloads: VnetHeader,
        packet: &IpPacket<'_>,
    ) {
        if packet.fragment.is_none() {
            self.on_transport(core, from, offloads.checksum_is_offloaded(), packet);
            return;
        }
        let now_ns = core.now_ns;
        let Some(member) = core.members.get_mut(from) else {
            return;
        };
        match member.reassembly.push(packet, now_ns) {
            Reassembled::Incomplete => {}
            Reassembled::Refused => core.count(from, |counters| counters.malformed += 1),
            Reassembled::Complete(payload) => {
                let whole = IpPacket {
                    fragment: None,
                    // Who cut it once does not mind that it is cut again.
                    dont_fragment: false,
                    payload: &payload,
                    ..*packet
                };
                self.on_transport(core, from, false, &whole);
            }
        }
    }

    fn on_transport(
        &mut self,
        core: &mut Core,
        from: MemberId,
        is_verified: bool,
        packet: &IpPacket<'_>,
    ) {
        if !is_verified && !has_valid_checksum(packet) {
            core.count(from, |counters| counters.malformed += 1);
            return;
        }
        match (packet.protocol, packet.source) {
            (protocol::TCP, _) => {
                if let Some(connection) = self.tcp.on_segment(core, from, packet) {
                    self.dns.on_connection(core, from, connection);
                }
            }
            (protocol::UDP, _) => {
                let query = self.udp.on_datagram(core, &mut self.ports, from, packet);
                if let Some((ends, message)) = query {
                    self.dns.on_datagram(core, from, ends, message);
                }
            }
            (protocol::ICMP, IpAddr::V4(_)) | (protocol::ICMPV6, IpAddr::V6(_)) => {
                self.echo.on_message(core, from, packet);
            }
            _ => core.count(from, |counters| counters.ignored += 1),
        }
    }

    /// Ends all flows of a member and takes it off the network.
    pub fn remove_member(&mut self, core: &mut Core, id: MemberId) -> bool {
        self.tcp.end_member(core, id);
        self.udp.end_member(core, id);
        self.echo.end_member(core, id);
        self.dns.end_member(core, id);
        for port in self.ports.of_member(id) {
            self.ports.remove(port);
        }
        core.remove_member(id)
    }
}

fn origin(core: &mut Core, from: MemberId, source: IpAddr) -> Origin {
    if core
        .members
        .get_mut(from)
        .is_some_and(|member| member.owns(source))
    {
        return Origin::Own;
    }
    let is_local = match source {
        IpAddr::V4(source) => source.is_unspecified(),
        IpAddr::V6(source) => source.is_unspecified() || source.is_unicast_link_local(),
    };
    if is_local {
        Origin::Local
    } else {
        Origin::Foreign
    }
}

/// Router and neighbour discovery, redirects and multicast listener reports: they are between a
/// member and this network, and no other member sees them.
fn is_neighbor_message(packet: &IpPacket<'_>) -> bool {
    packet.protocol == protocol::ICMPV6 && matches!(packet.payload.first(), Some(130..=137 | 143))
}

/// A packet from an address that means something on this link alone: only questions for
/// neighbours are answered.
fn on_local(core: &mut Core, from: MemberId, offloads: VnetHeader, packet: &IpPacket<'_>) {
    let is_solicitation = packet.protocol == protocol::ICMPV6
        && packet.source.is_ipv6()
        && packet.fragment.is_none()
        && packet.payload.first() == Some(&neighbor::SOLICITATION);
    if !is_solicitation {
        core.count(from, |counters| counters.ignored += 1);
    } else if offloads.checksum_is_offloaded() || has_valid_checksum(packet) {
        neighbor::solicitation(core, from, packet);
    } else {
        core.count(from, |counters| counters.malformed += 1);
    }
}

fn has_valid_checksum(packet: &IpPacket<'_>) -> bool {
    let bytes = packet.payload;
    match packet.protocol {
        protocol::ICMP => checksum::fold(checksum::sum(bytes)) == 0xffff,
        // Over IPv4 a UDP checksum of zero says that there is none.
        protocol::UDP if packet.source.is_ipv4() && bytes.get(6..8) == Some(&[0, 0]) => true,
        kind @ (protocol::TCP | protocol::UDP | protocol::ICMPV6) => {
            checksum::transport_is_valid(packet.source, packet.destination, kind, bytes)
        }
        _ => true,
    }
}

/// Writes what other members may see of a frame's virtio-net header.
fn clean(core: &mut Core, from: MemberId, frame: &mut [u8]) -> bool {
    let frame_bytes = frame.len().saturating_sub(VNET_BYTES);
    let header = VnetHeader::parse(frame).and_then(|header| header.for_receiver(frame_bytes));
    let place = frame.get_mut(..VNET_BYTES);
    let (Some(header), Some(place)) = (header, place) else {
        core.count(from, |counters| counters.malformed += 1);
        return false;
    };
    place.copy_from_slice(&header.encode());
    true
}

/// Sends a frame to the member that has its destination's address, as a router does.
fn forward_by_address(core: &mut Core, from: MemberId, to: MemberId, frame: &mut [u8]) {
    if from == to {
        core.count(from, |counters| counters.ignored += 1);
        return;
    }
    if !clean(core, from, frame) {
        return;
    }
    let gateway = core.config.gateway_mac;
    let Some(mac) = core.members.get_mut(to).map(|member| member.mac) else {
        return;
    };
    if let Some(addresses) = frame.get_mut(VNET_BYTES..VNET_BYTES + 12) {
        let (destination, source) = addresses.split_at_mut(6);
        destination.copy_from_slice(&mac.0);
        source.copy_from_slice(&gateway.0);
    }
    core.forward(to, frame);
}

/// Switches a frame: to the member with that MAC address, or to all others.
fn forward_by_mac(core: &mut Core, from: MemberId, destination: Mac, frame: &mut [u8]) {
    if !clean(core, from, frame) {
        return;
    }
    if !destination.is_multicast() {
        match core.by_mac.get(&destination).copied() {
            Some(to) if to != from => core.forward(to, frame),
            _ => core.count(from, |counters| counters.ignored += 1),
        }
        return;
    }
    let others: Vec<MemberId> = core
        .members
        .iter()
        .filter_map(|(id, _)| (id != from).then_some(id))
        .collect();
    for to in others {
        core.forward(to, frame);
    }
}
