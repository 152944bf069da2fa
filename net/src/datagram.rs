//! Datagrams to a member, in fragments where they are longer than its link takes.

use crate::core::{Core, MemberId, Transport};
use crate::frame::{ETHERNET_BYTES, VNET_BYTES, build, checksum, fragment, protocol, vnet};
use crate::link::Sent;
use rustix::io::Errno;
use rustix::net::SendFlags;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

/// Sends a transport's bytes, which lie in the frame that is being built as `send_transport` has
/// them. A datagram that the link has no room for is lost and counted, as on any link.
pub fn send(core: &mut Core, to: MemberId, addresses: (IpAddr, IpAddr), transport: Transport) {
    let room = usize::from(core.config.mtu) - build::ip_header_bytes(addresses.0);
    if transport.length > room {
        send_fragments(core, to, addresses, transport);
    } else if core.send_transport(to, addresses, transport) == Sent::Blocked {
        core.count(to, |counters| counters.frames_lost += 1);
    }
}

fn send_fragments(
    core: &mut Core,
    to: MemberId,
    (source, destination): (IpAddr, IpAddr),
    transport: Transport,
) {
    let bytes = core
        .frame
        .get(transport.at..transport.at + transport.length);
    let Some(mut bytes) = bytes.map(<[u8]>::to_vec) else {
        return;
    };
    let pseudo = match transport.protocol {
        protocol::ICMP => 0,
        kind => checksum::pseudo_header(source, destination, kind, bytes.len()),
    };
    let check = match !checksum::fold(pseudo + checksum::sum(&bytes)) {
        0 if transport.protocol == protocol::UDP => u16::MAX,
        check => check,
    };
    let at = transport.csum_offset;
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&check.to_be_bytes());
    }
    let Some(mac) = core.members.get_mut(to).map(|member| member.mac) else {
        return;
    };
    core.fragment_id = core.fragment_id.wrapping_add(1);
    let id = core.fragment_id;
    let header_bytes = if source.is_ipv4() { 20 } else { 48 };
    let room = usize::from(core.config.mtu) - header_bytes;
    for (offset, part, more) in fragment::cut(&bytes, room) {
        let begin = VNET_BYTES + ETHERNET_BYTES;
        let length = begin + header_bytes + part.len();
        let Some(frame) = core.frame.get_mut(..length) else {
            return;
        };
        let (link_headers, packet) = frame.split_at_mut(begin);
        let (vnet_header, ethernet) = link_headers.split_at_mut(VNET_BYTES);
        vnet_header.copy_from_slice(&vnet::VnetHeader::default().encode());
        let kind = build::ethertype(source);
        build::put_ethernet(ethernet, mac, core.config.gateway_mac, kind);
        let (header, payload) = packet.split_at_mut(header_bytes);
        let word = (offset as u16, more);
        put_header(
            header,
            (source, destination),
            transport.protocol,
            part.len(),
            id,
            word,
        );
        payload.copy_from_slice(part);
        if core.send_built(to, length) == Sent::Blocked {
            core.count(to, |counters| counters.frames_lost += 1);
        }
    }
}

/// An IP header with the marks of a fragment.
fn put_header(
    header: &mut [u8],
    (source, destination): (IpAddr, IpAddr),
    kind: u8,
    payload_bytes: usize,
    id: u32,
    (offset, more): (u16, bool),
) {
    if source.is_ipv4() {
        build::put_ip(header, source, destination, kind, payload_bytes);
        header[4..6].copy_from_slice(&(id as u16).to_be_bytes());
        let word = (offset / 8) | if more { 0x2000 } else { 0 };
        header[6..8].copy_from_slice(&word.to_be_bytes());
        build::seal_v4(header);
        return;
    }
    let (ip, extension) = header.split_at_mut(40);
    build::put_ip(
        ip,
        source,
        destination,
        protocol::IPV6_FRAGMENT,
        payload_bytes + 8,
    );
    extension[0] = kind;
    extension[1] = 0;
    extension[2..4].copy_from_slice(&(offset | u16::from(more)).to_be_bytes());
    extension[4..8].copy_from_slice(&id.to_be_bytes());
}

/// Sends on a socket whose own address may be none of the host's any more (`EINVAL` or `ENETUNREACH`, by the
/// kernel's version): connected again, it has another one.
///
/// # Errors
/// Of `connect` and `send`.
pub fn send_from_elsewhere(
    socket: impl AsFd,
    payload: &[u8],
    target: SocketAddr,
) -> Result<usize, Errno> {
    rustix::net::connect_unspec(&socket)?;
    rustix::net::connect(&socket, &target)?;
    rustix::net::send(socket, payload, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
}
