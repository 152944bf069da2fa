//! Segments from members.

use super::flow::{Flow, Key, State};
use super::sequence::distance;
use super::{Tcp, ahead, emit, token};
use crate::core::{Core, MemberId};
use crate::frame::ip::IpPacket;
use crate::frame::tcp::{ACK, FIN, RST, SYN, TcpSegment};
use crate::link::Sent;
use crate::table::Id;
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// Acknowledgements without news that say that a segment was lost (RFC 5681).
const DUPLICATES: u8 = 3;

/// How far behind what is expected a segment may end, in bytes. That is more than any window, because a
/// window may have become smaller while the segment was on its way.
const MAX_BEHIND: i32 = 8 << 20;

/// What a segment's data did.
enum Taken {
    /// The host's socket took them, or there were none.
    All,
    /// It took a part of them.
    Part,
    /// They are not those that are expected.
    Unexpected,
    /// The host's end is broken.
    Broken,
}

impl Tcp {
    /// Takes a segment of a member's, whose checksum was verified. If it opens a connection to the
    /// network's own name server, returns the other end of its socket.
    pub fn on_segment(
        &mut self,
        core: &mut Core,
        member: MemberId,
        packet: &IpPacket<'_>,
    ) -> Option<OwnedFd> {
        let Some(segment) = TcpSegment::parse(packet.payload) else {
            core.count(member, |counters| counters.malformed += 1);
            return None;
        };
        let key = Key {
            member,
            guest: SocketAddr::new(packet.source, segment.source_port),
            remote: SocketAddr::new(packet.destination, segment.destination_port),
        };
        let Some(id) = self.index.get(&key).copied() else {
            return self.on_stranger(core, key, packet, &segment);
        };
        let flow = self.flows.get_mut(id)?;
        match flow.state {
            // The same SYN again, or the end of the attempt.
            State::Connecting => {
                if segment.has(RST) {
                    self.reset_host(core, id);
                }
            }
            State::SynSent => self.on_syn_answer(core, id, &segment),
            State::SynReceived => self.on_syn_ack_answer(core, id, &segment),
            State::Established => self.on_established(core, id, &segment),
            State::TimeWait => {
                if segment.flags & (SYN | ACK | RST) == SYN {
                    self.remove(core, id);
                    return self.on_stranger(core, key, packet, &segment);
                } else if segment.has(RST) {
                    self.remove(core, id);
                } else if segment.sequence_bytes() > 0 {
                    let _ = emit::data(core, flow, 0, 0);
                }
            }
        }
        None
    }

    fn on_syn_answer(&mut self, core: &mut Core, id: Id, segment: &TcpSegment<'_>) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        if !segment.has(ACK) || segment.acknowledgement != flow.next {
            // Nothing that answers this SYN. A listener's old connection is reset so that the
            // next SYN finds it free.
            emit::reset_stranger(core, &flow.key, segment);
        } else if segment.has(RST) {
            self.reset_host(core, id);
        } else if segment.has(SYN) {
            let longest = emit::longest_segment(core, &flow.key);
            flow.learn(segment, longest);
            flow.unacknowledged = segment.acknowledgement;
            flow.state = State::Established;
            flow.retries = 0;
            flow.must_acknowledge = true;
            self.mark(id);
        }
    }

    fn on_syn_ack_answer(&mut self, core: &mut Core, id: Id, segment: &TcpSegment<'_>) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        if segment.has(RST) {
            self.reset_host(core, id);
        } else if segment.has(SYN) {
            self.send_syn(core, id);
        } else if segment.has(ACK) && segment.acknowledgement == flow.next {
            flow.unacknowledged = segment.acknowledgement;
            flow.state = State::Established;
            flow.retries = 0;
            self.on_established(core, id, segment);
            self.mark(id);
        } else if segment.has(ACK) {
            emit::reset_stranger(core, &flow.key, segment);
        }
    }

    fn on_established(&mut self, core: &mut Core, id: Id, segment: &TcpSegment<'_>) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        let behind = distance(segment.sequence, flow.expected);
        if segment.has(RST) {
            // Within the window that was advertised (RFC 9293, section 3.10.7.4).
            if behind >= 0 && behind as u32 <= flow.advertised.max(1) {
                self.reset_host(core, id);
            }
            return;
        }
        if segment.has(SYN) || !segment.has(ACK) {
            // An answer that tells the member what this end has (RFC 5961).
            flow.must_acknowledge |= segment.has(SYN);
            self.mark(id);
            return;
        }
        if !take_acknowledgement(flow, segment) {
            flow.must_acknowledge = true;
            self.mark(id);
            return;
        }
        match accounted(core, flow, |flow, room| take_data(flow, segment, room)) {
            Taken::All => {}
            Taken::Part => {
                flow.refused = true;
                flow.must_acknowledge = true;
                wait_for_room(core, flow, id);
            }
            Taken::Unexpected => {
                // At once, and each one: they tell the member what is missing.
                if emit::data(core, flow, 0, 0) == Sent::Blocked {
                    flow.must_acknowledge = true;
                }
            }
            Taken::Broken => return self.abort(core, id),
        }
        self.mark(id);
    }

    /// The host's socket has room for what it refused.
    pub(super) fn on_room(&mut self, core: &mut Core, id: Id) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        match accounted(core, flow, |flow, _| give_kept(flow)) {
            Taken::Part => {
                flow.refused = true;
                wait_for_room(core, flow, id);
            }
            Taken::Broken => return self.abort(core, id),
            Taken::All | Taken::Unexpected => {
                if std::mem::take(&mut flow.dropped) {
                    // With the window comes a loss's signal.
                    for _ in 0..DUPLICATES {
                        let _ = emit::data(core, flow, 0, 0);
                    }
                }
            }
        }
        flow.must_acknowledge = true;
    }
}

