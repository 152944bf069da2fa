//! What host sockets have for members, and what they take.

use super::flow::{Flow, Source, State};
use super::guest::wait_for_room;
use super::sequence::after;
use super::{TIME_WAIT_NS, Tcp, emit, token};
use crate::core::{Core, PAYLOAD_AT};
use crate::frame::MAX_IP_BYTES;
use crate::frame::build::ip_header_bytes;
use crate::frame::tcp::{FIN, PSH};
use crate::link::Sent;
use crate::sys;
use crate::table::Id;
use crate::timers::SECOND_NS;
use rustix::io::{Errno, IoSliceMut};
use rustix::net::{RecvAncillaryBuffer, RecvFlags};
use std::os::fd::OwnedFd;

/// Most segments of one flow in one turn of the loop; others have their turn then.
const MAX_SEGMENTS: usize = 16;
/// Most bytes on their way to a member.
const MAX_IN_FLIGHT_BYTES: usize = 2 * 1024 * 1024;
/// The same where each peek copies what is on its way again.
const MAX_COPIED_BYTES: usize = 256 * 1024;
/// How long data or FIN wait for an acknowledgement before they are sent again.
pub const RETRANSMIT_NS: u64 = 400_000_000;
/// How long a closed window is believed.
pub const PROBE_NS: u64 = SECOND_NS;
/// How long a flow may be idle before the member is asked whether it still has it.
pub const IDLE_NS: u64 = 7200 * SECOND_NS;

/// What a peek gave.
enum Peeked {
    Bytes(usize),
    Nothing,
    End,
    Broken,
}

/// Why sending to the member stopped.
#[derive(PartialEq, Eq)]
enum Stop {
    /// The member's window, or the bound on what is on its way.
    Window,
    /// The socket has no more.
    Drained,
    /// The link takes nothing.
    Blocked,
    /// It is another flow's turn.
    Turn,
    /// The member may be sent no more at the moment.
    Rate {
        /// It was sent something before.
        has_sent: bool,
    },
    /// The socket is broken.
    Broken,
}

impl Tcp {
    /// The end of a turn for one flow.
    pub(super) fn serve(&mut self, core: &mut Core, id: Id) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        if flow.state != State::Established {
            return;
        }
        if let Err(error) = discard(core, flow)
            && error != Errno::AGAIN
        {
            return self.abort(core, id);
        }
        let is_full = core.is_link_full(flow.key.member);
        let stop = if flow.gate.is_some() {
            Stop::Drained
        } else if is_full || (flow.must_resend && !resend(core, flow)) {
            Stop::Blocked
        } else {
            pump(core, flow)
        };
        let mut blocked = stop == Stop::Blocked;
        if flow.must_acknowledge && !blocked && stop != Stop::Broken {
            blocked = is_full || emit::data(core, flow, 0, 0) == Sent::Blocked;
        }
        match stop {
            Stop::Broken => return self.abort(core, id),
            Stop::Turn => self.mark(id),
            Stop::Rate { has_sent } => self.wait_for_rate(id, has_sent),
            Stop::Window | Stop::Drained | Stop::Blocked => {}
        }
        if blocked {
            self.wait_for_link(core, id);
        }
        self.after_serving(core, id);
    }

    fn after_serving(&mut self, core: &mut Core, id: Id) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        if flow.guest_ended && flow.fin_is_acknowledged() && !flow.must_acknowledge {
            flow.socket = None;
            flow.state = State::TimeWait;
            core.timers
                .set(&mut flow.deadline, token(id), core.now_ns + TIME_WAIT_NS);
            return;
        }
        if is_low(flow) {
            wait_for_room(core, flow, id);
        }
        let late_ns = flow.gate.as_ref().and_then(|gate| gate.deadline_ns());
        let wait = if let Some(late_ns) = late_ns {
            late_ns.saturating_sub(core.now_ns)
        } else if flow.is_waiting() {
            RETRANSMIT_NS << flow.retries.min(7)
        } else if flow.source == Source::Ready && flow.window < u32::from(flow.mss) {
            PROBE_NS << flow.probes.min(6)
        } else {
            IDLE_NS
        };
        core.timers
            .set(&mut flow.deadline, token(id), core.now_ns + wait);
    }

    /// The host's socket has room again.
    pub(super) fn on_writable(&mut self, core: &mut Core, id: Id) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        if flow.state != State::Established {
            return;
        }
        if is_low(flow) || flow.refused {
            flow.must_acknowledge = true;
        }
        if std::mem::take(&mut flow.refused) {
            self.on_room(core, id);
        }
    }
}

