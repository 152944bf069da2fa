//! Segments to members.

use super::flow::{Flow, Key, State, UNSCALED_WINDOW, WINDOW_SCALE};
use crate::core::{Core, PAYLOAD_AT, Transport};
use crate::frame::tcp::{ACK, RST, SYN, TcpSegment};
use crate::frame::{build, protocol};
use crate::link::Sent;
use crate::sys;

const HEADER_BYTES: usize = 20;
const CHECKSUM_AT: usize = 16;
/// MSS, two bytes for selective acknowledgements, window scale and its padding, padding.
const SYN_OPTIONS_BYTES: usize = 12;
const SACK_PERMITTED_AT: usize = 4;
const WINDOW_SCALE_AT: usize = 6;
/// Option kind of selective acknowledgements (RFC 2018, section 3).
const SACK: u8 = 5;
const NO_OPERATION: u8 = 1;

/// Most bytes of window that a member is given; the host's socket bounds it otherwise.
const MAX_WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// What one segment says beside the flow's ends.
struct Segment<'a> {
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
    window: u16,
    options: &'a [u8],
    payload_bytes: usize,
    gso_bytes: u16,
}

/// The largest segment that a member of this network may be sent, in bytes.
#[must_use]
pub fn longest_segment(core: &Core, key: &Key) -> u16 {
    let headers = build::ip_header_bytes(key.guest.ip()) + HEADER_BYTES;
    core.config.mtu.saturating_sub(headers as u16)
}

/// Sends a segment whose payload lies in the frame that is being built.
fn send(core: &mut Core, key: &Key, segment: &Segment<'_>) -> Sent {
    let header_bytes = HEADER_BYTES + segment.options.len();
    let at = PAYLOAD_AT - header_bytes;
    let fields = build::TcpFields {
        source_port: key.remote.port(),
        destination_port: key.guest.port(),
        sequence: segment.sequence,
        acknowledgement: segment.acknowledgement,
        flags: segment.flags,
        window: segment.window,
    };
    if let Some(header) = core.frame.get_mut(at..PAYLOAD_AT) {
        build::put_tcp(header, &fields, segment.options);
    }
    let transport = Transport {
        protocol: protocol::TCP,
        at,
        length: header_bytes + segment.payload_bytes,
        csum_offset: CHECKSUM_AT,
        header_bytes,
        gso_bytes: segment.gso_bytes,
    };
    core.send_transport(key.member, (key.remote.ip(), key.guest.ip()), transport)
}

/// How many bytes the member may send, from what the host's socket can take. Of the free memory a
/// quarter is left for the kernel's own structures.
///
/// A socket is writable to epoll when a third of its buffer is free. The window is then a quarter
/// of it, so that one below a fifth is always followed by a larger one.
fn window_bytes(flow: &mut Flow) -> usize {
    if let Some(gate) = &flow.gate {
        return gate.room();
    }
    let Some(socket) = &flow.socket else {
        return 0;
    };
    let most = if flow.scaled {
        MAX_WINDOW_BYTES
    } else {
        UNSCALED_WINDOW as usize
    };
    let most = most.min(flow.longest_window as usize);
    match sys::send_buffer(socket) {
        Ok((free, size)) => {
            flow.low_window = (size / 5).min(most / 2) as u32;
            (free / 4 * 3).min(most)
        }
        Err(_) => UNSCALED_WINDOW as usize,
    }
}

/// Sends SYN or SYN-ACK, as the flow's state demands.
pub fn syn(core: &mut Core, flow: &mut Flow) -> Sent {
    let [high, low] = longest_segment(core, &flow.key).to_be_bytes();
    let mut options: [u8; SYN_OPTIONS_BYTES] = [2, 4, high, low, 4, 2, 3, 3, WINDOW_SCALE, 1, 1, 1];
    let answers = flow.state == State::SynReceived;
    // Only who was offered something may answer with it (RFC 7323, section 2.2).
    if answers && !flow.scaled {
        options[WINDOW_SCALE_AT..].fill(NO_OPERATION);
    }
    if answers && !flow.permits_sack {
        options[SACK_PERMITTED_AT..WINDOW_SCALE_AT].fill(NO_OPERATION);
    }
    let segment = Segment {
        sequence: flow.unacknowledged,
        acknowledgement: if answers { flow.expected } else { 0 },
        flags: if answers { SYN | ACK } else { SYN },
        // The window of a SYN is never scaled.
        window: u16::try_from(window_bytes(flow)).unwrap_or(u16::MAX),
        options: &options,
        payload_bytes: 0,
        gso_bytes: 0,
    };
    send(core, &flow.key, &segment)
}