/// Learns of the socket's next room, even if it has some by now.
pub(super) fn wait_for_room(core: &Core, flow: &Flow, id: Id) {
    use rustix::event::epoll::EventFlags;
    if let Some(socket) = &flow.socket {
        let events = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        core.rewatch(socket, token(id), events);
    }
}

/// Takes acknowledgement and window; `false` if they are about what was never sent.
fn take_acknowledgement(flow: &mut Flow, segment: &TcpSegment<'_>) -> bool {
    let number = segment.acknowledgement;
    let Some(is_new) = flow.acknowledge(number) else {
        return false;
    };
    if distance(number, flow.unacknowledged) < 0 {
        // An old one says nothing about the window.
        return true;
    }
    let window = u32::from(segment.window) << flow.window_shift;
    let is_duplicate = !is_new
        && flow.is_waiting()
        && segment.payload.is_empty()
        && !segment.has(FIN)
        && window == flow.window;
    flow.window = window;
    if window == 0 || !flow.is_waiting() {
        // It is there, and that is all that a probe asks.
        flow.retries = 0;
    }
    if window > 0 {
        flow.probes = 0;
    }
    if is_duplicate {
        flow.duplicates = flow.duplicates.saturating_add(1);
        if flow.duplicates == DUPLICATES && flow.recover.is_none() {
            flow.recover = Some(flow.highest);
            flow.must_resend = true;
        }
    }
    true
}

/// Does what may change how much a flow keeps, of which it is told how many bytes more there may be, and
/// accounts for it.
fn accounted(
    core: &mut Core,
    flow: &mut Flow,
    work: impl FnOnce(&mut Flow, usize) -> Taken,
) -> Taken {
    let before = flow.ahead.cost();
    let taken = work(flow, ahead::MAX_BYTES.saturating_sub(core.ahead_bytes));
    core.ahead_bytes = core.ahead_bytes - before + flow.ahead.cost();
    taken
}

/// Gives the socket a segment's data, or keeps them, of which `room` bytes may be kept.
fn take_data(flow: &mut Flow, segment: &TcpSegment<'_>, room: usize) -> Taken {
    if segment.sequence_bytes() == 0 {
        let is_probe = segment.sequence != flow.expected;
        return if is_probe {
            Taken::Unexpected
        } else {
            Taken::All
        };
    }
    let end = segment.sequence.wrapping_add(segment.payload.len() as u32);
    let behind = distance(end, flow.expected);
    if flow.guest_ended || !(0..MAX_BEHIND).contains(&behind) {
        return Taken::Unexpected;
    }
    if segment.has(FIN) {
        flow.guest_fin = Some(end);
    } else if behind == 0 {
        // All of it is known.
        return Taken::Unexpected;
    }
    let Ok(known) = usize::try_from(distance(flow.expected, segment.sequence)) else {
        let kept = flow.ahead.keep(segment.sequence, segment.payload, room);
        if !flow.refused {
            return Taken::Unexpected;
        }
        flow.dropped |= !kept;
        return Taken::Part;
    };
    let fresh = segment.payload.get(known..).unwrap_or_default();
    let taken = if flow.refused {
        Ok(0)
    } else {
        give(flow, fresh)
    };
    let Ok(taken) = taken else {
        return Taken::Broken;
    };
    flow.must_acknowledge = true;
    match fresh.get(taken..) {
        Some(rest) if !rest.is_empty() => {
            flow.dropped |= !flow.ahead.keep(flow.expected, rest, room);
            Taken::Part
        }
        _ => give_kept(flow),
    }
}

/// Gives the socket bytes that are expected; returns how many it took, or that it is broken.
fn give(flow: &mut Flow, bytes: &[u8]) -> Result<usize, ()> {
    let socket = flow.socket.as_ref().ok_or(())?;
    if bytes.is_empty() {
        return Ok(0);
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let taken = match rustix::net::send(socket, bytes, flags) {
        Ok(taken) => taken,
        Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM) => 0,
        Err(_) => return Err(()),
    };
    flow.expected = flow.expected.wrapping_add(taken as u32);
    Ok(taken)
}

/// Gives the socket what was kept and is expected now, and the member's end behind it.
fn give_kept(flow: &mut Flow) -> Taken {
    let mut ahead = std::mem::take(&mut flow.ahead);
    let taken = loop {
        let Some(bytes) = ahead.from(flow.expected) else {
            break Taken::All;
        };
        match give(flow, bytes) {
            Ok(taken) if taken == bytes.len() => {}
            Ok(_) => break Taken::Part,
            Err(()) => break Taken::Broken,
        }
    };
    flow.ahead = ahead;
    if let (Taken::All, Some(socket)) = (&taken, &flow.socket)
        && flow.guest_fin == Some(flow.expected)
        && !flow.guest_ended
    {
        // Not connected any more: the reset is told by an event.
        let _ = rustix::net::shutdown(socket, Shutdown::Write);
        flow.expected = flow.expected.wrapping_add(1);
        flow.guest_ended = true;
        flow.ahead.clear();
    }
    taken
}