/// Whether the member has so little window that it must hear of more.
fn is_low(flow: &Flow) -> bool {
    !flow.guest_ended && flow.advertised < flow.low_window
}

/// Takes out of the socket what the member has acknowledged.
fn discard(core: &mut Core, flow: &mut Flow) -> Result<(), Errno> {
    let Some(socket) = &flow.socket else {
        return Ok(());
    };
    while flow.to_discard > 0 {
        let taken = if flow.is_local {
            // Only TCP discards without copying.
            core.skipped
                .resize(flow.to_discard.max(core.skipped.len()), 0);
            let room = core.skipped.get_mut(..flow.to_discard).unwrap_or_default();
            rustix::net::recv(socket, room, RecvFlags::DONTWAIT)?.1
        } else {
            sys::discard(socket, flow.to_discard)?
        };
        if taken == 0 {
            return Ok(());
        }
        flow.to_discard = flow.to_discard.saturating_sub(taken);
        // The kernel moves its own mark back by as much.
        flow.peek_offset = flow.peek_offset.map(|at| at.saturating_sub(taken));
    }
    Ok(())
}

/// Sends the oldest segment again; `false` if the link takes nothing.
fn resend(core: &mut Core, flow: &mut Flow) -> bool {
    let sequence = flow.unacknowledged;
    let length = flow.in_flight().min(usize::from(flow.mss));
    let sent = if length == 0 {
        // Only FIN is on its way.
        emit::data_at(core, flow, sequence, FIN, 0)
    } else {
        match peek_at(core, flow, 0, length) {
            Peeked::Bytes(length) => {
                core.counters.retransmitted_bytes += length as u64;
                emit::data_at(core, flow, sequence, PSH, length)
            }
            // The deadline finds out.
            Peeked::Nothing | Peeked::End | Peeked::Broken => Sent::Lost,
        }
    };
    flow.must_resend = sent == Sent::Blocked;
    !flow.must_resend
}

/// Sends what the socket has and the member takes.
fn pump(core: &mut Core, flow: &mut Flow) -> Stop {
    if flow.source == Source::Drained || flow.fin.is_some_and(|fin| after(flow.next, fin)) {
        return Stop::Drained;
    }
    let headers = ip_header_bytes(flow.key.guest.ip()) + 20;
    let Some(member) = core.members.get(flow.key.member) else {
        return Stop::Drained;
    };
    let mss = usize::from(flow.mss);
    let longest = if member.offloads.tso && member.offloads.checksum {
        (MAX_IP_BYTES - headers) / mss * mss
    } else {
        mss
    };
    let longest = longest.min(member.pace.longest_segment());
    for count in 0..MAX_SEGMENTS {
        if !core.may_send(flow.key.member) {
            return Stop::Rate {
                has_sent: count > 0,
            };
        }
        let in_flight = flow.in_flight();
        let bound = if flow.can_offset {
            MAX_IN_FLIGHT_BYTES
        } else {
            MAX_COPIED_BYTES
        };
        let room = (flow.window as usize).min(bound).saturating_sub(in_flight);
        // A small rest of a window is left until there is more of it (RFC 9293, section 3.8.6.2.1).
        if room == 0 || (room < mss && in_flight > 0) {
            return Stop::Window;
        }
        let asked = room.min(longest);
        let length = match peek(core, flow, asked) {
            Peeked::Bytes(length) => length,
            Peeked::End => return send_fin(core, flow),
            Peeked::Nothing => {
                flow.source = Source::Drained;
                return Stop::Drained;
            }
            Peeked::Broken => return Stop::Broken,
        };
        match emit::data(core, flow, PSH, length) {
            // A lost one is sent again like one that the member lost.
            Sent::Done | Sent::Lost => advance(flow, length as u32),
            Sent::Blocked => return Stop::Blocked,
        }
        if length < asked && !flow.source_ended {
            // What comes after this peek is told by an event.
            flow.source = Source::Drained;
            return Stop::Drained;
        }
    }
    Stop::Turn
}