/// Sends data that lies in the frame that is being built, or an acknowledgement without any.
pub fn data(core: &mut Core, flow: &mut Flow, flags: u8, payload_bytes: usize) -> Sent {
    let sequence = flow.next;
    data_at(core, flow, sequence, flags, payload_bytes)
}

/// The same from another sequence number.
pub fn data_at(
    core: &mut Core,
    flow: &mut Flow,
    sequence: u32,
    flags: u8,
    payload_bytes: usize,
) -> Sent {
    let window = window_bytes(flow);
    let large = payload_bytes > usize::from(flow.mss);
    let options = if payload_bytes == 0 {
        selective(flow)
    } else {
        Vec::new()
    };
    let segment = Segment {
        sequence,
        acknowledgement: flow.expected,
        flags: flags | ACK,
        window: flow.window_field(window),
        options: &options,
        payload_bytes,
        gso_bytes: if large { flow.mss } else { 0 },
    };
    let sent = send(core, &flow.key, &segment);
    if sent == Sent::Done {
        flow.must_acknowledge = false;
    }
    sent
}

/// Selective acknowledgements, as an option with its padding.
fn selective(flow: &Flow) -> Vec<u8> {
    let blocks = if flow.permits_sack {
        flow.ahead.blocks(flow.expected)
    } else {
        Vec::new()
    };
    if blocks.is_empty() {
        return Vec::new();
    }
    let mut option = vec![NO_OPERATION, NO_OPERATION, SACK, 2 + 8 * blocks.len() as u8];
    for (begin, end) in blocks {
        option.extend(begin.to_be_bytes());
        option.extend(end.to_be_bytes());
    }
    option
}

/// Sends a segment before the window: the member answers with what it has and takes.
pub fn probe(core: &mut Core, flow: &mut Flow) -> Sent {
    let window = window_bytes(flow);
    let segment = Segment {
        sequence: flow.unacknowledged.wrapping_sub(1),
        acknowledgement: flow.expected,
        flags: ACK,
        window: flow.window_field(window),
        options: &[],
        payload_bytes: 0,
        gso_bytes: 0,
    };
    send(core, &flow.key, &segment)
}

/// Resets the member's end of a flow.
pub fn reset(core: &mut Core, flow: &Flow) {
    let answers = flow.state != State::SynSent;
    let segment = Segment {
        sequence: if flow.state == State::Connecting {
            0
        } else {
            flow.next
        },
        acknowledgement: if answers { flow.expected } else { 0 },
        flags: if answers { RST | ACK } else { RST },
        window: 0,
        options: &[],
        payload_bytes: 0,
        gso_bytes: 0,
    };
    // A lost one is sent again when the member sends something to a flow that is not there.
    let _ = send(core, &flow.key, &segment);
}

/// Answers a segment of a flow that is not there (RFC 9293, section 3.10.7.1).
pub fn reset_stranger(core: &mut Core, key: &Key, segment: &TcpSegment<'_>) {
    if segment.has(RST) {
        return;
    }
    let (sequence, acknowledgement, flags) = if segment.has(ACK) {
        (segment.acknowledgement, 0, RST)
    } else {
        let next = segment.sequence.wrapping_add(segment.sequence_bytes());
        (0, next, RST | ACK)
    };
    let answer = Segment {
        sequence,
        acknowledgement,
        flags,
        window: 0,
        options: &[],
        payload_bytes: 0,
        gso_bytes: 0,
    };
    let _ = send(core, key, &answer);
}
