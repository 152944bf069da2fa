//! ICMP errors to members (RFC 792, RFC 4443). Each says what really happened: the network's own
//! refusals come from the gateway, a router's from that router.

use crate::core::{Core, MemberId, PAYLOAD_AT, Transport};
use crate::datagram;
use crate::frame::{be16, build, protocol};
use crate::sys::QueuedError;
use std::net::{IpAddr, SocketAddr};

/// Most bytes of the packet that an error is about: packets with errors stay below 576 bytes
/// (RFC 1812) and 1280 bytes (RFC 4443).
const MAX_ORIGINAL_V4_BYTES: usize = 548;
const MAX_ORIGINAL_V6_BYTES: usize = 1232;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody has the address, or there is no way to it.
    Host,
    /// Nobody listens there.
    Port,
    /// The policy, or the host, does not allow it.
    Prohibited,
    /// The packet is longer than the path takes, in bytes.
    TooBig(u32),
}

/// Sends an error about `original`, an IP packet of the member's, from the gateway.
pub fn unreachable(core: &mut Core, to: MemberId, original: &[u8], why: Unreachable) {
    let is_v4 = original.first().is_some_and(|first| first >> 4 == 4);
    if is_later_fragment(original, is_v4) {
        return;
    }
    let probe = if is_v4 {
        IpAddr::V4([0; 4].into())
    } else {
        IpAddr::V6([0; 16].into())
    };
    let Some(gateway) = core.config.gateway(probe) else {
        return;
    };
    let (kind, code, word) = match (why, is_v4) {
        (Unreachable::Host, true) => (3, 1, 0),
        (Unreachable::Port, true) => (3, 3, 0),
        (Unreachable::Prohibited, true) => (3, 13, 0),
        (Unreachable::TooBig(mtu), true) => (3, 4, mtu.min(65535)),
        (Unreachable::Host, false) => (1, 3, 0),
        (Unreachable::Port, false) => (1, 4, 0),
        (Unreachable::Prohibited, false) => (1, 1, 0),
        (Unreachable::TooBig(mtu), false) => (2, 0, mtu),
    };
    send(core, to, gateway, (kind, code, word), original);
}

/// Passes an error on that the host received for a flow of the member's.
pub fn relay(core: &mut Core, to: MemberId, error: &QueuedError, original: &[u8]) {
    let (Some((kind, code)), Some(offender)) = (error.icmp, error.offender) else {
        return;
    };
    let is_v4 = original.first().is_some_and(|first| first >> 4 == 4);
    // What the host's own stack refuses over loopback comes from the gateway here.
    let from = match core.config.gateway(offender) {
        Some(gateway) if offender.is_loopback() => gateway,
        _ => offender,
    };
    if from.is_ipv4() != is_v4 {
        return;
    }
    let is_too_big = (is_v4 && (kind, code) == (3, 4)) || (!is_v4 && kind == 2);
    let word = if is_too_big { error.mtu } else { 0 };
    send(core, to, from, (kind, code, word), original);
}

fn send(
    core: &mut Core,
    to: MemberId,
    from: IpAddr,
    (kind, code, word): (u8, u8, u32),
    original: &[u8],
) {
    let Some(destination) = source_of(original) else {
        return;
    };
    let (protocol, most) = if from.is_ipv4() {
        (protocol::ICMP, MAX_ORIGINAL_V4_BYTES)
    } else {
        (protocol::ICMPV6, MAX_ORIGINAL_V6_BYTES)
    };
    let original = original.get(..most).unwrap_or(original);
    let length = 8 + original.len();
    let Some(message) = core.frame.get_mut(PAYLOAD_AT..PAYLOAD_AT + length) else {
        return;
    };
    let (header, rest) = message.split_at_mut(8);
    header[0] = kind;
    header[1] = code;
    header[2..4].fill(0);
    header[4..8].copy_from_slice(&word.to_be_bytes());
    rest.copy_from_slice(original);
    let transport = Transport {
        protocol,
        at: PAYLOAD_AT,
        length,
        csum_offset: 2,
        header_bytes: 8,
        gso_bytes: 0,
    };
    datagram::send(core, to, (from, destination), transport);
}

/// Errors are about a datagram's first fragment alone (RFC 1122, section 3.2.2).
fn is_later_fragment(packet: &[u8], is_v4: bool) -> bool {
    if is_v4 {
        return be16(packet, 6).is_none_or(|word| word & 0x1fff != 0);
    }
    packet.get(6) == Some(&protocol::IPV6_FRAGMENT)
        && be16(packet, 42).is_none_or(|word| word & 0xfff8 != 0)
}

fn source_of(packet: &[u8]) -> Option<IpAddr> {
    if packet.first()? >> 4 == 4 {
        let octets: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
        return Some(IpAddr::from(octets));
    }
    let octets: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
    Some(IpAddr::from(octets))
}

/// The beginning of a packet as a member sent it, made anew for an error that comes later: IP
/// header and the transport's first eight bytes.
#[must_use]
pub fn original(
    source: SocketAddr,
    destination: SocketAddr,
    kind: u8,
    payload_bytes: usize,
    last_word: u32,
) -> Vec<u8> {
    let mut packet = vec![0; build::ip_header_bytes(source.ip()) + 8];
    let at = packet.len() - 8;
    let (ip, transport) = packet.split_at_mut(at);
    build::put_ip(ip, source.ip(), destination.ip(), kind, payload_bytes + 8);
    transport[..2].copy_from_slice(&source.port().to_be_bytes());
    transport[2..4].copy_from_slice(&destination.port().to_be_bytes());
    transport[4..8].copy_from_slice(&last_word.to_be_bytes());
    packet
}