fn advance(flow: &mut Flow, sequence_bytes: u32) {
    flow.next = flow.next.wrapping_add(sequence_bytes);
    if after(flow.next, flow.highest) {
        flow.highest = flow.next;
    }
}

fn send_fin(core: &mut Core, flow: &mut Flow) -> Stop {
    match emit::data(core, flow, FIN, 0) {
        Sent::Done | Sent::Lost => {
            flow.fin = Some(flow.next);
            advance(flow, 1);
            Stop::Drained
        }
        Sent::Blocked => Stop::Blocked,
    }
}

/// Copies up to `most` bytes that were not sent into the frame that is being built.
fn peek(core: &mut Core, flow: &mut Flow, most: usize) -> Peeked {
    peek_at(core, flow, flow.in_flight(), most)
}

/// The same from an offset behind the oldest byte that is not acknowledged.
fn peek_at(core: &mut Core, flow: &mut Flow, offset: usize, most: usize) -> Peeked {
    let skip = offset + flow.to_discard;
    let Some(socket) = &flow.socket else {
        return Peeked::Broken;
    };
    flow.can_offset &= core.config.use_peek_offset;
    if flow.can_offset && flow.peek_offset != Some(skip) {
        flow.peek_offset = sys::set_peek_offset(socket, skip).is_ok().then_some(skip);
        flow.can_offset = flow.peek_offset.is_some();
    }
    let Some(room) = core.frame.get_mut(PAYLOAD_AT..PAYLOAD_AT + most) else {
        return Peeked::Broken;
    };
    if flow.peek_offset.is_none() {
        return peek_behind(socket, &mut core.skipped, skip, room, flow.source_ended);
    }
    match rustix::net::recv(socket, room, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, 0)) => Peeked::End,
        Ok((_, length)) => {
            flow.peek_offset = Some(skip + length);
            Peeked::Bytes(length)
        }
        Err(Errno::AGAIN | Errno::INTR) => Peeked::Nothing,
        Err(_) => Peeked::Broken,
    }
}

/// The same for kernels without an offset: what was sent before is copied into `skipped`.
fn peek_behind(
    socket: &OwnedFd,
    skipped: &mut Vec<u8>,
    skip: usize,
    room: &mut [u8],
    has_ended: bool,
) -> Peeked {
    if skipped.len() < skip {
        skipped.resize(skip, 0);
    }
    let Some(before) = skipped.get_mut(..skip) else {
        return Peeked::Broken;
    };
    let mut parts = [IoSliceMut::new(before), IoSliceMut::new(room)];
    let mut none = RecvAncillaryBuffer::default();
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    match rustix::net::recvmsg(socket, &mut parts, &mut none, flags) {
        Ok(message) if message.bytes > skip => Peeked::Bytes(message.bytes - skip),
        // Only an end that was told before the peek is one: otherwise more may come.
        Ok(_) if has_ended => Peeked::End,
        Ok(message) if message.bytes == 0 && skip == 0 => Peeked::End,
        Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Peeked::Nothing,
        Err(_) => Peeked::Broken,
    }
}
